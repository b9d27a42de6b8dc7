"""The rules that keep runs from the host: in a network namespace of their own, by the real iptables."""

import asyncio
import json
import os
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from crewship.errors import Conflict
from crewship.netguard import service, surroundings
from crewship.netguard.client import GuardClient
from crewship.netguard.firewall import Firewall, FirewallError
from crewship.netguard.messages import Denial, GuardState, line_of, message_of
from crewship.netguard.nflog import NflogReader, Refused, refused_of
from crewship.netguard.rules import GuardOptions, Policy, chain_names, chains, parse_reach
from crewship.netguard.service import Guard

BRIDGE = "crewtestguard00"  # 15 characters: as long as a bridge's name may be
POLICY = Policy(
    BRIDGE,
    resolvers=(IPv4Address("10.255.255.53"),),
    reach=parse_reach("10.0.0.5:5432,10.9.0.0/16"),
    connected=(IPv4Network("203.0.113.0/29"), IPv4Network("0.0.0.0/1")),
    nflog_group=77,
)
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root")


# --- what the rules are -------------------------------------------------------------------------------------------------


def test_what_is_let_out_stands_before_what_is_refused() -> None:
    forward, host, deny = chain_names(BRIDGE)
    rules = chains(POLICY)
    assert max(map(len, rules)) <= 28
    refused = [number for number, rule in enumerate(rules[forward]) if rule.endswith(f"-j {deny}")]
    let_out = [number for number, rule in enumerate(rules[forward]) if "--dport" in rule or "10.9.0.0/16" in rule]
    # Other runs come first: no exception reaches them.
    assert refused[0] == 1
    assert let_out == [2, 3, 4, 5]
    assert refused[1] == 6
    assert rules[host][-1] == f"-j {deny}"
    assert [rule for rule in rules[host] if "--dport 5432" in rule] == [
        "-d 10.0.0.5/32 -p tcp -m tcp --dport 5432 -j RETURN"
    ]
    assert rules[deny][-1] == "-j DROP"


def test_public_neighbours_are_blocked_and_a_tunnels_route_is_not() -> None:
    assert IPv4Network("203.0.113.0/29") in POLICY.blocked
    assert not any(IPv4Address("8.8.8.8") in network for network in POLICY.blocked)
    for address in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "10.1.2.3", "172.17.0.1", "255.255.255.255"):
        assert any(IPv4Address(address) in network for network in POLICY.blocked), address


def test_resolvers_are_those_that_containers_can_ask(tmp_path: Path) -> None:
    resolv, resolved, daemon = (tmp_path / name for name in ("resolv", "resolved", "daemon"))
    resolv.write_text("search example\nnameserver 127.0.0.53\nnameserver\noptions edns0\n")
    assert surroundings.resolvers(resolv, resolved, daemon) == ()
    resolved.write_text("nameserver 192.168.1.1\nnameserver fd00::1\n")
    assert surroundings.resolvers(resolv, resolved, daemon) == (IPv4Address("192.168.1.1"),)
    resolv.write_text("nameserver 10.0.0.2\nnameserver 127.0.0.1\n")
    assert surroundings.resolvers(resolv, resolved, daemon) == (IPv4Address("10.0.0.2"),)
    daemon.write_text(json.dumps({"dns": ["9.9.9.9"]}))
    assert surroundings.resolvers(resolv, resolved, daemon) == (IPv4Address("9.9.9.9"),)


def test_connected_networks_are_the_public_ones_beside_the_bridge(tmp_path: Path) -> None:
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    rows = [
        "eth0\t00000000\t017100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0",  # the default route, by 203.0.113.1
        "eth0\t007100CB\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",  # 203.0.113.0/24
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0",  # 172.17.0.0/16
        f"{BRIDGE}\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0",  # 198.51.100.0/24, its own
    ]
    routes = tmp_path / "route"
    routes.write_text(head + "\n".join(rows) + "\n")
    assert surroundings.connected(BRIDGE, routes=routes) == (IPv4Network("203.0.113.0/24"),)
    assert surroundings.connected(BRIDGE, routes=tmp_path / "none") == ()


def packet(protocol: int, port: int) -> bytes:
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, protocol, 0, bytes([172, 18, 0, 2]), bytes([10, 0, 0, 1])
    )
    return header + struct.pack(">HH", 40000, port) + bytes(20)


