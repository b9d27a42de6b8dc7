"""The parts of the egress proxy; the whole of it, by the real squid, is attacked in tests/isolation/test_egress.py."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from crewship.egress import helper, messages
from crewship.egress.client import EgressClient
from crewship.egress.messages import Done, EgressState, Forget, Permit
from crewship.egress.policies import Policies, rules_of
from crewship.egress.service import Egress
from crewship.egress.squid import SquidOptions, denial_of, squid_conf
from crewship.egress.wiring import EgressOptions, closed_bridge, mac_of, proxy_group
from crewship.errors import Unavailable
from crewship.netguard.messages import Denial
from crewship.netguard.rules import ClosedPolicy, Policy, all_chains, parse_reach, ruleset
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Silent
from crewship.provision.squid import ensure_squid
from crewship.settings import Settings

RULES = "api.example.com 443\n*.example.org 443\n*.example.org 8443\n"


@pytest.mark.parametrize(
    ("host", "port", "is_allowed"),
    [
        ("api.example.com", "443", True),
        ("API.Example.com.", "443", True),
        ("api.example.com", "80", False),
        ("example.com", "443", False),
        ("x.api.example.com", "443", False),
        ("api.example.com.evil.test", "443", False),
        ("evil-api.example.com", "443", False),
        ("a.example.org", "8443", True),
        ("a.b.example.org", "443", True),
        ("example.org", "443", False),
        ("aexample.org", "443", False),
        ("*.example.org", "443", True),  # no such name can be resolved
        ("", "443", False),
        ("93.184.216.34", "443", False),
        ("[::1]", "443", False),
    ],
)
def test_a_name_is_allowed_by_its_rule_alone(host: str, port: str, is_allowed: bool) -> None:
    assert helper.is_allowed(RULES, host, port) is is_allowed


def ask(arguments: list[str], lines: list[str]) -> list[str]:
    command = [sys.executable, "-I", "-S", helper.__file__, *arguments]
    done = subprocess.run(command, input="".join(f"{line}\n" for line in lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_helper_answers_each_question_and_refuses_what_it_does_not_understand(tmp_path: Path) -> None:
    policies = Policies(tmp_path / "hosts")
    policies.permit("c1", "172.30.0.5", ("api.example.com", "*.example.org:8443"))
    lines = [
        "0 172.30.0.5 api.example.com 443", "7 172.30.0.5 api.example.com 80", "8 172.30.0.5 x.example.org 443",
        "9 172.30.0.6 api.example.com 443", "10 ../hosts/172.30.0.5 api.example.com 443", "11 172.30.0.5", "12",
        "13 172.30.0.5 x.example.org 8443",
    ]  # fmt: skip
    answers = ask(["hosts", str(tmp_path / "hosts")], lines)
    assert answers == ["0 OK", "7 OK", "8 ERR", "9 ERR", "10 ERR", "11 ERR", "12 ERR", "13 OK"]
    same = ["0 a.example A.example.", "1 a.example b.example", "2 a.example -", "3 a.example"]
    assert ask(["same"], same) == ["0 OK", "1 ERR", "2 ERR", "3 ERR"]


def test_an_address_is_one_containers_at_a_time(tmp_path: Path) -> None:
    policies = Policies(tmp_path / "hosts")
    policies.permit("first", "172.30.0.5", ("a.example",))
    policies.permit("second", "172.30.0.5", ("b.example:8443",))
    file = tmp_path / "hosts" / "172.30.0.5"
    assert file.read_text() == "b.example 8443\n"
    policies.forget("first")  # late: the address is another one's
    assert file.exists()
    assert policies.known == ("second",)
    policies.forget("second")
    assert list((tmp_path / "hosts").iterdir()) == []
    for address, host in (("../x", "a.example"), ("172.30.0.5", "a b"), ("172.30.0.5", "a.example\nb.example 443")):
        with pytest.raises(ValueError, match=r"x|a b|a\.example"):
            policies.permit("third", address, (host,))
    assert list((tmp_path / "hosts").iterdir()) == []
    assert rules_of("API.example.com") == ["api.example.com 443", "api.example.com 80"]


def test_messages_come_out_as_they_went_in() -> None:
    for message in (
        EgressState("broken", "mend it", "", ("c1",)),
        Permit(1, "c1", "172.30.0.5", ("a.example", "*.b.example:1")),
        Forget(2, "c1"),
        Done(2),
        Denial(1, "172.30.0.5", "a.example", 443, "tcp", "why"),
    ):
        assert messages.message_of(messages.line_of(message)) == message
    for nonsense in (
        b"",
        b"[]",
        b"{}",
        b'{"permit": 1}',
        b'{"permit": {"number": 1}}',
        b'{"new": {}}',
        b'{"state": []}',
    ):
        assert messages.message_of(nonsense) is None


def test_a_line_of_the_log_says_what_was_refused() -> None:
    line = '{"at": "1795635185.862", "source": "172.30.0.5", "host": "a.example", "port": "443", '
    line += '"why": "%s", "name": "%s", "error": "%s"}'
    denial = denial_of((line % ("host", "-", "ERR_ACCESS_DENIED")).encode())
    assert denial == Denial(1795635185862, "172.30.0.5", "a.example", 443, "tcp", "not in [network] allow")
    fronted = denial_of((line % ("name", "b.example", "-")).encode())
    assert fronted is not None
    assert (fronted.host, fronted.reason) == ("b.example", "TLS inside a connection to a.example")
    nameless = denial_of((line % ("name", "-", "-")).encode())
    assert nameless is not None
    assert (nameless.host, nameless.reason) == ("a.example", "TLS without a name")
    other = denial_of((line % ("-", "-", "ERR_PROTOCOL_UNKNOWN")).encode())
    assert other is not None
    assert other.reason == "only HTTP, and TLS by CONNECT, pass"
    for nothing in (line % ("-", "-", "ERR_CLIENT_GONE"), line % ("-", "-", "-"), "", "{}", "[]", "null"):
        assert denial_of(nothing.encode()) is None


def test_names_and_numbers_keep_to_the_kernels_limits() -> None:
    for bridge in ("crewship0", "a", "crewtest123456", "crewtestguard00"):
        assert len(closed_bridge(bridge)) <= 15
        assert closed_bridge(bridge) != bridge
        assert all(len(chain) <= 28 for chain in all_chains(bridge))
    assert closed_bridge("crewtestguard00") != closed_bridge("crewtestguard01")
    assert proxy_group("crewship0") == 31999, "docker-compose.yml has it too"
    assert mac_of(IPv4Address("172.30.0.5")) == "02:42:ac:1e:00:05"


def test_nothing_leaves_the_closed_bridge_but_to_the_proxy() -> None:
    open_policy = Policy("crewship0", reach=parse_reach("10.0.0.5:5432"))
    rules = ruleset(ClosedPolicy(open_policy, IPv4Address("172.30.0.1"), (IPv4Address("127.0.0.53"),)))
    forward, host, output = (f"CREWSHIP-{letter}-crewship0x" for letter in "FIO")
    assert not any(rule.endswith(("RETURN", "ACCEPT")) for rule in rules.chains[forward])
    accepted = [rule for rule in rules.chains[host] if rule.endswith(("RETURN", "ACCEPT"))]
    assert accepted == [
        "-m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "-d 172.30.0.1/32 -p tcp -m tcp --dport 3128:3143 -j ACCEPT",
    ]
    # The operator's exceptions hold for the proxy, and come before what it is refused.
    texts = rules.chains[output]
    assert texts.index("-d 10.0.0.5/32 -p tcp -m tcp --dport 5432 -j RETURN") < texts.index(
        "-d 10.0.0.0/8 -p tcp -j REJECT --reject-with tcp-reset"
    )
    without = ruleset(ClosedPolicy(open_policy)).chains[host]
    assert not any("dport" in rule for rule in without), "no bridge, no way"


@pytest.mark.server
def test_the_configuration_is_one_that_squid_takes(tmp_path: Path) -> None:
    try:
        squid = ensure_squid(Settings().cache_dir, Silent())
    except ProvisionError as error:
        pytest.skip(f"{error.detail}: {error.hint}")
    from crewship.egress.service import _certificate

    (tmp_path / "tls.pem").write_bytes(_certificate())
    options = SquidOptions(
        tmp_path, IPv4Address("127.0.0.1"), 3143, sys.executable, (IPv4Address("127.0.0.53"),),
        Policy("crewship0").blocked, (IPv4Address("203.0.113.5"),), parse_reach("10.0.0.5:5432,10.1.0.0/16"),
    )  # fmt: skip
    (tmp_path / "squid.conf").write_text(squid_conf(options))
    done = subprocess.run([squid, "-k", "parse", "-f", str(tmp_path / "squid.conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    warnings = [line.partition("WARNING: ")[2] for line in done.stderr.splitlines() if "WARNING" in line]
    assert warnings == ["HTTP requires the use of Via"], "which would tell of the proxy"


def test_a_worker_hears_of_a_proxy_that_is_away_and_tells_it_all_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line itself, with a proxy of three lines at its other end."""
    path = tmp_path / "egress.sock"
    told: list[object] = []

    def proxy() -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            listening.close()
            peer.sendall(messages.line_of(EgressState(url="http://172.30.0.1:3128")))
            with peer, peer.makefile("rb") as lines:
                for line in lines:
                    message = messages.message_of(line)
                    told.append(message)
                    if isinstance(message, Forget):
                        return  # it dies
                    assert isinstance(message, Permit)
                    peer.sendall(messages.line_of(Done(message.number)))

        threading.Thread(target=serve, daemon=True).start()
        return listening

    changed = threading.Event()
    client = EgressClient(path, lambda denial: None, changed.set)
    assert client.state.problem is not None
    with monkeypatch.context() as hurried:
        hurried.setattr("crewship.egress.client._ANSWER_SECONDS", 0.01)
        with pytest.raises(Unavailable, match="No egress proxy is heard"):
            client.permit("c0", "172.30.0.9", ("a.example",))
    first = proxy()
    client.start()
    try:
        assert changed.wait(5)
        assert client.state.url == "http://172.30.0.1:3128"
        client.permit("c1", "172.30.0.5", ("a.example",))
        client.permit("c2", "172.30.0.6", ("b.example",))
        changed.clear()
        client.forget("c2")
        assert changed.wait(5), "it is gone"
        assert client.state.problem is not None
        path.unlink()
        second = proxy()
        told.clear()
        assert changed.wait(5)
        client.permit("c3", "172.30.0.7", ("c.example",))
        assert [message.container for message in told if isinstance(message, Permit)] == ["c1", "c3"]
    finally:
        client.close()
        for listening in (first, second):
            listening.close()


async def test_without_squid_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crewship.egress.service.find_squid", lambda: None)
    egress = Egress(EgressOptions("crewtestnone", tmp_path / "egress.sock"))
    ready = asyncio.Event()
    serving = asyncio.create_task(egress.serve(lambda state: ready.set()))
    async with asyncio.timeout(10):
        await ready.wait()
        assert os.stat(tmp_path / "egress.sock").st_mode & 0o777
        reader, writer = await asyncio.open_unix_connection(tmp_path / "egress.sock")
        state = messages.message_of(await reader.readline())
        while not (isinstance(state, EgressState) and state.problem == "There is no squid"):
            state = messages.message_of(await reader.readline())
        assert "squid-openssl" in str(state.hint)
        # What it is told it keeps: a squid that comes later goes by it.
        writer.write(messages.line_of(Permit(1, "c1", "172.30.0.5", ("a.example",))))
        assert messages.message_of(await reader.readline()) == Done(1)
        egress.end()
        await serving
        writer.close()
    assert not (tmp_path / "egress.sock").exists()
