"""Runs that emit all the time, readers that hold on to them, and what has to be true of each log in the end."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx

from crewship.events import sse, verify
from tests.fixtures.platform import CrewshipDev, running
from worker.reaper import EVERY_SECONDS

CREW = Path(__file__).parent / "crews" / "faulty"
PROJECT = "faulty"

RUNS_AT_ONCE = 3
"""As many as the machines that run the tests carry with ease."""
BOUND_SECONDS = 120.0
"""From a strike to the end of the run: the process's restart (up to 30 s when it dies often), 5 s until the lost heartbeat
is noticed, up to 10 s until the retry, then what is left of the run, with all of it under load."""

Form = Literal["application/x-ndjson", "text/event-stream"]
_NO_EVENT = re.compile(rb"(?m)^(?::|retry:).*\n")
_DELIMITER: dict[Form, bytes] = {"application/x-ndjson": b"\n", "text/event-stream": b"\n\n"}


@contextmanager
def deployed(dev: CrewshipDev) -> Iterator[CrewshipDev]:
    """``dev`` started, with the crew; at the end it has to stop in order and to leave no container and no volume."""
    with running(dev, leaves_nothing=True):
        deployment = dev.deploy(PROJECT, CREW)
        assert deployment["status"] == "ready", deployment
        yield dev


class Reader:
    """A client that holds on to one run's log to its end, and resumes where its connection broke.

    Attributes:
        breaks: How often a connection was refused, broke, or ended early.
    """

    def __init__(self, platform: CrewshipDev, run_id: str, form: Form) -> None:
        self.breaks = 0
        self._events: list[bytes] = []
        self._form: Form = form
        self._refused: str | None = None
        self._ended = threading.Event()
        self._url = f"{platform.url}/v1/runs/{run_id}/events"
        self._thread = threading.Thread(target=self._read, args=(platform.http.headers["Authorization"],), daemon=True)
        self._thread.start()

    def _read(self, key: str) -> None:
        headers = {"Authorization": key, "Accept": self._form}
        with httpx.Client(headers=headers, timeout=30, trust_env=False) as client:
            while not self._ended.is_set():
                try:
                    with client.stream("GET", self._url, headers={"Last-Event-ID": str(len(self._events))}) as answer:
                        if answer.status_code == 204:
                            return
                        if answer.status_code == 200:
                            self._take(answer)
                        elif answer.status_code < 500:
                            answer.read()
                            self._refused = f"{answer.status_code} after {len(self._events)}: {answer.text}"
                            return
                except httpx.TransportError:
                    pass
                self.breaks += 1
                self._ended.wait(0.1)

    def _take(self, answer: httpx.Response) -> None:
        delimiter, rest = _DELIMITER[self._form], b""
        for chunk in answer.iter_raw():
            *whole, rest = (rest + chunk).split(delimiter)
            for piece in whole:
                # Comments and ``retry`` are no events; they stand before the next one without a blank line.
                self._events.append(_NO_EVENT.sub(b"", piece) + delimiter)

    def result(self, timeout_seconds: float = 30) -> bytes:
        """What it has when the log is at its end."""
        self._thread.join(timeout_seconds)
        still = self._thread.is_alive()
        self._ended.set()
        assert self._refused is None, self._refused
        assert not still, f"{self._form}: waits after {len(self._events)} events and {self.breaks} breaks"
        return b"".join(self._events)


class WatchedRun:
    """One run, with a reader of each form from its first moment."""

    def __init__(self, platform: CrewshipDev, input: dict[str, Any]) -> None:
        self._platform = platform
        self.id = platform.start_run(PROJECT, input)
        self._readers = [Reader(platform, self.id, form) for form in _DELIMITER]

    def ended(self, timeout_seconds: float = BOUND_SECONDS) -> dict[str, Any]:
        """The run once it is terminal, whoever may be away meanwhile."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                answer = self._platform.http.get(f"/runs/{self.id}", params={"wait": 5}, timeout=15)
                if answer.status_code == 200 and answer.json()["status"] not in ("pending", "running"):
                    found: dict[str, Any] = answer.json()
                    return found
                assert answer.status_code in (200, 500, 503), answer.text
            except httpx.TransportError:
                time.sleep(0.1)
            assert time.monotonic() < deadline, f"{self.id} has not ended after {timeout_seconds:g} s"

    def whole_log(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The run, which has to succeed, and its events: gapless, every hash right, the same for each reader."""
        platform, run = self._platform, self.ended()
        lines = platform.read(f"/runs/{self.id}/events")
        assert run["status"] == "succeeded", run
        assert verify(lines.splitlines())[0] == run["events"]["last_seq"]
        wanted = (lines, sse(lines))
        for reader, body in zip(self._readers, wanted, strict=True):
            assert reader.result() == body
        return run, [json.loads(line) for line in lines.splitlines()]

    def nothing_left(self, seconds: float = 5) -> None:
        """Neither container nor volume, ``seconds`` after the end."""
        name = self.id.replace("_", "-")
        assert not self._platform.is_left(self.id, seconds)
        assert [volume.name for volume in self._platform.volumes() if name in volume.name] == []


class TickingRun(WatchedRun):
    """One run of the crew that counts."""

    def __init__(self, platform: CrewshipDev, *, seconds: float = 4.0, burst: int = 400) -> None:
        super().__init__(platform, {"do": "tick", "seconds": seconds, "burst": burst})

    def check(self) -> None:
        """Everything that is promised of a run and its log.

        Raises:
            AssertionError: something was lost, doubled, changed, run again, or left.
        """
        platform = self._platform
        run, events = self.whole_log()
        # Everything the crew said, once and in order.
        logs = [event["data"] for event in events if event["type"] == "log"]
        token, ticks, turns = run["output"]["token"], run["output"]["ticks"], run["output"]["turns"]
        assert [data["message"] for data in logs] == [f"token {token}", *(f"tick {number}" for number in range(ticks))]
        emitted = [event["data"]["value"]["turn"] for event in events if event["type"] == "custom"]
        assert emitted == list(range(10, turns + 1, 10))
        files = sorted(["token.txt", *(f"turn-{turn}.txt" for turn in range(50, turns + 1, 50))])
        assert sorted(event["data"]["name"] for event in events if event["type"] == "artifact") == files
        assert {event["type"] for event in events} <= {"run.started", "log", "custom", "artifact", "run.completed"}
        assert [event["type"] for event in (events[0], events[-1])] == ["run.started", "run.completed"]
        # It ran once, and all it left is what was collected.
        assert platform.http.get(f"/runs/{self.id}/artifacts/token.txt").text == token
        assert sorted(item["name"] for item in platform.get(f"/runs/{self.id}/artifacts")["artifacts"]) == files
        self.nothing_left()


class ShortRun(WatchedRun):
    """One run that has told everything within milliseconds, and leaves no files: its end is that of ADR 0029."""

    def __init__(self, platform: CrewshipDev) -> None:
        super().__init__(platform, {"do": "short"})

    def check(self) -> None:
        """It ran once, and every word of it is in its log.

        Raises:
            AssertionError: something was lost, doubled, run again, or left.
        """
        run, events = self.whole_log()
        assert [event["type"] for event in events] == ["run.started", "log", "log", "run.completed"]
        token = run["output"]["token"]
        assert [event["data"]["message"] for event in events[1:3]] == [f"token {token}", "done"]
        # Whoever had it in hand may have been killed: then it is the reaper's, of a worker that is there again in 30 s at most.
        self.nothing_left(30 + EVERY_SECONDS + 5)


class StubbornRun(WatchedRun):
    """One run whose crew fails twice, in a project that asks for two retries."""

    ATTEMPTS = 3

    def __init__(self, platform: CrewshipDev, *, seconds: float = 1.0) -> None:
        super().__init__(platform, {"do": "stubborn", "seconds": seconds, "attempts": self.ATTEMPTS})

    def check(self) -> None:
        """Each attempt ran once, from its first line to its last, in one log.

        Raises:
            AssertionError: something was lost, doubled, run again, or left.
        """
        run, events = self.whole_log()
        said = [event["data"]["message"] for event in events if event["type"] == "log"]
        for attempt in range(1, self.ATTEMPTS + 1):
            first, *ticks, last = [line.split() for line in said if line.startswith(f"attempt {attempt} ")]
            assert first[2] == "token"
            assert [tick[2:] for tick in ticks] == [["tick", str(number)] for number in range(len(ticks))]
            assert last[2:] == ["ticked", str(len(ticks))]
        told = [event for event in events if event["type"].startswith("run.")]
        assert [event["type"] for event in told] == ["run.started", *["run.retrying"] * 2, "run.completed"]
        assert [event["data"]["attempt"] for event in told[1:3]] == [2, 3]
        assert (told[0]["seq"], told[-1]["seq"]) == (1, len(events))
        (artifact,) = self._platform.get(f"/runs/{self.id}/artifacts")["artifacts"]
        assert artifact["name"] == "attempt-3.txt"
        assert self._platform.http.get(f"/runs/{self.id}/artifacts/attempt-3.txt").text == run["output"]["token"]
        self.nothing_left()


def said(events: list[dict[str, Any]], stream: str = "stdout") -> tuple[str, int]:
    """Digest and size of the bytes that a log's lines of ``stream`` were."""
    digest, size = hashlib.sha256(), 0
    for event in events:
        data = event["data"]
        if event["type"] != "log" or data["stream"] != stream or "source" in data:
            continue
        piece = base64.b64decode(data["raw"]) if "raw" in data else data["message"].encode()
        piece += b"" if data.get("partial") else b"\n"
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
