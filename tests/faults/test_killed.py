"""Crewship's own processes are killed or frozen at random points of runs that emit all the time.

A strike hits several runs, each at another point: before its container is there, while it talks, while its artifacts are
collected, while its log is archived.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.faults.runs import BOUND_SECONDS, PROJECT, RUNS_AT_ONCE, ShortRun, StubbornRun, TickingRun
from tests.fixtures.platform import CrewshipDev, Part, until

pytestmark = [pytest.mark.platform, pytest.mark.timeout(int(BOUND_SECONDS) * 2)]

FREEZE_SECONDS = 8.0
"""Longer than the heartbeat's time-out: another attempt begins while the first one is still there."""


def _kill(*parts: Part) -> Callable[[CrewshipDev], None]:
    def strike(platform: CrewshipDev) -> None:
        pids = [platform.pid(part) for part in parts]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    return strike


def _freeze(part: Part) -> Callable[[CrewshipDev], None]:
    def strike(platform: CrewshipDev) -> None:
        with platform.frozen(part):
            threading.Event().wait(FREEZE_SECONDS)

    return strike


def _take_the_tail_away(platform: CrewshipDev) -> None:
    """Nobody hears the hints for a while; then they come again, in the middle of a run."""
    socket = platform.data / "tail.sock"
    away = socket.with_name("tail.away")
    socket.rename(away)
    threading.Event().wait(2)
    away.rename(socket)


STRIKES: dict[str, Callable[[CrewshipDev], None]] = {
    "worker": _kill("worker"),
    "api": _kill("api"),
    "temporal": _kill("temporal"),
    "worker and temporal": _kill("temporal", "worker"),
    "everything": _kill("temporal", "worker", "api"),
    "tail": _take_the_tail_away,
    "worker frozen": _freeze("worker"),
    "temporal frozen": _freeze("temporal"),
}


@pytest.mark.parametrize("kind", STRIKES)
def test_no_line_is_lost_or_doubled_and_no_crew_runs_twice(
    platform: CrewshipDev,
    kind: str,
    strike_number: int,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    runs = []
    for _ in range(RUNS_AT_ONCE):
        runs.append(TickingRun(platform))
        threading.Event().wait(chance.uniform(0, 1.5))
    threading.Event().wait(chance.uniform(0, 2.5))
    struck = time.monotonic()
    STRIKES[kind](platform)
    for run in runs:
        run.ended()
        record_property(f"struck: {kind}", time.monotonic() - struck)
    for run in runs:
        run.check()


@pytest.mark.parametrize("kind", ["worker", "worker and temporal", "everything", "worker frozen"])
def test_no_attempt_is_lost_and_none_runs_twice(
    platform: CrewshipDev, kind: str, strike_number: int, chance: random.Random
) -> None:
    """Struck at any point: in an attempt, between two, while the container of the last one is removed."""
    runs = []
    for _ in range(RUNS_AT_ONCE):
        runs.append(StubbornRun(platform))
        threading.Event().wait(chance.uniform(0, 1.5))
    threading.Event().wait(chance.uniform(0, 5))
    STRIKES[kind](platform)
    for run in runs:
        run.check()


@pytest.mark.parametrize("kind", ["worker", "everything", "worker frozen"])
def test_no_word_of_a_short_run_is_lost(
    platform: CrewshipDev, kind: str, strike_number: int, chance: random.Random
) -> None:
    """Struck while some wait, some begin, some are at their end, and some are being closed within a workflow task."""
    until(lambda: platform.http.get(f"{platform.url}/readyz").status_code == 200, BOUND_SECONDS)
    platform.run(PROJECT, {"do": "short"})  # all that the last strike hit works again
    runs = [ShortRun(platform) for _ in range(RUNS_AT_ONCE * 4)]
    threading.Event().wait(chance.uniform(0.1, 2))
    STRIKES[kind](platform)
    for run in runs:
        run.check()
