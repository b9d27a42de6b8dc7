"""Crews that say what nobody should say: their own log stays whole, and so does that of a run beside them."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from crewship.events import verify
from tests.faults.runs import PROJECT, Reader, TickingRun, said
from tests.fixtures.platform import CrewshipDev

pytestmark = pytest.mark.platform

Hostile = Callable[[str], tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture
def hostile(platform: CrewshipDev) -> Hostile:
    """Does what is named beside a run that only counts, and checks both logs; the run and its events."""

    def do(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        neighbour = TickingRun(platform, seconds=3)
        run_id = platform.start_run(PROJECT, {"do": name})
        reader = Reader(platform, run_id, "application/x-ndjson")
        run = platform.ended(run_id)
        lines = platform.read(f"/runs/{run_id}/events")
        assert verify(lines.splitlines())[0] == run["events"]["last_seq"]
        assert reader.result() == lines
        neighbour.check()
        assert not platform.is_left(run_id)
        return run, [json.loads(line) for line in lines.splitlines()]

    return do


@pytest.mark.parametrize("name", ["long_lines", "binary", "ansi", "forged", "flood"])
def test_every_byte_is_in_the_log(hostile: Hostile, name: str) -> None:
    run, events = hostile(name)
    assert run["status"] == "succeeded", run
    assert said(events) == (run["output"]["sha256"], run["output"]["size"])
    assert run["output"] != "forged"
    assert run["output"].get("reached", []) == []
    assert {event["type"] for event in events} == {"run.started", "log", "run.completed"}


def test_a_last_line_without_an_end_is_a_line(hostile: Hostile) -> None:
    run, events = hostile("no_newline")
    assert run["status"] == "succeeded", run
    assert [event["data"]["message"] for event in events if event["type"] == "log"] == ["whole", "half"]


def test_closing_the_standard_streams(hostile: Hostile) -> None:
    run, events = hostile("closing")
    assert run["status"] == "succeeded", run
    assert said(events) == (run["output"]["sha256"], run["output"]["size"])
    assert [event["data"]["name"] for event in events if event["type"] == "custom"] == ["after"]


def test_writers_that_outlive_the_main_process_end_with_it(hostile: Hostile) -> None:
    began = time.monotonic()
    run, events = hostile("outliving")
    assert (run["status"], run["output"]) == ("succeeded", {"left": 3})
    assert time.monotonic() - began < 60
    assert run["duration_ms"] < 10_000
    for child in range(3):
        numbers = [
            int(event["data"]["message"].rpartition(" ")[2])
            for event in events
            if event["type"] == "log" and event["data"]["message"].startswith(f"child {child} ")
        ]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 10
