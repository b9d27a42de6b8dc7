"""What docker-compose.yml promises: loopback, no default secret, nobody root, one container with the engine's socket."""

import re
from pathlib import Path
from typing import Any

import yaml

from crewship.egress.wiring import proxy_group

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def volumes(name: str) -> list[str]:
    return [str(volume) for volume in SERVICES[name].get("volumes", [])]


def test_ports_are_published_on_the_loopback_address() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(re.match(r"127\.0\.0\.1:|\$\{CREWSHIP_BIND:-127\.0\.0\.1}:", port) for port in published)


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name, default in re.findall(r"\$\{(\w+)(:[-?])?", text):
        if re.search(r"PASSWORD|SECRET|KEY", name):
            assert default == ":?", name


def test_the_proxy_alone_has_the_engines_socket() -> None:
    with_socket = {name for name in SERVICES if any("docker.sock:" in volume for volume in volumes(name))}
    assert with_socket == {"engine-proxy"}
    with_proxy = {name for name in SERVICES if any(volume.startswith("engine:") for volume in volumes(name))}
    assert with_proxy == {"engine-proxy", "engine-folder", "worker"}
    assert SERVICES["engine-proxy"]["network_mode"] == "none"
    assert SERVICES["worker"]["environment"]["DOCKER_HOST"] == "unix:///run/engine/docker.sock"


def test_the_egress_proxy_runs_under_the_group_that_the_guard_knows() -> None:
    user, _, group = SERVICES["egress"]["user"].partition(":")
    assert (user, group) == ("13", f"${{CREWSHIP_EGRESS_GROUP:-{proxy_group('crewship0')}}}")
    assert "cap_add" not in SERVICES["egress"]
    assert "CREWSHIP_NETWORK:-crewship0" in COMPOSE["x-network-env"]["CREWSHIP_NETWORK"]


def test_nobody_is_root_who_need_not_be() -> None:
    """By the service's own user, or by that of the image that is built here."""
    images = {"deploy/Dockerfile", "deploy/minio/Dockerfile"}
    assert all(re.search(r"^USER (?!root)\w+", (ROOT / image).read_text(), re.MULTILINE) for image in images)
    for name in ("postgres", "valkey", "engine-proxy"):
        assert SERVICES[name]["user"] not in ("root", "0", "0:0"), name
    root = {name for name, service in SERVICES.items() if str(service.get("user", "")).startswith("0")}
    assert root <= {"engine-folder", "netguard"}  # one chown; the host's firewall
    for name in ("api", "worker", "egress", "postgres", "minio", "valkey", "engine-proxy"):
        assert SERVICES[name]["cap_drop"] == ["ALL"], name
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"], name