def test_a_packets_first_bytes_say_where_it_was_going() -> None:
    assert refused_of(packet(6, 5432)) == Refused("172.18.0.2", "10.0.0.1", 5432, "tcp")
    assert refused_of(packet(17, 53)) == Refused("172.18.0.2", "10.0.0.1", 53, "udp")
    assert refused_of(packet(1, 0)) == Refused("172.18.0.2", "10.0.0.1", None, "icmp")
    assert refused_of(packet(47, 0)) == Refused("172.18.0.2", "10.0.0.1", None, "47")
    assert refused_of(packet(6, 80)[:20]) == Refused("172.18.0.2", "10.0.0.1", None, "tcp")
    for nothing in (b"", b"\x45", b"\x60" + bytes(40)):
        assert refused_of(nothing) is None


def test_messages_come_out_as_they_went_in() -> None:
    state = GuardState(BRIDGE, "broken", "mend it", ("10.0.0.0/8",), ("10.0.0.5:1",), ("9.9.9.9",), 3)
    denial = Denial(1_700_000_000_000, "172.18.0.2", "10.0.0.1", None, "icmp")
    for message in (state, denial):
        assert message_of(line_of(message)) == message
    for nonsense in (
        b"",
        b"[]",
        b"{}",
        b'{"state": 1}',
        b'{"state": {"bridge": "x"}}',
        b'{"denied": {"no": 1}}',
        b'{"new": {}}',
    ):
        assert message_of(nonsense) is None


# --- the firewall ---------------------------------------------------------------------------------------------------------


