"""What the rules need to know of the host: where names are asked for, and which networks it is a part of."""

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from crewship.netguard.rules import PRIVATE

_RESOLV = Path("/etc/resolv.conf")
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved has the true servers when ``_RESOLV`` names itself; the engine looks there too."""
_DAEMON = Path("/etc/docker/daemon.json")
_ROUTES = Path("/proc/net/route")


def resolvers(resolv: Path = _RESOLV, resolved: Path = _RESOLVED, daemon: Path = _DAEMON) -> tuple[IPv4Address, ...]:
    """The servers that the engine hands containers' questions to, without those on loopback, which they cannot reach."""
    try:
        configured = json.loads(daemon.read_text())["dns"]
        return tuple(IPv4Address(server) for server in configured)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = _servers(resolv)
    if all(server.is_loopback for server in found):
        found = _servers(resolved)
    return tuple(server for server in found if not server.is_loopback)


def connected(bridge: str, routes: Path = _ROUTES) -> tuple[IPv4Network, ...]:
    """Public networks that the host reaches without a router, but the one of ``bridge``: its neighbours are in them."""
    found = set()
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return ()
    for line in lines:
        name, destination, gateway, *_, mask = line.split()[:8]
        if name != bridge and int(gateway, 16) == 0:
            # As the kernel has them in memory: the first byte is the lowest.
            address, netmask = (
                int.from_bytes(int(text, 16).to_bytes(4, "little"), "big") for text in (destination, mask)
            )
            network = IPv4Network((address, str(IPv4Address(netmask))))
            if not any(network.subnet_of(private) for private in PRIVATE):
                found.add(network)
    return tuple(sorted(found))


def _servers(path: Path) -> list[IPv4Address]:
    found = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(IPv4Address(words[1]))
            except ValueError:  # an IPv6 one: containers have no way to it
                continue
    return found
