"""Crews that take all they can: each ends at its limit, nothing of it is left, and how a neighbour felt it is in the report.

The neighbour sleeps 5 ms and writes 4 KiB to the disk, over and over; what is shown is how much longer than that it took. A
timing is no assertion: only that the neighbour went on to its own end is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import PROJECT
from tests.fixtures.platform import CrewshipDev, processes_of, until

pytestmark = pytest.mark.platform

GREEDY = "greedy"
CREW = Path(__file__).parent / "crews" / GREEDY
AFTER_SECONDS = 1.0
"""The attack begins when the neighbour has been at work for a while."""

Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def greedy(platform: CrewshipDev) -> str:
    deployment = platform.deploy(GREEDY, CREW)
    assert deployment["status"] == "ready", deployment
    return GREEDY


class Neighbour:
    """A run beside another one."""

    def __init__(self, platform: CrewshipDev, seconds: float) -> None:
        self._platform = platform
        self._id = platform.start_run(PROJECT, {"do": "neighbour", "seconds": seconds})
        platform.logged(self._id, "here")

    def felt(self) -> dict[str, Any]:
        run = self._platform.ended(self._id)
        assert run["status"] == "succeeded", run
        felt: dict[str, Any] = run["output"]
        return felt


@pytest.fixture
def nothing_left(platform: CrewshipDev) -> Iterator[Callable[[str], None]]:
    """Told of a run that has begun, checks at the end that its container, its volume and its processes are gone."""
    seen: list[tuple[str, str]] = []

    def watch(run_id: str) -> None:
        (container,) = platform.containers(run_id.replace("_", "-"))
        seen.append((container.id, container.attrs["Mounts"][0]["Name"]))

    yield watch
    assert seen
    for container, volume in seen:
        until(lambda gone=container: gone not in [each.id for each in platform.containers()], 5)  # type: ignore[misc]
        assert not platform.has_volume(volume)
        assert list(processes_of(container)) == []


def test_quiet(platform: CrewshipDev, record_property: Record) -> None:
    """What the others are to be compared with."""
    record_property("neighbour: quiet", Neighbour(platform, 4).felt())


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        ("fork_bomb", "pids_limit"),
        ("memory_bomb", "out_of_memory"),
        ("disk_fill", "disk_limit"),
        ("hidden_fill", "disk_limit"),
        ("undumpable_fill", "disk_limit"),
        ("inode_flood", "disk_limit"),
        ("log_flood", "log_limit"),
    ],
)
def test_a_greedy_crew_ends_at_its_limit(
    platform: CrewshipDev,
    greedy: str,
    nothing_left: Callable[[str], None],
    record_property: Record,
    attack: str,
    code: str,
) -> None:
    neighbour = Neighbour(platform, 6)
    run_id = platform.start_run(greedy, {"do": attack, "after": AFTER_SECONDS})
    platform.logged(run_id, "here")
    nothing_left(run_id)
    run = platform.ended(run_id)
    record_property(f"neighbour: {attack}", neighbour.felt())
    assert (run["status"], run["error"]["code"]) == ("failed", code), run
    assert "[run] in crewship.toml" in run["error"]["hint"]


@pytest.mark.parametrize("way", ["cancel", "force", "timeout"])
def test_a_tree_of_daemons_that_ignores_sigterm_goes_as_a_whole(
    platform: CrewshipDev, greedy: str, nothing_left: Callable[[str], None], record_property: Record, way: str
) -> None:
    neighbour = Neighbour(platform, 6)
    timeout = {"timeout_seconds": 4} if way == "timeout" else {}
    run_id = platform.start_run(greedy, {"do": "daemon_tree"}, **timeout)
    platform.logged(run_id, "rooted")
    nothing_left(run_id)
    if way != "timeout":
        answer = platform.http.post(f"/runs/{run_id}/cancel", json={"force": way == "force"})
        assert answer.status_code == 202
    run = platform.ended(run_id)
    record_property(f"neighbour: daemon tree, {way}", neighbour.felt())
    if way == "timeout":
        assert (run["status"], run["error"]["code"]) == ("failed", "timeout"), run
    else:
        assert run["status"] == "canceled", run
        assert run["cancel"]["sigkill_at"] is not None
        assert (run["cancel"]["sigterm_at"] is None) == (way == "force")
    assert run["artifact_count"] > 0  # what it had written is kept
