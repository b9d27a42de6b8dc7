"""Names, numbers and addresses that the proxy, the guard's rules and the worker must agree on.

Runs with ``[network] allow`` are on a bridge of their own beside the open one, the *closed* bridge. It has no way out but the
proxy's port on the host's address there.
"""

import zlib
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crewship.netguard.rules import Reach

PORTS = range(3128, 3144)
"""Where a proxy may listen: each installation that shares the bridge has one of its own, on the first of these that is free."""
CHECKER_ADDRESS = IPv4Address("127.31.28.1")
"""Where the proxy's second half listens, on the port of the first."""
DEFAULT_PORTS = (443, 80)
"""Of a host that is named without one."""
_INTERFACE_NAME = 15
"""The kernel's limit."""
_GROUPS = range(31_000, 32_000)


def closed_bridge(bridge: str) -> str:
    """The interface of the closed bridge beside the open one."""
    if len(bridge) < _INTERFACE_NAME:
        return f"{bridge}x"
    return f"{bridge[:6]}{zlib.crc32(bridge.encode()):08x}x"


def proxy_group(bridge: str) -> int:
    """The number of the group that the proxy runs under, and nothing else on the host: the firewall knows its packets by it.

    It need not be in ``/etc/group``. One for each bridge, because the exceptions of two guards may differ.
    """
    return _GROUPS[zlib.crc32(bridge.encode()) % len(_GROUPS)]


def mac_of(address: IPv4Address) -> str:
    """The MAC address of the container that has ``address`` on the closed bridge; the guard drops what comes from another."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


@dataclass(frozen=True, slots=True)
class EgressOptions:
    """What one proxy is.

    Attributes:
        bridge: The open bridge; the proxy serves the closed one beside it.
        socket: Where the worker tells who may reach what.
        dns: Whom it asks for names; empty: whom this host asks.
        reach: The operator's exceptions to what is blocked.
    """

    bridge: str
    socket: Path
    dns: tuple[IPv4Address, ...] = ()
    reach: "tuple[Reach, ...]" = ()
