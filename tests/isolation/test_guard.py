"""A guard that somebody has to start by hand, with an exception: nothing runs before it, and the exception is shown."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.platform import ROOT, CrewshipDev, pack, running, until
from tests.isolation.conftest import CREW, Listener, denied, run

pytestmark = pytest.mark.platform


@pytest.fixture
def unguarded(tmp_path: Path, listener: Listener, host_addresses: list[str]) -> Iterator[CrewshipDev]:
    env = {
        "CREWSHIP_NETWORK_GUARD_SOCKET": str(tmp_path / "guard.sock"),
        "CREWSHIP_NETWORK_REACH": f"{host_addresses[1]}:{listener.port}",
    }
    with running(CrewshipDev(tmp_path, env)) as dev:
        yield dev


def network(platform: CrewshipDev) -> bool:
    """Whether the platform knows by now that its network lets runs start. An upload would ask too, and be built."""
    rows = platform.http.get(f"{platform.url}/readyz").json()["dependencies"]
    return next(bool(row["ok"]) for row in rows if row["name"] == "network")


def test_nothing_is_started_without_a_guard(
    unguarded: CrewshipDev, listener: Listener, host_addresses: list[str]
) -> None:
    source = pack({path.name: path.read_bytes() for path in CREW.iterdir() if path.is_file()})
    until(lambda: not network(unguarded))
    answer = unguarded.upload("early", source, name="hostile")
    assert answer.status_code == 503, answer.text
    refused = answer.json()
    assert "starts nothing: No network guard is heard" in refused["detail"]
    assert "crewship netguard" in refused["hint"]
    told = unguarded.crewship("doctor")
    assert told.returncode == 1
    assert "its network" in told.stdout
    assert "crewship netguard" in told.stdout

    command = [sys.executable, "-m", "cli.main", "netguard", "--data", str(unguarded.data)]
    guard = subprocess.Popen(command, cwd=ROOT, env=unguarded.env, stdin=subprocess.DEVNULL)
    try:
        until(lambda: network(unguarded))
        deployment = unguarded.deploy("late", CREW, name="hostile")
        assert deployment["status"] == "ready", deployment
        setting = f"CREWSHIP_NETWORK_REACH={host_addresses[1]}:{listener.port}"
        assert setting in unguarded.crewship("doctor").stdout
        targets = [[host_addresses[1], listener.port], [host_addresses[1], unguarded.port], ["gateway", listener.port]]
        ended, events = run(unguarded, "connect", "late", targets=targets)
        assert list(ended["output"].values()) == ["got in", "ECONNREFUSED", "ECONNREFUSED"]
        assert (host_addresses[1], listener.port, "tcp") not in denied(events)
        assert ended["isolation"]["loosened"] == [setting]
        assert len(listener.visitors) == 1
    finally:
        guard.terminate()
        assert guard.wait(20) == 0
