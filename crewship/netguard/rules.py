"""What runs may reach, as rules of iptables: a pure function of a ``Policy``.

The engine alone keeps containers of one bridge apart and nothing else: the host's own ports, on all its addresses, private
networks around it and the cloud's metadata address are open to them. So each bridge has three chains of ours:

* ``CREWSHIP-F-<bridge>``, called by ``DOCKER-USER``: what leaves the bridge for elsewhere, other runs on it included;
* ``CREWSHIP-I-<bridge>``, called by ``INPUT``: what is for the host itself;
* ``CREWSHIP-D-<bridge>``, called by both: tells of a packet (NFLOG) and refuses it, so that a client knows at once.

They are hooked by the bridge's interface, so nothing else on the host ever passes them.

The closed bridge beside it, where runs are that may reach named hosts alone, has three of the same names. Nothing leaves it,
and of the host it sees the proxy's ports. What comes from it has to have the MAC address that belongs to its source address, so
that no run can pass for another one. A seventh chain, ``CREWSHIP-O-<closed bridge>``, called by ``OUTPUT`` for the proxy's group,
keeps the proxy itself from all that runs are kept from: a name that stands for a private address leads nowhere, whenever it is
looked up, and so does a proxy that was taken over.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path

from crewship.egress.wiring import CHECKER_ADDRESS, PORTS, closed_bridge, proxy_group

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


@dataclass(frozen=True, slots=True)
class ClosedPolicy:
    """What the rules of the closed bridge, and of the proxy, are made of.

    Attributes:
        open: The policy of the bridge beside it; what is blocked there is blocked for the proxy.
        gateway: The host's address on the closed bridge; None: there is no such bridge yet, and no way to the proxy.
        resolvers: Whom the proxy asks for names.
        has_v6: Whether the host has an IPv6 loopback address, by which the proxy talks to its helpers. They talk by TCP at a port
            that the kernel chooses, so what else listens at that address is open to it: where IPv6 is, that is next to nothing.
    """

    open: Policy
    gateway: IPv4Address | None = None
    resolvers: tuple[IPv4Address, ...] = ()
    has_v6: bool = True

    @property
    def bridge(self) -> str:
        return closed_bridge(self.open.bridge)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Chains, and the rules by which the kernel's own call them.

    Attributes:
        chains: Chain → its rules, in iptables' own words without ``-A <chain>``.
        hooks: The calling chain → the rule that comes first there.
        chains6: The same for IPv6.
        hooks6: The same for IPv6.
    """

    chains: dict[str, list[str]]
    hooks: tuple[tuple[str, str], ...]
    chains6: dict[str, list[str]]
    hooks6: tuple[tuple[str, str], ...]


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


def output_chain(closed: str) -> str:
    """Of the proxy's own packets."""
    return f"CREWSHIP-O-{closed}"


def all_chains(bridge: str) -> tuple[str, ...]:
    """Whatever may be there of a bridge's and of its closed one's."""
    closed = closed_bridge(bridge)
    return (*chain_names(bridge), *chain_names(closed), output_chain(closed))


OURS = re.compile(r"-j CREWSHIP-[FIO]-\S+$")
"""A hook of any bridge's."""


def ruleset(policy: Policy | ClosedPolicy) -> Ruleset:
    """All rules of a policy."""
    forward, host, _ = chain_names(policy.bridge)
    by_bridge = f"-i {policy.bridge} -j {{}}"
    # Nothing of IPv6 may leave a bridge: containers have no such address, and must not have a way round.
    chains6 = {forward: ["-j DROP"]}
    hooks6 = [("FORWARD", by_bridge.format(forward)), ("INPUT", by_bridge.format(forward))]
    hooks = [(PARENT, by_bridge.format(forward)), ("INPUT", by_bridge.format(host))]
    if isinstance(policy, Policy):
        return Ruleset(chains(policy), tuple(hooks), chains6, tuple(hooks6))
    output = output_chain(policy.bridge)
    by_group = ("OUTPUT", f"-m owner --gid-owner {proxy_group(policy.open.bridge)} -j {output}")
    # To the outside it has no use for IPv6; refused, so that it tries the other address of a name at once.
    chains6[output] = ["-s ::1/128 -d ::1/128 -o lo -p tcp -j RETURN", "-j REJECT"]
    return Ruleset(_closed_chains(policy), (*hooks, by_group), chains6, (*hooks6, by_group))


def _closed_chains(policy: ClosedPolicy) -> dict[str, list[str]]:
    forward, host, deny = chain_names(policy.bridge)
    ports = f"{PORTS[0]}:{PORTS[-1]}"
    forged = f'-m bpf --bytecode "{_FORGED}" -j DROP'
    to_proxy = []
    if policy.gateway is not None:
        to_proxy.append(f"-d {policy.gateway}/32 -p tcp -m tcp --dport {ports} -j ACCEPT")
    blocked = ["-m addrtype --dst-type LOCAL", *(f"-d {network}" for network in policy.open.blocked)]
    return {
        forward: [forged, f"-j {deny}"],
        host: [forged, "-m conntrack --ctstate ESTABLISHED -j ACCEPT", *to_proxy, f"-j {deny}"],
        deny: _denial(replace(policy.open, bridge=policy.bridge)),
        output_chain(policy.bridge): [
            "-m conntrack --ctstate ESTABLISHED -j RETURN",
            *_excepted(policy.resolvers, policy.open.reach),
            f"-d {CHECKER_ADDRESS}/32 -p tcp -m tcp --dport {ports} -j RETURN",
            *(
                []
                if policy.has_v6
                else ["-s 127.0.0.1/32 -d 127.0.0.1/32 -o lo -p tcp -m tcp --dport 32768:65535 -j RETURN"]
            ),
            *(
                f"{which} {refusal}"
                for which in blocked
                for refusal in ("-p tcp -j REJECT --reject-with tcp-reset", "-j DROP")
            ),
            "-j RETURN",
        ],
    }


_FORGED = ",".join(
    (
        "8",
        "32 0 0 12",  # A = source address
        "7 0 0 0",  # X = A
        f"32 0 0 {0xFFE00000 + 8}",  # A = the last four bytes of the sender's MAC address
        "29 0 3 0",  # the same?
        f"40 0 0 {0xFFE00000 + 6}",  # A = its first two
        f"21 0 1 {0x0242}",  # as ``wiring.mac_of`` makes them?
        "6 0 0 0",  # then it is no match
        "6 0 0 65535",
    )
)
"""A filter that finds packets whose sender's MAC address is not the one that belongs to their source address."""


def _excepted(resolvers: Iterable[IPv4Address], reaches: Iterable[Reach]) -> list[str]:
    """What is let out although it would be blocked."""
    excepted = [
        f"-d {resolver}/32 -p {protocol} -m {protocol} --dport 53 -j RETURN"
        for resolver in resolvers
        for protocol in ("udp", "tcp")
    ]
    for reach in reaches:
        if reach.port is None:
            excepted.append(f"-d {reach.network} -j RETURN")
        else:
            excepted.append(f"-d {reach.network} -p tcp -m tcp --dport {reach.port} -j RETURN")
    return excepted


def chains(policy: Policy) -> dict[str, list[str]]:
    """Chain → its rules, in iptables' own words without ``-A <chain>``."""
    forward, host, deny = chain_names(policy.bridge)
    # What was let out once goes on; everything below sees the first packet of a connection only.
    known = "-m conntrack --ctstate ESTABLISHED -j RETURN"
    excepted = _excepted(policy.resolvers, policy.reach)
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
