"""What the rules need to know of the host: where names are asked for, and which networks it is a part of."""

import fcntl
import json
import re
import socket
import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from crewship.netguard.rules import PRIVATE

_RESOLV = Path("/etc/resolv.conf")
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved has the true servers when ``_RESOLV`` names itself; the engine looks there too."""
_DAEMON = Path("/etc/docker/daemon.json")
_ROUTES = Path("/proc/net/route")
_TRIE = Path("/proc/net/fib_trie")
_SIOCGIFADDR = 0x8915


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


def host_resolvers(resolv: Path = _RESOLV) -> tuple[IPv4Address, ...]:
    """The servers that programs on this host ask, those on loopback included."""
    return tuple(_servers(resolv))


def address_of(interface: str) -> IPv4Address | None:
    """This host's address on an interface; None when there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            answer = fcntl.ioctl(s.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()))
        except OSError:
            return None
    return IPv4Address(answer[20:24])


def has_v6_loopback(interfaces: Path = Path("/proc/net/if_inet6")) -> bool:
    """Whether ``::1`` is an address of this host."""
    try:
        return any(line.startswith("0" * 31 + "1 ") for line in interfaces.read_text().splitlines())
    except OSError:
        return False


def own_addresses(trie: Path = _TRIE) -> tuple[IPv4Address, ...]:
    """All addresses of this host."""
    try:
        text = trie.read_text()
    except OSError:
        return ()
    found = re.findall(r"\|-- ([0-9.]+)\n(?:\s+/\d+ (?!host LOCAL).*\n)*\s+/32 host LOCAL", text)
    return tuple(sorted({IPv4Address(address) for address in found}))


def connected(*bridges: str, routes: Path = _ROUTES) -> tuple[IPv4Network, ...]:
    """Public networks that the host reaches without a router, but those of ``bridges``: its neighbours are in them."""
    found = set()
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return ()
    for line in lines:
        name, destination, gateway, *_, mask = line.split()[:8]
        if name not in bridges and int(gateway, 16) == 0:
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
