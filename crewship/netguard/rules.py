"""What runs may reach, as rules of iptables: a pure function of a ``Policy``.

The engine alone keeps containers of one bridge apart and nothing else: the host's own ports, on all its addresses, private
networks around it and the cloud's metadata address are open to them. So each bridge has three chains of ours:

* ``CREWSHIP-F-<bridge>``, called by ``DOCKER-USER``: what leaves the bridge for elsewhere, other runs on it included;
* ``CREWSHIP-I-<bridge>``, called by ``INPUT``: what is for the host itself;
* ``CREWSHIP-D-<bridge>``, called by both: tells of a packet (NFLOG) and refuses it, so that a client knows at once.

They are hooked by the bridge's interface, so nothing else on the host ever passes them.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path

PRIVATE = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
"""What is no public address (IANA's special-purpose registry, without the ranges of documentation)."""

PARENT = "DOCKER-USER"
"""The engine's chain for rules that come before its own; it leaves it alone."""

_WIDEST = 8
"""Prefix of the widest connected network that is taken for a neighbourhood; a wider one is the route of a tunnel."""
_TOLD_PER_SECOND, _REFUSED_PER_SECOND = 20, 10
"""By run. More packets are still refused, without a word: the kernel sends 1,000 ICMP messages a second in all, and one run
must not use up what the others (and the probe) need."""


@dataclass(frozen=True, slots=True)
class Reach:
    """An exception: a network that runs may reach although it would be blocked; ``port`` None: all of it."""

    network: IPv4Network
    port: int | None = None

    def __str__(self) -> str:
        network = str(self.network.network_address) if self.network.prefixlen == 32 else str(self.network)
        return network if self.port is None else f"{network}:{self.port}"


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """What one guard guards.

    Attributes:
        bridge: The runs' bridge; it need not be there yet.
        socket: Where workers listen.
        dns: Where containers ask for names; empty: as this host does.
        reach: Exceptions.
    """

    bridge: str
    socket: Path
    dns: tuple[IPv4Address, ...] = ()
    reach: tuple[Reach, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What one bridge's rules are made of.

    Attributes:
        bridge: Interface's name.
        resolvers: Where containers ask for names: their port 53 is open, wherever they are.
        reach: The operator's exceptions.
        connected: Networks that the host is a part of, with its public neighbours.
        nflog_group: Where refused packets are told of; None: nowhere.
    """

    bridge: str
    resolvers: tuple[IPv4Address, ...] = ()
    reach: tuple[Reach, ...] = ()
    connected: tuple[IPv4Network, ...] = ()
    nflog_group: int | None = None

    @property
    def blocked(self) -> tuple[IPv4Network, ...]:
        """All that is blocked, each address once."""
        near = [network for network in self.connected if network.prefixlen >= _WIDEST]
        return tuple(collapse_addresses([*PRIVATE, *near]))


def parse_reach(text: str) -> tuple[Reach, ...]:
    """A comma-separated list of addresses and networks, each with an optional ``:port``.

    Raises:
        ValueError: names the entry that is none.
    """
    found = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        network, _, port = entry.partition(":")
        try:
            number = int(port) if port else None
            if entry.endswith(":") or (number is not None and not 0 < number < 65536):
                raise ValueError(port)
            found.append(Reach(IPv4Network(network), number))
        except ValueError:
            raise ValueError(
                f"{entry!r} is not an IPv4 address or network such as 10.0.0.5:5432 or 10.1.0.0/16"
            ) from None
    return tuple(found)


def parse_addresses(text: str) -> tuple[IPv4Address, ...]:
    """A comma-separated list of IPv4 addresses; ValueError names what is none."""
    return tuple(IPv4Address(part.strip()) for part in text.split(",") if part.strip())


def chain_names(bridge: str) -> tuple[str, str, str]:
    """Of forwarding, of the host's input, of denial; at most 28 characters, the kernel's limit."""
    return f"CREWSHIP-F-{bridge}", f"CREWSHIP-I-{bridge}", f"CREWSHIP-D-{bridge}"


OURS = re.compile(r"-j CREWSHIP-[FI]-\S+$")
"""A hook of any bridge's."""


def chains(policy: Policy) -> dict[str, list[str]]:
    """Chain → its rules, in iptables' own words without ``-A <chain>``."""
    forward, host, deny = chain_names(policy.bridge)
    # What was let out once goes on; everything below sees the first packet of a connection only.
    known = "-m conntrack --ctstate ESTABLISHED -j RETURN"
    excepted = [
        f"-d {resolver}/32 -p {protocol} -m {protocol} --dport 53 -j RETURN"
        for resolver in policy.resolvers
        for protocol in ("udp", "tcp")
    ]
    for reach in policy.reach:
        if reach.port is None:
            excepted.append(f"-d {reach.network} -j RETURN")
        else:
            excepted.append(f"-d {reach.network} -p tcp -m tcp --dport {reach.port} -j RETURN")
    return {
        forward: [
            known,
            f"-o {policy.bridge} -j {deny}",
            *excepted,
            *(f"-d {network} -j {deny}" for network in policy.blocked),
            "-j RETURN",
        ],
        host: [known, *excepted, f"-j {deny}"],
        deny: _denial(policy),
    }


def _denial(policy: Policy) -> list[str]:
    by_run = "-m hashlimit --hashlimit-mode srcip --hashlimit-upto {rate}/sec --hashlimit-burst {burst} --hashlimit-name {name}"
    rules = []
    if policy.nflog_group is not None:
        # A name is what two rules would share a count by; 15 characters at most.
        told = by_run.format(rate=_TOLD_PER_SECOND, burst=50, name=f"t{policy.bridge[:14]}")
        rules.append(
            f"{told} -j NFLOG --nflog-prefix {policy.bridge} --nflog-group {policy.nflog_group} --nflog-size 64"
        )
    refused = by_run.format(rate=_REFUSED_PER_SECOND, burst=20, name=f"r{policy.bridge[:14]}")
    return [
        *rules,
        "-p tcp -j REJECT --reject-with tcp-reset",
        f"{refused} -j REJECT --reject-with icmp-admin-prohibited",
        "-j DROP",
    ]
