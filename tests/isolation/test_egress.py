"""Runs that may reach named hosts alone, and try to reach others: by fronts, addresses, ports, and round the proxy."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from crewship.egress.wiring import closed_bridge, proxy_group
from tests.fixtures.origins import Names, Origins
from tests.fixtures.platform import CrewshipDev, running, until
from tests.isolation.conftest import CREW, Listener, denied, run

pytestmark = pytest.mark.platform

GET = "GET /x HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n"


@dataclass
class Restricted:
    """A platform, and what stands around it."""

    platform: CrewshipDev
    origins: Origins
    host: str
    listener: Listener

    def run(self, do: str, **input: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        return run(self.platform, do, "restricted", **input)

    @property
    def tls(self) -> int:
        return self.origins.tls_port

    @property
    def http(self) -> int:
        return self.origins.http_port


@pytest.fixture(scope="module")
def restricted(tmp_path_factory: pytest.TempPathFactory, host_addresses: list[str]) -> Iterator[Restricted]:
    folder, host = tmp_path_factory.mktemp("egress"), host_addresses[1]
    origins, listener = Origins(folder), Listener()
    names = Names(
        {"a.test": host, "b.test": host, "*.wild.test": host, "wild.test": host, "listener.test": host, "self.test": "127.0.0.1",
         "private.test": "10.0.0.1", "metadata.test": "169.254.169.254", "gateway.test": "172.17.0.1"}
    )  # fmt: skip
    env = {
        "CREWSHIP_NETWORK_DNS": names.address,
        "CREWSHIP_NETWORK_REACH": f"{host}:{origins.tls_port},{host}:{origins.http_port}",
    }
    try:
        with running(CrewshipDev(folder, env)) as dev:
            allow = [
                f"a.test:{origins.tls_port}", f"a.test:{origins.http_port}", f"*.wild.test:{origins.tls_port}",
                f"listener.test:{listener.port}", f"self.test:{dev.port}", "private.test", "metadata.test", "gateway.test",
                f"missing.test:{origins.tls_port}",
            ]  # fmt: skip
            files = {path.name: path.read_bytes() for path in CREW.iterdir() if path.is_file()}
            config = f'[deployments.restricted]\nframework = "python"\nentrypoint = "crew:kickoff"\n[network]\nallow = {allow}\n'
            assert dev.deploy("restricted", files | {"crewship.toml": config}, name="restricted")["status"] == "ready"
            yield Restricted(dev, origins, host, listener)
    finally:
        names.close()
        origins.close()
        listener.close()


def test_named_hosts_are_reached_and_no_others(restricted: Restricted) -> None:
    tls, http = restricted.tls, restricted.http
    good = [f"https://a.test:{tls}/p", f"http://a.test:{http}/p", f"https://x.wild.test:{tls}/p"]
    bad = [
        f"https://b.test:{tls}/",
        f"http://b.test:{http}/",
        f"https://wild.test:{tls}/",
        f"http://x.wild.test:{http}/",
    ]
    ended, events = restricted.run("fetch", urls=good + bad)
    output = ended["output"]
    for url in good:
        assert output[url].startswith(f"served {url.split('/')[2]} /p"), output
        # Nobody outside learns the run's address, nor that there is a proxy.
        assert not {"via", "x-forwarded-for", "forwarded"} & set(output[url].split("'")), output
    for url in bad:
        assert "403" in output[url], output
    expected = {
        ("b.test", tls, "tcp"),
        ("b.test", http, "tcp"),
        ("wild.test", tls, "tcp"),
        ("x.wild.test", http, "tcp"),
    }
    assert denied(events) == expected
    network = ended["isolation"]["network"]
    assert (network["mode"], network["guard"], network["proxy"]) == ("allow", "on", "on")
    assert f"a.test:{tls}" in network["allow"]
    assert ended["isolation"]["sources"]["network"] == "guard"


def test_a_name_is_no_front_for_another(restricted: Restricted) -> None:
    tls, http, there = restricted.tls, restricted.http, f"a.test:{restricted.tls}"
    tries = {
        "honest": {"connect": there, "sni": "a.test", "say": GET.format("a.test")},
        "another name": {"connect": there, "sni": "b.test", "say": GET.format("b.test")},
        "another that is allowed too": {"connect": there, "sni": "x.wild.test", "say": GET.format("x.wild.test")},
        "no name": {"connect": there, "sni": "", "say": GET.format("a.test")},
        "no TLS": {"connect": there, "say": GET.format("a.test")},
        "no TLS at the port of HTTP": {"connect": f"a.test:{http}", "say": GET.format("b.test")},
        "SSH": {"connect": there, "say": "SSH-2.0-OpenSSH_9.2\r\n"},
        "another Host": {"say": f"GET http://a.test:{http}/x HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n"},
        "two Hosts": {
            "say": f"GET http://a.test:{http}/x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\nConnection: close\r\n\r\n"
        },
        "a user": {"say": f"GET http://a.test:{http}@b.test:{http}/x HTTP/1.1\r\nHost: a.test\r\n\r\n"},
        "TLS by the proxy": {"say": f"GET https://a.test:{tls}/x HTTP/1.1\r\nHost: a.test\r\n\r\n"},
        "FTP by the proxy": {"say": f"GET ftp://a.test:{http}/x HTTP/1.1\r\nHost: a.test\r\n\r\n"},
    }
    ended, events = restricted.run("through", tries=tries)
    output = ended["output"]
    assert "served a.test /x" in output["honest"], output
    for name in (
        "another name",
        "another that is allowed too",
        "no name",
        "no TLS",
        "no TLS at the port of HTTP",
        "SSH",
    ):
        assert output[name] == "ended", output
    # The Host that arrives is that of the URL.
    for name in ("another Host", "two Hosts"):
        assert f"served a.test:{http} /x" in output[name] or " 400 " in output[name].splitlines()[0], output
    for name in ("a user", "TLS by the proxy", "FTP by the proxy"):
        assert "served" not in output[name], output
        assert output[name].split()[1] in ("400", "403"), output
    assert {("b.test", tls, "tcp"), ("x.wild.test", tls, "tcp"), ("a.test", tls, "tcp")} <= denied(events)
    reasons = {event["data"].get("reason") for event in events if event["type"] == "network.denied"}
    assert "TLS inside a connection to a.test" in reasons
    assert "TLS without a name" in reasons


def test_addresses_ports_and_private_names_are_refused(restricted: Restricted, host_addresses: list[str]) -> None:
    host, tls = restricted.host, restricted.tls
    targets = [
        f"{host}:{tls}", f"127.0.0.1:{restricted.platform.port}", f"[::1]:{restricted.platform.port}", "169.254.169.254:80",
        "10.0.0.1:443", "0.0.0.0:80", f"0x7f000001:{tls}", f"2130706433:{tls}", "a.test:22", "a.test:0", "a.test",
        f"listener.test:{restricted.listener.port}", f"self.test:{restricted.platform.port}", "private.test:443",
        "private.test:80", "metadata.test:80", "gateway.test:443", f"missing.test:{tls}", f"localhost:{tls}",
    ]  # fmt: skip
    tries: dict[str, Any] = {f"connect {target}": {"connect": target, "sni": "a.test"} for target in targets}
    for target in ("metadata.test", "private.test", f"listener.test:{restricted.listener.port}", "169.254.169.254"):
        tries[f"get {target}"] = {
            "say": f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
        }
    ended, events = restricted.run("through", tries=tries)
    for name, came in ended["output"].items():
        code = came if name.startswith("connect") else came.split()[1]
        assert code in ("400", "403"), (name, came)
    assert restricted.listener.visitors == []
    assert {("metadata.test", 80, "tcp"), ("private.test", 443, "tcp"), ("a.test", 22, "tcp")} <= denied(events)
    reasons = {
        (event["data"]["host"], event["data"].get("reason")) for event in events if event["type"] == "network.denied"
    }
    assert ("private.test", "its address is a private one, or of this platform") in reasons
    assert ("missing.test", "the name has no IPv4 address") in reasons


def test_the_proxys_own_surface_is_closed(restricted: Restricted) -> None:
    tries = {
        path: {"say": f"GET {path} HTTP/1.1\r\nHost: crewship\r\nConnection: close\r\n\r\n"}
        for path in (
            "/squid-internal-mgr/info", "http://crewship/squid-internal-mgr/menu", "cache_object://crewship/info",
            "cache_object://localhost/config", f"http://a.test:{restricted.http}/squid-internal-mgr/config",
            "http://crewship:3128/squid-internal-mgr/shutdown", "/squid-internal-static/icons/SN.png", "/",
        )
    }  # fmt: skip
    tries["purge"] = {"say": f"PURGE http://a.test:{restricted.http}/ HTTP/1.1\r\nHost: a.test\r\n\r\n"}
    ended, _ = restricted.run("through", tries=tries)
    for name, came in ended["output"].items():
        # What is asked of an allowed host is that host's to answer, or refused: never the proxy's.
        assert came.split()[1] in ("400", "403", "405", "501"), (name, came)
        assert "Squid Object Cache" not in came


def test_there_is_no_way_round_the_proxy(restricted: Restricted, host_addresses: list[str]) -> None:
    port = restricted.listener.port
    targets = [[host, port] for host in host_addresses] + [
        [restricted.host, restricted.tls], ["gateway", restricted.tls], ["1.1.1.1", 443], ["169.254.169.254", 80],
        ["10.0.0.1", 443], ["127.31.28.1", 3128], ["gateway", 22], ["gateway", restricted.platform.port], ["gateway", 53],
    ]  # fmt: skip
    for do in ("connect", "datagrams"):
        ended, events = restricted.run(do, targets=targets)
        assert "got in" not in ended["output"].values(), ended["output"]
        assert (restricted.host, port, "tcp" if do == "connect" else "udp") in denied(events)
    assert restricted.listener.visitors == []
    ended, _ = restricted.run("other_ways")
    assert "got in" not in ended["output"].values(), ended["output"]


def test_names_do_not_leave(restricted: Restricted) -> None:
    """A question to any server would be a way out: none is answered, and none arrives."""
    secret = f"{secrets.token_hex(8)}.a.test"
    ended, _ = restricted.run("names", hosts=[secret, "a.test", "pypi.org"])
    assert all("." not in came for came in ended["output"].values()), ended["output"]
    assert ended["duration_ms"] < 8000


def test_a_run_cannot_pass_for_another(restricted: Restricted) -> None:
    """By an address that is another run's: as a run may try it, and as root in a container could."""
    server = restricted.platform.start_run("restricted", {"do": "serve", "port": 8000, "seconds": 8})
    restricted.platform.logged(server, "serving")
    (container,) = restricted.platform.containers(server.replace("_", "-"))
    container.reload()
    bridge = closed_bridge(restricted.platform.network)
    permitted = container.attrs["NetworkSettings"]["Networks"][bridge]["IPAddress"]
    ended, _ = restricted.run(
        "through", tries={"forged": {"connect": f"a.test:{restricted.tls}", "sni": "a.test", "source": permitted}}
    )
    assert ended["output"]["forged"] != "403", "it was not even asked"
    assert "served" not in ended["output"]["forged"], ended["output"]

    # An image that is here, with a right that no run has: a second address beside its own.
    client = docker.from_env()
    gateway = client.networks.get(bridge).attrs["IPAM"]["Config"][0]["Gateway"]
    ask = (
        "import socket\ns = socket.socket()\ns.settimeout(2)\ns.bind(('{}', 0))\n"
        "try:\n s.connect(('{}', 3128))\n print('got in')\n"
        "except OSError as e:\n print(repr(e))"
    )
    mallory = client.containers.run(
        container.image.id, network=bridge, cap_add=["NET_ADMIN"], user="0:0", detach=True, entrypoint=["sleep", "60"],
        labels={"crewship.instance": "of-a-test"},
    )  # fmt: skip
    try:
        inside = str(mallory.attrs["State"].get("Pid") or client.api.inspect_container(mallory.id)["State"]["Pid"])
        free = permitted.rsplit(".", 1)[0] + ".251"
        for address in (permitted, free):
            subprocess.run(
                ["nsenter", "-t", inside, "-n", "ip", "addr", "add", f"{address}/32", "dev", "eth0"], check=True
            )
            done = subprocess.run(
                ["nsenter", "-t", inside, "-n", sys.executable, "-c", ask.format(address, gateway)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert "got in" not in done.stdout, (address, done.stdout)
    finally:
        mallory.remove(force=True)
        client.close()
    assert restricted.platform.ended(server)["output"] == "nobody"


def test_the_proxy_itself_is_kept_from_what_runs_are_kept_from(restricted: Restricted) -> None:
    """Whatever a name resolves to between two looks, and whoever has got into it: by its group, in the kernel."""
    reached = (
        "import socket, sys\nfor target in sys.argv[1:]:\n host, _, port = target.rpartition(':')\n"
        " with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as s:\n  s.settimeout(2)\n"
        "  print(target, s.connect_ex((host, int(port))))"
    )
    platform, listener = restricted.platform, restricted.listener
    bad = [
        f"127.0.0.1:{platform.port}", f"127.0.0.1:{listener.port}", f"{restricted.host}:{listener.port}",
        "10.0.0.1:80", "169.254.169.254:80", f"172.17.0.1:{listener.port}", f"{platform.temporal_address}",
    ]  # fmt: skip
    good = f"{restricted.host}:{restricted.tls}"
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", reached, *bad, good], user=13, group=proxy_group(platform.network), extra_groups=[],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    came = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert came.pop(good) == "0"
    assert came
    assert all(code != "0" for code in came.values()), came


def test_many_runs_at_once_get_what_is_theirs(restricted: Restricted) -> None:
    good, bad = f"a.test:{restricted.tls}", f"b.test:{restricted.tls}"
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: restricted.run("load", count=60, every=10, good=good, bad=bad)[0], range(4)))
    for one in ended:
        expected = {"let through": 60, "wrongly refused": 0, "refused": 12, "wrongly let through": 0}
        assert one["output"] == expected, one


