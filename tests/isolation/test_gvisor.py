"""Runs under gVisor: the real runsc, by an engine that has it, behind the real guard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crewship.events import verify
from tests.fixtures.gvisor import BROKEN, gvisor_engine  # noqa: F401
from tests.fixtures.platform import CrewshipDev, pack, running, until
from tests.isolation.conftest import CREW, Listener, denied, run

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def sandboxed(gvisor_engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", gvisor_engine["DOCKER_HOST"])  # what the test itself looks at
        platform = CrewshipDev(tmp_path_factory.mktemp("gvisor"), gvisor_engine)
        with running(platform, leaves_nothing=True) as dev:
            for name in ("hostile", "small"):
                deployment = dev.deploy(name, CREW, name=name)
                assert deployment["status"] == "ready", deployment
            yield dev


def test_a_run_has_a_kernel_of_its_own_and_says_so(sandboxed: CrewshipDev) -> None:
    ended, _ = run(sandboxed, "names", hosts=[])
    isolation = ended["isolation"]
    assert isolation["kernel"].endswith("-gvisor")
    assert isolation["runtime"] == "runsc"
    assert (isolation["sources"]["kernel"], isolation["sources"]["runtime"]) == ("inside", "engine")
    assert (int(isolation["cap_eff"], 16), int(isolation["cap_bnd"], 16)) == (0, 0)
    assert isolation["uid"] == isolation["gid"] == 10001
    assert isolation["root_read_only"] is True
    assert isolation["network"]["guard"] == "on"
    assert "gvisor" in sandboxed.crewship("runs", "show", ended["id"]).stdout


@pytest.mark.parametrize("do", ["spy", "write_outside", "look_for_the_host", "other_ways"])
def test_nothing_is_got(sandboxed: CrewshipDev, do: str) -> None:
    ended, _ = run(sandboxed, do)
    assert ended["status"] == "succeeded", ended
    assert [what for what, came in ended["output"].items() if came == "got in"] == [], ended["output"]


def test_the_host_is_not_reached_and_the_run_says_what_was_tried(
    sandboxed: CrewshipDev, listener: Listener, host_addresses: list[str]
) -> None:
    targets = [[address, listener.port] for address in (*host_addresses, "169.254.169.254", "10.0.0.1")]
    for do, protocol in (("connect", "tcp"), ("datagrams", "udp")):
        ended, events = run(sandboxed, do, targets=targets)
        assert "got in" not in ended["output"].values(), ended["output"]
        assert {(host, listener.port, protocol) for host in (host_addresses[1], "169.254.169.254")} <= denied(events)
    assert listener.visitors == []


@pytest.mark.parametrize(("do", "code"), [("grab_memory", "out_of_memory"), ("fill_disk", "disk_limit")])
def test_a_run_ends_at_its_limit_and_says_which(sandboxed: CrewshipDev, do: str, code: str) -> None:
    ended, _ = run(sandboxed, do, "small")
    assert (ended["status"], ended["error"]["code"]) == ("failed", code), ended


def test_its_log_and_its_end_are_as_those_of_others(sandboxed: CrewshipDev) -> None:
    """Canceled by force, and followed by a worker that was killed meanwhile."""
    run_id = sandboxed.start_run("hostile", {"do": "serve", "port": 8000, "seconds": 60})
    sandboxed.logged(run_id, "serving")
    sandboxed.kill("worker")
    sandboxed.http.post(f"/runs/{run_id}/cancel", json={"force": True})
    ended = sandboxed.ended(run_id)
    assert (ended["status"], ended["cancel"]["gone_at"] is not None) == ("canceled", True), ended
    assert verify(sandboxed.read(f"/runs/{run_id}/events").splitlines())[0] == ended["events"]["last_seq"]
    until(lambda: not sandboxed.containers(run_id.replace("_", "-")))


def test_a_runtime_that_does_not_start_lets_nothing_start(
    gvisor_engine: dict[str, str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine knows its name, and the worker tries it before it believes."""
    monkeypatch.setenv("DOCKER_HOST", gvisor_engine["DOCKER_HOST"])
    dev = CrewshipDev(tmp_path, gvisor_engine | {"CREWSHIP_RUNTIME": BROKEN})

    def refused() -> dict[str, Any] | None:
        rows: list[dict[str, Any]] = dev.http.get(f"{dev.url}/readyz").json()["dependencies"]
        return next((row for row in rows if row["name"] == "network" and not row["ok"]), None)

    try:
        dev.start()
        until(refused)
        answer = dev.upload("early", pack({path.name: path.read_bytes() for path in CREW.glob("*.*")}), name="hostile")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
        assert "runtime 'broken' starts no container" in answer.json()["detail"]
        assert "--runtime broken" in answer.json()["hint"]
    finally:
        dev.destroy()
