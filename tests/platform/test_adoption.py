"""Processes of the platform are killed in the middle of runs: no line is lost or doubled, and no crew runs twice."""

import asyncio
import random
import threading
import time
from datetime import timedelta
from typing import Any, Literal

import httpx
import pytest
from temporalio.api.workflowservice.v1 import ListNamespacesRequest
from temporalio.client import Client
from temporalio.service import RPCError

from crewship.events import verify
from tests.fixtures.platform import CrewshipDev, until

pytestmark = pytest.mark.platform

TICKS = 100
SOON_SECONDS = 30
"""For the next worker's start, the heartbeats that are missed, and a grace."""


class ResumingReader:
    """A client that reads one run to its end, from wherever its connection broke."""

    def __init__(self, platform: CrewshipDev, run_id: str) -> None:
        self.lines: list[bytes] = []
        self.breaks = 0
        self._ended = threading.Event()
        url = f"{platform.url}/v1/runs/{run_id}/events"
        self._thread = threading.Thread(target=self._read, args=(platform, url), daemon=True)
        self._thread.start()

    def _read(self, platform: CrewshipDev, url: str) -> None:
        with httpx.Client(headers=platform.http.headers, timeout=30, trust_env=False) as client:
            while not self._ended.wait(0.1):
                headers = {"Accept": "application/x-ndjson", "Last-Event-ID": str(len(self.lines))}
                try:
                    with client.stream("GET", url, headers=headers) as answer:
                        if answer.status_code == 204:
                            return
                        if answer.status_code == 200:
                            self._take(answer)
                except httpx.TransportError:
                    pass
                self.breaks += 1

    def _take(self, answer: httpx.Response) -> None:
        rest = b""
        for chunk in answer.iter_raw():
            *whole, rest = (rest + chunk).split(b"\n")
            self.lines += whole

    def result(self) -> bytes:
        self._thread.join(90)
        still = self._thread.is_alive()
        self._ended.set()
        assert not still, f"the reader has {len(self.lines)} lines"
        return b"".join(line + b"\n" for line in self.lines)


@pytest.mark.parametrize("part", ["api", "temporal"])
def test_killed_in_the_middle(platform: CrewshipDev, probe: str, part: Literal["api", "temporal"]) -> None:
    run_id = platform.start_run(probe, {"do": "tick", "count": TICKS, "seconds": 0.05})
    reader = ResumingReader(platform, run_id)
    until(lambda: len(reader.lines) > 20)
    platform.kill(part)
    until(lambda: _is_ready(platform), 60)
    whole(platform, run_id, reader)


def test_temporals_database_is_interrupted_for_good(platform: CrewshipDev, probe: str) -> None:
    """What calls that are given up can do to Temporal's development server; when this cannot be made to happen any more, its
    driver is mended, and ``crewship.devserver.Interrupted`` can go."""
    run_id = platform.start_run(probe, {"do": "tick", "count": TICKS, "seconds": 0.1})
    reader = ResumingReader(platform, run_id)
    until(lambda: len(reader.lines) > 5)
    asyncio.run(interrupt(platform.temporal_address))
    until(lambda: "temporal does not get well by itself" in platform.last_words(), 30)
    until(lambda: _is_ready(platform), 60)
    whole(platform, run_id, reader)
    assert platform.run(probe)["status"] == "succeeded"


async def interrupt(address: str) -> None:
    """Give calls up until nothing else is heard from Temporal's database."""
    client = await Client.connect(address)
    asked = ListNamespacesRequest(page_size=10)

    async def call(seconds: float) -> bool:
        try:
            await client.workflow_service.list_namespaces(asked, timeout=timedelta(seconds=seconds))
        except RPCError as error:
            return "interrupted (9)" in error.message
        return False

    async with asyncio.timeout(60):
        while True:
            await asyncio.gather(*(call(random.uniform(0.0003, 0.006)) for _ in range(16)))
            if all([await call(2) for _ in range(5)]):
                return


def test_the_worker_is_killed(platform: CrewshipDev, probe: str) -> None:
    """One run goes on over the worker's absence, one ends in it, one is canceled in it."""
    long = platform.start_run(probe, {"do": "tick", "count": TICKS, "seconds": 0.05})
    reader = ResumingReader(platform, long)
    canceled = platform.start_run(probe, {"do": "catch"})
    platform.logged(canceled, "waiting")
    short = platform.start_run(probe, {"do": "tick", "count": 10, "seconds": 0.02})
    platform.logged(short, "begun")
    until(lambda: len(reader.lines) > 20)
    platform.kill("worker")
    assert platform.http.post(f"/runs/{canceled}/cancel").status_code == 202

    run = platform.ended(short)
    assert (run["status"], run["output"]) == ("succeeded", 10), run
    messages = [event["data"]["message"] for event in platform.events(short, types="log")]
    assert messages[1:] == [f"tick {number}" for number in range(10)]

    run = platform.ended(canceled)
    assert run["status"] == "canceled"
    events = platform.events(canceled)
    assert [event["data"]["message"] for event in events if event["type"] == "log"] == ["waiting", "tidied up"]
    assert "truncated" not in events[-1]["data"]
    assert platform.http.get(f"/runs/{canceled}/artifacts/partial.md").text == "what there was"
    assert not platform.is_left(canceled)

    whole(platform, long, reader)


@pytest.mark.parametrize("way", ["cancel", "cancel ignored", "timeout"])
def test_the_worker_is_killed_while_it_stops_a_run(platform: CrewshipDev, probe: str, way: str) -> None:
    """Who takes its place knows that SIGTERM was sent: the run ends as what it was stopped for, and soon."""
    do: dict[str, Any] = {"do": "ignore"} if way == "cancel ignored" else {"do": "linger", "seconds": 1}
    run_id = platform.start_run(probe, do, **({"timeout_seconds": 3} if way == "timeout" else {}))
    platform.logged(run_id, "waiting")
    if way != "timeout":
        assert platform.http.post(f"/runs/{run_id}/cancel").status_code == 202
    if way != "cancel ignored":
        platform.logged(run_id, "tidying")
    platform.kill("worker")
    began = time.monotonic()
    run = platform.ended(run_id)
    assert time.monotonic() - began < SOON_SECONDS
    if way == "timeout":
        assert (run["status"], run["error"]["code"]) == ("failed", "timeout"), run
    else:
        assert run["status"] == "canceled", run
    assert not platform.is_left(run_id)


def whole(platform: CrewshipDev, run_id: str, reader: ResumingReader) -> None:
    """Wait for the run's end: every tick is there once, for the reader that was there all along and for new ones."""
    run = platform.ended(run_id)
    lines = reader.result()
    assert (run["status"], run["output"]) == ("succeeded", TICKS), run
    assert lines == platform.read(f"/runs/{run_id}/events")
    assert verify(lines.splitlines())[0] == run["events"]["last_seq"]
    messages = [event["data"]["message"] for event in platform.events(run_id, types="log")]
    assert messages[0].startswith("begun in ")
    assert messages[1:] == [f"tick {number}" for number in range(TICKS)]
    types = [event["type"] for event in platform.events(run_id)]
    assert types == ["run.started", *["log"] * (TICKS + 1), "run.completed"]
    assert not platform.is_left(run_id)


def _is_ready(platform: CrewshipDev) -> bool:
    try:
        return platform.http.get(f"{platform.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
