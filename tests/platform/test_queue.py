"""Who waits, for what, how long, and who comes next; and runs that are canceled many at a time."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from temporalio.client import Client

from tests.fixtures.platform import CREWS, CrewshipDev, until

pytestmark = pytest.mark.platform

CAPACITY = 4
"""The platform's default."""
CREW = (CREWS / "probe" / "crew.py").read_text()


def deploy(platform: CrewshipDev, project: str, run: str = "") -> str:
    config = f'[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n[run]\ntimeout_seconds = 120\n{run}'
    deployment = platform.deploy(project, {"crew.py": CREW, "crewship.toml": config, "requirements.txt": ""})
    assert deployment["status"] == "ready", deployment
    return project


@pytest.fixture(scope="module")
def crowd(platform: CrewshipDev) -> str:
    return deploy(platform, "crowd")


@pytest.fixture(scope="module")
def single(platform: CrewshipDev) -> str:
    return deploy(platform, "single", "concurrency = 1\n")


@pytest.fixture
def busy(platform: CrewshipDev, probe: str) -> Iterator[list[str]]:
    """Runs in all slots; what is left of them at the end is canceled."""
    run_ids = [platform.start_run(probe, {"do": "wait"}) for _ in range(CAPACITY)]
    for run_id in run_ids:
        platform.logged(run_id, "waiting")
    yield run_ids
    cancel(platform, run_ids=run_ids, force=True)
    for run_id in run_ids:
        platform.ended(run_id)


def cancel(platform: CrewshipDev, **which: Any) -> dict[str, Any]:
    answer = platform.http.post("/runs/cancel", json=which)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def waits(platform: CrewshipDev, run_id: str) -> tuple[str, int]:
    waiting = platform.get(f"/runs/{run_id}")["waiting_for"]
    return waiting["reason"], waiting["position"]


def test_projects_take_turns_and_the_urgent_come_first(
    platform: CrewshipDev, probe: str, crowd: str, busy: list[str]
) -> None:
    many = [platform.start_run(crowd) for _ in range(30)]
    other = platform.start_run(probe)
    urgent = platform.start_run(crowd, priority=1)
    late = platform.start_run(probe, priority=5)
    places = {"urgent": urgent, "first": many[0], "other": other, "last": many[-1], "late": late}
    assert {name: waits(platform, run_id) for name, run_id in places.items()} == {
        "urgent": ("capacity", 1),
        "first": ("capacity", 2),
        "other": ("capacity", 3),
        "last": ("capacity", 32),
        "late": ("capacity", 33),
    }
    platform.http.post(f"/runs/{busy[0]}/cancel", json={"force": True})  # one slot: they start one after the other
    runs = [platform.ended(run_id) for run_id in (urgent, other, late, *many)]
    assert {run["status"] for run in runs} == {"succeeded"}
    order = [run["id"] for run in sorted(runs, key=lambda run: str(run["started_at"]))]
    # A task that the slot's poller held already may come before.
    assert order.index(urgent) <= 1
    assert order.index(other) <= 3
    assert order[-1] == late
    assert all(run["waiting_for"] is None for run in runs)


def test_a_project_runs_no_more_at_once_than_it_may(platform: CrewshipDev, single: str) -> None:
    first, second, third = [platform.start_run(single, {"do": "wait"}) for _ in range(3)]
    urgent = platform.start_run(single, {"do": "wait"}, priority=1)
    platform.logged(first, "waiting")
    assert [waits(platform, run_id) for run_id in (urgent, second, third)] == [
        ("project_concurrency", place) for place in (1, 2, 3)
    ]
    for running in (first, urgent, second):
        platform.logged(running, "waiting")
        active = platform.get("/runs", project=single, status="running")["runs"]
        assert [run["id"] for run in active] == [running]
        platform.http.post(f"/runs/{running}/cancel", json={"force": True})
    platform.logged(third, "waiting")
    cancel(platform, project=single, force=True)
    assert platform.ended(third)["status"] == "canceled"


