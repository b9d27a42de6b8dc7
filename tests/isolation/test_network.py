"""Runs and builds that try to reach what they must not, and what they may."""

import subprocess
from ipaddress import ip_address, ip_network
from typing import Any

import docker
import pytest

from crewship.events import verify
from tests.fixtures.builds import local_package
from tests.fixtures.platform import CrewshipDev, until
from tests.isolation.conftest import CREW, Listener, denied, run

pytestmark = pytest.mark.platform

METADATA = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "0.0.0.1"]
UNSENT = PRIVATE[5:]
"""What the container's own kernel may refuse, without a packet."""


def test_the_host_is_reached_on_none_of_its_addresses(
    platform: CrewshipDev, listener: Listener, host_addresses: list[str]
) -> None:
    targets = [[address, listener.port] for address in host_addresses]
    for do, protocol in (("connect", "tcp"), ("datagrams", "udp")):
        ended, events = run(platform, do, targets=targets)
        assert "got in" not in ended["output"].values(), ended["output"]
        assert {(host_addresses[1], listener.port, protocol), ("172.17.0.1", listener.port, protocol)} <= denied(events)
    assert listener.visitors == []


def test_the_platforms_own_servers_are_not_reached(platform: CrewshipDev, host_addresses: list[str]) -> None:
    temporal = int(platform.temporal_address.partition(":")[2])
    ports = [platform.port, platform.ui_port, temporal, 5432, 6379, 9000, 2375, 2376, 22]
    ended, events = run(platform, "connect", targets=[[host, port] for host in host_addresses for port in ports])
    assert "got in" not in ended["output"].values(), ended["output"]
    assert {(host_addresses[1], port, "tcp") for port in ports} <= denied(events)


def test_metadata_services_and_private_networks_are_not_reached(platform: CrewshipDev) -> None:
    # Not what is in the run's own network, where there is nobody who could refuse: which one that is, the engine chooses.
    own = ip_network(own_subnet(platform))
    private = [host for host in PRIVATE if ip_address(host) not in own]
    targets = [[host, port] for host in METADATA + private for port in (80, 443)]
    ended, events = run(platform, "connect", targets=targets)
    assert "got in" not in ended["output"].values(), ended["output"]
    # At once: nobody waits for a time limit.
    assert not {"TimeoutError", "ETIMEDOUT"} & set(ended["output"].values()), ended["output"]
    assert {(host, 80, "tcp") for host in [*METADATA, *private] if host not in UNSENT} <= denied(events)


def own_subnet(platform: CrewshipDev) -> str:
    client = docker.from_env()
    try:
        return str(client.networks.get(platform.network).attrs["IPAM"]["Config"][0]["Subnet"])
    finally:
        client.close()


def test_another_run_is_not_reached(platform: CrewshipDev) -> None:
    server = platform.start_run("hostile", {"do": "serve", "port": 8000, "seconds": 4})
    platform.logged(server, "serving")
    (container,) = platform.containers(server.replace("_", "-"))
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    ended, events = run(platform, "connect", targets=[[network["IPAddress"], 8000]])
    assert "got in" not in ended["output"].values(), ended["output"]
    assert denied(events) == {(network["IPAddress"], 8000, "tcp")}
    assert platform.ended(server)["output"] == "nobody"


def test_there_is_no_other_way(platform: CrewshipDev) -> None:
    ended, _ = run(platform, "other_ways")
    assert "got in" not in ended["output"].values(), ended["output"]


def test_names_are_resolved_and_the_internet_is_open(platform: CrewshipDev) -> None:
    """Builds of this suite need a package index, so there is one host that can be reached."""
    ended, _ = run(platform, "names", hosts=["pypi.org"])
    address = ended["output"]["pypi.org"]
    assert address.count(".") == 3, ended["output"]
    ended, events = run(platform, "connect", targets=[["pypi.org", 443]])
    assert ended["output"] == {"pypi.org:443": "got in"}
    assert denied(events) == set()


def test_without_a_network_nothing_is_reached_and_the_run_says_what_was_tried(platform: CrewshipDev) -> None:
    targets = [["api.example.com", 443], ["169.254.169.254", 80], ["gateway", platform.port]]
    ended, events = run(platform, "connect", "closed", targets=targets)
    assert "got in" not in ended["output"].values(), ended["output"]
    assert denied(events) == {("api.example.com", 443, "tcp"), ("169.254.169.254", 80, "tcp")}
    assert ended["isolation"]["network"] == {"mode": "none"}
    ended, events = run(platform, "names", "closed", hosts=["db.example.com"])
    assert denied(events) == {("db.example.com", None, "tcp")}


def test_what_was_refused_is_part_of_a_whole_log(platform: CrewshipDev) -> None:
    ended, events = run(platform, "connect", targets=[["10.0.0.1", port] for port in range(1, 200)])
    assert events[0]["type"] == "run.started"
    assert len(denied(events)) >= 50
    lines = platform.read(f"/runs/{ended['id']}/events")
    assert verify(lines.splitlines())[0] == ended["events"]["last_seq"]


def test_what_a_run_claims_to_have_been_refused_is_not_believed(platform: CrewshipDev) -> None:
    ended, events = run(platform, "forge")
    assert ended["status"] == "succeeded", ended
    assert denied(events) == set()
    assert ended["isolation"]["uid"] == 10001


def test_the_run_says_how_it_was_kept(platform: CrewshipDev) -> None:
    ended, _ = run(platform, "names", hosts=[])
    isolation = ended["isolation"]
    assert isolation["network"]["mode"] == "open"
    assert isolation["network"]["guard"] == "on"
    assert "10.0.0.0/8" in isolation["network"]["blocked"]
    assert isolation["loosened"] == []
    assert isolation["runtime"] == docker.from_env().info()["DefaultRuntime"]
    assert set(isolation["sources"]) == set(isolation) - {"source", "sources"}


def test_a_build_stands_behind_the_same_rules(
    platform: CrewshipDev, listener: Listener, host_addresses: list[str]
) -> None:
    targets = [
        (host_addresses[1], listener.port),
        ("172.17.0.1", listener.port),
        ("169.254.169.254", 80),
        ("10.0.0.1", 80),
    ]
    knock = f"""\
import socket
for target in {targets}:
    with socket.socket() as s:
        s.settimeout(3)
        print("KNOCK", s.connect_ex(target))
raise SystemExit("knocked")
"""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in CREW.iterdir() if path.is_file()}
    deployment = platform.deploy("builder", files | local_package("knocker", knock), name="hostile")
    assert deployment["status"] == "failed", deployment
    events = platform.ndjson(f"/deployments/{deployment['id']}/events")
    said = [str(event["data"]["message"]).strip() for event in events if event["type"] == "log"]
    assert said.count("KNOCK 111") == len(targets), said
    assert listener.visitors == []


def test_a_guard_that_is_killed_and_rules_that_are_taken_away_come_back(
    platform: CrewshipDev, listener: Listener
) -> None:
    bridge = platform.network
    listed = ["iptables", "-w", "10", "-S", f"CREWSHIP-F-{bridge}"]
    subprocess.run(["iptables", "-w", "10", "-F", f"CREWSHIP-F-{bridge}"], check=True)
    until(lambda: f"-j CREWSHIP-D-{bridge}" in subprocess.run(listed, capture_output=True, text=True).stdout)
    platform.kill("crewship.netguard")
    ended, _ = run(platform, "connect", targets=[["10.0.0.1", 80], ["gateway", listener.port]])
    assert "got in" not in ended["output"].values(), ended["output"]