class Namespace:
    """A network of its own, with the chain that the engine would have made."""

    def __init__(self) -> None:
        self.name = f"crewtest{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.firewall = Firewall(("ip", "netns", "exec", self.name))

    def run(self, *command: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", self.name, *command], check=True, capture_output=True, text=True)
        return done.stdout

    def tables(self) -> list[str]:
        text = self.run("iptables-save", "-t", "filter") + self.run("ip6tables-save", "-t", "filter")
        return [line for line in text.splitlines() if line.startswith((":", "-A"))]


@pytest.fixture
def bare() -> Iterator[Namespace]:
    namespace = Namespace()
    yield namespace
    subprocess.run(["ip", "netns", "del", namespace.name], check=True)


@pytest.fixture
def namespace(bare: Namespace) -> Namespace:
    bare.run("iptables", "-N", "DOCKER-USER")
    bare.run("iptables", "-A", "DOCKER-USER", "-j", "RETURN")
    bare.run("iptables", "-A", "FORWARD", "-j", "DOCKER-USER")
    bare.tables()  # makes the tables that are not there yet
    return bare


@needs_root
def test_rules_are_set_again_and_taken_away_and_nothing_else_is_touched(namespace: Namespace) -> None:
    firewall = namespace.firewall
    namespace.run("iptables", "-I", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    before = namespace.tables()
    assert not firewall.is_intact(POLICY)
    firewall.apply(POLICY)
    once = namespace.tables()
    assert firewall.is_intact(POLICY)
    firewall.apply(POLICY)
    assert namespace.tables() == once
    other = Policy("another0")
    Firewall(("ip", "netns", "exec", namespace.name)).apply(other)
    assert firewall.is_intact(POLICY), "two installations live side by side"
    firewall.remove("another0")
    firewall.remove(BRIDGE)
    assert [line.split(" [")[0] for line in namespace.tables()] == [line.split(" [")[0] for line in before]
    firewall.remove(BRIDGE)


@needs_root
@pytest.mark.parametrize(
    "harm",
    [
        "iptables -F",  # as a firewall's reload does
        "iptables -I DOCKER-USER 1 -j ACCEPT",
        "iptables -I INPUT 1 -j ACCEPT",
        f"iptables -D INPUT -i {BRIDGE} -j CREWSHIP-I-{BRIDGE}",
        f"iptables -F CREWSHIP-D-{BRIDGE}",
        f"iptables -D CREWSHIP-F-{BRIDGE} -d 10.0.0.0/8 -j CREWSHIP-D-{BRIDGE}",
        f"iptables -I CREWSHIP-F-{BRIDGE} 1 -j ACCEPT",
        f"ip6tables -D FORWARD -i {BRIDGE} -j CREWSHIP-F-{BRIDGE}",
    ],
)
def test_a_change_from_outside_is_noticed_and_mended(namespace: Namespace, harm: str) -> None:
    firewall = namespace.firewall
    firewall.apply(POLICY)
    assert firewall.is_intact(POLICY)
    namespace.run(*harm.split())
    assert not firewall.is_intact(POLICY)
    firewall.apply(POLICY)
    assert firewall.is_intact(POLICY)


@needs_root
def test_another_policy_takes_the_place_of_the_first(namespace: Namespace) -> None:
    firewall = namespace.firewall
    firewall.apply(POLICY)
    tighter = Policy(BRIDGE)
    assert not firewall.is_intact(tighter)
    firewall.apply(tighter)
    assert firewall.is_intact(tighter)
    assert not any("5432" in line for line in namespace.tables())


@needs_root
def test_without_an_engine_it_says_so_and_changes_nothing(bare: Namespace) -> None:
    before = bare.tables()
    with pytest.raises(FirewallError, match="DOCKER-USER") as caught:
        bare.firewall.apply(POLICY)
    assert "is Docker running" in str(caught.value.hint)
    assert bare.tables() == before


# --- the guard ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STATE_SECONDS", 0.02)


@needs_root
@pytest.mark.usefixtures("every_moment")
async def test_the_guard_sets_tells_mends_and_takes_away(namespace: Namespace, tmp_path: Path) -> None:
    options = GuardOptions(BRIDGE, tmp_path / "guard.sock", reach=parse_reach("10.0.0.5"))
    guard = Guard(options, namespace.firewall)
    ready: asyncio.Future[GuardState] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(guard.serve(ready.set_result))
    heard: list[str] = []
    client = GuardClient(options.socket, BRIDGE, lambda denial: None, lambda: heard.append("changed"))
    assert client.state.problem is not None
    client.start()
    try:
        async with asyncio.timeout(20):
            assert (await ready).problem is None
            while client.state.problem is not None:
                await asyncio.sleep(0.01)
            assert client.state.reach == ("10.0.0.5",)
            with pytest.raises(Conflict, match="Another one"):
                await Guard(options, namespace.firewall).serve()
            namespace.run("iptables", "-F")
            while client.state.repairs == 0:
                await asyncio.sleep(0.01)
            assert heard
            assert GuardClient(options.socket, "other0", lambda denial: None).state.problem is not None
            guard.end()
            await serving
            while client.state.problem is None:
                await asyncio.sleep(0.01)
    finally:
        await asyncio.to_thread(client.close)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    assert not any("CREWSHIP" in line for line in namespace.tables()), "nothing was on the bridge"
    assert not options.socket.exists()


@needs_root
@pytest.mark.usefixtures("every_moment")
async def test_a_guard_that_cannot_set_the_rules_says_why(bare: Namespace, tmp_path: Path) -> None:
    guard = Guard(GuardOptions(BRIDGE, tmp_path / "guard.sock"), bare.firewall)
    ready: asyncio.Future[GuardState] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(guard.serve(ready.set_result))
    async with asyncio.timeout(20):
        state = await ready
        assert state.problem is not None
        assert "DOCKER-USER" in state.problem
        bare.run("iptables", "-N", "DOCKER-USER")
        while guard.state.problem is not None:
            await asyncio.sleep(0.01)
        guard.end()
        await serving


@needs_root
@pytest.mark.usefixtures("every_moment")
async def test_two_guards_of_one_bridge_are_one_guard(namespace: Namespace, tmp_path: Path) -> None:
    def guard(name: str, reach: str = "") -> Guard:
        options = GuardOptions(BRIDGE, tmp_path / name, reach=parse_reach(reach))
        return Guard(options, Firewall(("ip", "netns", "exec", namespace.name)))

    async def ready(one: Guard) -> tuple[GuardState, "asyncio.Task[None]"]:
        told: asyncio.Future[GuardState] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(one.serve(told.set_result))
        return await told, serving

    first, second, other = guard("first"), guard("second"), guard("other", "10.0.0.1")
    async with asyncio.timeout(30):
        _, leads = await ready(first)
        state, follows = await ready(second)
        assert state.problem is None
        state, differs = await ready(other)
        assert "with other exceptions: none" in str(state.problem)
        other.end()
        await differs
        client = GuardClient(tmp_path / "second", BRIDGE, lambda denial: None)
        client.start()
        while client.state.problem is not None:
            await asyncio.sleep(0.01)
        rules = namespace.tables()
        assert first.state.repairs == 0, "they do not fight"
        first.end()
        await leads
        while len(namespace.tables()) != len(rules) or client.state.problem is not None:  # the second takes over
            await asyncio.sleep(0.01)
        second.end()
        await follows
    await asyncio.to_thread(client.close)
    assert not any("CREWSHIP" in line for line in namespace.tables())


@needs_root
def test_two_readers_have_two_groups() -> None:
    one, other = NflogReader(BRIDGE), NflogReader(BRIDGE)
    try:
        assert one.group != other.group
        assert list(one.read()) == []
    finally:
        one.close()
        other.close()


def test_a_socket_that_nobody_serves_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "guard.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    client = GuardClient(path, BRIDGE, lambda denial: None)
    client.start()
    client.close()
    assert "No network guard" in str(client.state.problem)