def test_places_are_given_while_the_api_and_the_worker_die(platform: CrewshipDev, single: str) -> None:
    runs = [platform.start_run(single, {"do": "tick", "count": 10, "seconds": 0.1}) for _ in range(4)]
    platform.logged(runs[0], "tick 5")
    platform.kill("worker")
    platform.logged(runs[1], "tick 5")
    platform.kill("worker")
    ended = [platform.ended(run_id) for run_id in runs]
    assert [run["output"] for run in ended] == [10] * 4, ended
    for before, after in pairwise(ended):
        assert before["started_at"] < after["started_at"]


def test_a_run_that_waits_too_long_fails(platform: CrewshipDev) -> None:
    project = deploy(platform, "impatient", "concurrency = 1\nqueue_timeout_seconds = 2\n")
    first, second = [platform.start_run(project, {"do": "wait"}) for _ in range(2)]
    run = platform.ended(second)
    assert (run["status"], run["error"]["code"], run["started_at"]) == ("failed", "queue_timeout", None), run
    assert "queue_timeout_seconds" in run["error"]["hint"]
    assert [event["type"] for event in platform.events(second)] == ["run.failed"]
    platform.logged(first, "waiting")  # who has started is not meant
    third = platform.start_run(project)
    platform.http.post(f"/runs/{first}/cancel", json={"force": True})
    assert platform.ended(third)["status"] == "succeeded"


def test_a_container_is_adopted_past_a_full_queue(platform: CrewshipDev, probe: str, busy: list[str]) -> None:
    """Its slot went with the worker; behind the queue nobody would follow it, or stop it, for an hour."""
    behind = [platform.start_run(probe, {"do": "wait"}) for _ in range(2 * CAPACITY)]
    platform.kill("worker")
    platform.http.post(f"/runs/{busy[0]}/cancel", json={"force": True})
    assert platform.ended(busy[0])["status"] == "canceled"
    cancel(platform, run_ids=behind, force=True)
    assert {platform.ended(run_id)["status"] for run_id in behind} == {"canceled"}


def test_pending_runs_are_canceled_by_the_command_line(platform: CrewshipDev, crowd: str, busy: list[str]) -> None:
    runs = [platform.start_run(crowd, labels={"n": str(number % 2)}) for number in range(12)]
    done = platform.crewship("runs", "cancel", "-p", crowd, "--status", "pending", "-l", "n=0", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["run_ids"]) == sorted(runs[::2])
    done = platform.crewship("runs", "cancel", *runs[1:5:2])
    assert (done.returncode, done.stderr) == (0, "✓ 2 runs canceled\n")
    done = platform.crewship("runs", "cancel", "-p", crowd, "--status", "pending")
    assert (done.returncode, done.stderr) == (0, "✓ 4 runs canceled\n")
    for run in (platform.get(f"/runs/{run_id}") for run_id in runs):
        assert (run["status"], run["started_at"]) == ("canceled", None)
        assert run["cancel"]["gone_at"]
    assert cancel(platform, project=crowd) == {"requested": 0, "run_ids": [], "more": False}
    assert {platform.get(f"/runs/{run_id}")["status"] for run_id in busy} == {"running"}


async def test_temporals_own_cancel_button(platform: CrewshipDev, probe: str, single: str, busy: list[str]) -> None:
    queued = platform.start_run(probe)
    platform.start_run(single)  # has the place, waits for a slot
    held = platform.start_run(single)
    assert (waits(platform, queued)[0], waits(platform, held)[0]) == ("capacity", "project_concurrency")
    client = await Client.connect(platform.temporal_address)
    for run_id, started in ((held, False), (queued, False), (busy[0], True)):
        await client.get_workflow_handle(f"run-{run_id}").cancel()
        run = platform.ended(run_id)
        assert (run["status"], run["started_at"] is not None) == ("canceled", started), run
        assert run["cancel"]["gone_at"]
        assert not platform.is_left(run_id)
    until(lambda: not platform.get("/runs", project=single, status="pending")["runs"])