def test_a_crew_that_is_imported_ahead_reaches_what_it_may(restricted: Restricted) -> None:
    url = f"https://a.test:{restricted.tls}/ahead"
    code = f"from crew import fetch\nFOUND = fetch({{'urls': [{url!r}]}})\ndef kickoff(inputs):\n    return FOUND\n"
    config = f"""\
[deployments.ahead]
framework = "python"
entrypoint = "ahead:kickoff"
[build]
smoke = false
[run]
warm = 1
[network]
allow = ["a.test:{restricted.tls}"]
"""
    platform = restricted.platform
    files = {"crew.py": (CREW / "crew.py").read_bytes(), "ahead.py": code, "crewship.toml": config}
    deployment = platform.deploy("ahead", files, name="ahead")
    assert deployment["status"] == "ready", deployment
    spare = f"spare-{deployment['id'].replace('_', '-')}"
    first = until(lambda: platform.containers(spare))[0].id

    def took_it() -> bool:
        """A run that comes while it is still being imported makes its own."""
        ended = platform.run("ahead")
        assert ended["output"][url].startswith(f"served a.test:{restricted.tls} /ahead"), ended
        return first not in [container.id for container in platform.containers(spare)]

    until(took_it)


def test_without_the_proxy_nothing_restricted_is_started_and_it_is_said(restricted: Restricted) -> None:
    platform = restricted.platform
    restricted.run("names", hosts=[])  # the first of them has it started
    pid = platform.pid("crewship.egress")

    def squid() -> str:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()

    before = squid()
    os.kill(int(before), 9)
    until(lambda: squid() not in ("", before))
    # Another one is started, and is told anew who may reach what.
    ended, _ = restricted.run("fetch", urls=[f"https://a.test:{restricted.tls}/p"])
    assert "served" in next(iter(ended["output"].values())), ended["output"]
    platform.kill("crewship.egress")
    ended, _ = restricted.run("fetch", urls=[f"https://a.test:{restricted.tls}/p"])
    assert "served" in next(iter(ended["output"].values())), ended["output"]

    def is_told() -> bool:
        return (
            "no run with [network] allow starts on local: No egress proxy is heard"
            in httpx.get(f"{platform.url}/readyz").text
        )

    start = {"project": "restricted", "input": {"do": "names", "hosts": []}}
    with platform.frozen("crewship.egress"):
        until(is_told, 60)
        refused = platform.http.post("/runs", json=start)
        assert refused.status_code == 503, refused.text
        assert "starts no run with [network] allow: No egress proxy is heard" in refused.json()["detail"]
        told = platform.crewship("doctor")
        assert "no run with [network] allow starts on local: No egress proxy is heard" in told.stdout, told.stdout
    until(lambda: not is_told())
    assert restricted.run("names", hosts=[])[0]["status"] == "succeeded"


def test_what_a_run_was_permitted_goes_with_it(restricted: Restricted) -> None:
    def known() -> str:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(restricted.platform.data / "egress.sock"))
            return s.recv(65536).decode()

    run_id = restricted.platform.start_run("restricted", {"do": "serve", "port": 8000, "seconds": 2})
    restricted.platform.logged(run_id, "serving")
    (container,) = restricted.platform.containers(run_id.replace("_", "-"))
    until(lambda: container.id in known())
    restricted.platform.ended(run_id)
    until(lambda: container.id not in known())
