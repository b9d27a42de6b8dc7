"""A run's log as clients read it: the same bytes for every reader, live and long after, from every position."""

import hashlib
import json
import re
import threading
from typing import Any

import httpx
import pytest
import zstandard

from crewship.archive import Archive
from crewship.events import GENESIS, sse, verify
from crewship.stores import open_store
from tests.fixtures.platform import CrewshipDev

pytestmark = pytest.mark.platform

_FRAME = re.compile(r"id: (\d+)\nevent: ([a-z_.]+)\ndata: (\{.*\})\n\n")


def frames(stream: bytes) -> list[tuple[int, str, dict[str, Any]]]:
    """All frames of a stream, which has nothing else but comments and one ``retry``."""
    text = quiet(stream).decode().removeprefix("retry: 1000\n")
    assert "".join(match[0] for match in _FRAME.finditer(text)) == text
    return [(int(seq), name, json.loads(data)) for seq, name, data in _FRAME.findall(text)]


def quiet(stream: bytes) -> bytes:
    """A stream without the comments that keep its connection alive."""
    return re.sub(rb"(?m)^:.*\n", b"", stream)


def unzstd(frames: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(frames)


class LiveReader:
    """Reads a stream in a thread of its own, from before the run's first event to the stream's end."""

    def __init__(self, platform: CrewshipDev, run_id: str, accept: str, encoding: str = "identity") -> None:
        self.body = b""
        headers = {"Accept": accept, "Accept-Encoding": encoding}
        self._thread = threading.Thread(target=self._read, args=(platform, run_id, headers))
        self._thread.start()

    def _read(self, platform: CrewshipDev, run_id: str, headers: dict[str, str]) -> None:
        with httpx.Client(headers=platform.http.headers, timeout=60, trust_env=False) as client:
            with client.stream("GET", f"{platform.url}/v1/runs/{run_id}/events", headers=headers) as answer:
                for chunk in answer.iter_raw():
                    self.body += chunk

    def result(self) -> bytes:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.body


@pytest.fixture(scope="module")
def said(platform: CrewshipDev, probe: str) -> str:
    """A run that has ended and has a log with everything in it."""
    run = platform.run(probe, {"do": "say"})
    assert run["status"] == "succeeded", run
    return str(run["id"])


def test_live_readers_and_later_ones_get_the_same_bytes(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "tick", "count": 20, "seconds": 0.05})
    readers = {accept: LiveReader(platform, run_id, accept) for accept in ("text/event-stream", "application/x-ndjson")}
    stored = LiveReader(platform, run_id, "application/x-ndjson", "zstd")
    live = {accept: reader.result() for accept, reader in readers.items()}
    lines = live["application/x-ndjson"]
    path = f"/runs/{run_id}/events"

    assert lines == platform.read(path)
    assert lines == unzstd(stored.result())
    assert quiet(live["text/event-stream"]) == platform.read(path, "text/event-stream")
    assert quiet(live["text/event-stream"]) == b"retry: 1000\n" + sse(lines)
    archive = Archive.open(open_store(f"file://{platform.data}/objects"), f"run-{run_id}")
    assert b"".join(archive.read(entry) for entry in archive.entries) == lines

    run = platform.get(f"/runs/{run_id}")
    assert verify(lines.splitlines())[0] == run["events"]["last_seq"]
    messages = [event["data"].get("message") for event in map(json.loads, lines.splitlines()) if event["type"] == "log"]
    assert messages[1:] == [f"tick {number}" for number in range(20)]


@pytest.mark.parametrize(
    ("accept", "encoding", "encoded"),
    [
        ("application/x-ndjson", "zstd", True),
        ("application/x-ndjson", "gzip, deflate, br, zstd", False),  # whose clients may not know of several frames
        ("application/x-ndjson", "identity", False),
        ("text/event-stream", "zstd", False),
    ],
)
def test_zstd_is_for_those_who_ask_for_it_alone(
    platform: CrewshipDev, said: str, accept: str, encoding: str, encoded: bool
) -> None:
    path, headers = f"/runs/{said}/events", {"Accept": accept, "Accept-Encoding": encoding}
    for query in ({}, {"after": 3}, {"types": "log"}, {"types": "log", "after": 3}):
        with platform.http.stream("GET", path, params=query, headers=headers) as answer:
            body = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == ("zstd" if encoded else None)
        assert "accept-encoding" in answer.headers["vary"].lower()
        assert quiet(unzstd(body) if encoded else body) == quiet(platform.read(path, accept, **query))


def test_frames_have_the_documented_shape(platform: CrewshipDev, said: str) -> None:
    with platform.http.stream("GET", f"/runs/{said}/events", headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        found = frames(answer.read())
    assert [seq for seq, _, _ in found] == list(range(1, len(found) + 1))
    assert found[0][1] == "run.started"
    assert found[-1][1] == "run.completed"
    assert isinstance(found[-1][2]["duration_ms"], int)
    for _, _, data in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["at"])
    started = found[0][2]
    assert started["deployment_id"] == platform.get(f"/runs/{said}")["deployment_id"]


def test_ndjson_has_the_documented_shape(platform: CrewshipDev, said: str) -> None:
    previous = GENESIS
    for seq, line in enumerate(platform.read(f"/runs/{said}/events").splitlines(), 1):
        event = json.loads(line)
        assert list(event) == ["seq", "at", "type", "data", "hash"]
        assert event["seq"] == seq
        body = line[: line.rindex(b',"hash"')]
        previous = hashlib.sha256(previous.encode() + body).hexdigest()
        assert event["hash"] == previous


def test_what_a_crew_prints_is_there_as_it_was(platform: CrewshipDev, said: str) -> None:
    logs = [event["data"] for event in platform.events(said, types="log")]
    shown = [(data["message"], data["level"], data["stream"]) for data in logs if len(data["message"]) < 1000]
    assert ("plain", "info", "stdout") in shown
    assert ("grüße, 世界 🚢", "info", "stdout") in shown
    assert ("to stderr", "info", "stderr") in shown
    assert ("a warning", "warning", "stdout") in shown
    assert ("a detail", "debug", "stdout") in shown
    assert ("\x1b[31mred\x1b[0m", "info", "stdout") in shown
    assert ("a\rb", "info", "stdout") in shown
    assert ("", "info", "stdout") in shown
    assert ("no newline", "info", "stdout") in shown
    assert any('"forged"' in message for message, _, _ in shown)
    assert platform.get(f"/runs/{said}")["output"] is None
    raw = next(data for data in logs if "raw" in data)
    assert raw["message"] == "not utf-8: \ufffd\ufffd"
    assert raw["raw"] == "bm90IHV0Zi04OiD//g=="
    pieces = [data for data in logs if set(data["message"]) == {"x"}]
    assert "".join(data["message"] for data in pieces) == "x" * 100_000
    assert [data.get("partial", False) for data in pieces] == [True] * (len(pieces) - 1) + [False]


@pytest.mark.parametrize("how", ["header", "query"])
def test_resume_from_every_position(platform: CrewshipDev, said: str, how: str) -> None:
    path = f"/runs/{said}/events"
    whole = frames(platform.read(path, "text/event-stream"))
    for seq in range(len(whole)):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seq)} if how == "header" else {})
        answer = platform.http.get(path, headers=headers, params={"after": seq} if how == "query" else {})
        assert frames(answer.content) == whole[seq:], seq
    end = platform.http.get(path, headers={"Last-Event-ID": str(len(whole))})
    assert (end.status_code, end.content) == (204, b"")


def test_resume_of_a_live_stream(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "tick", "count": 30, "seconds": 0.03})
    path, seen = f"/runs/{run_id}/events", b""
    for _ in range(100):  # a client that loses its connection after each few events
        after = seen.count(b"\n")
        with platform.http.stream(
            "GET", path, headers={"Accept": "application/x-ndjson", "Last-Event-ID": str(after)}
        ) as answer:
            if answer.status_code == 204:
                break
            for number, line in enumerate(answer.iter_lines()):
                seen += line.encode() + b"\n"
                if number == 3:
                    break
    assert seen == platform.read(path)


def test_types(platform: CrewshipDev, said: str) -> None:
    every = platform.events(said)
    for types in ("log", "run.started,run.completed", "log,artifact"):
        wanted = [event for event in every if event["type"] in types.split(",")]
        assert platform.events(said, types=types) == wanted
        assert [seq for seq, _, _ in frames(platform.read(f"/runs/{said}/events", "text/event-stream", types=types))] \
            == [event["seq"] for event in wanted]  # fmt: skip
    assert platform.http.get(f"/runs/{said}/events", params={"types": "artifact"}).status_code == 204


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "", "9999999", "1e3", "٣"])
def test_wrong_positions_are_refused_before_the_stream(platform: CrewshipDev, said: str, position: str) -> None:
    answer = platform.http.get(f"/runs/{said}/events", params={"after": position})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_cursor"
    assert answer.json()["hint"]


def test_unknown_types_are_refused(platform: CrewshipDev, said: str) -> None:
    answer = platform.http.get(f"/runs/{said}/events", params={"types": "log,logs"})
    assert answer.status_code == 400
    assert "'logs'" in answer.json()["detail"]
    assert "run.completed" in answer.json()["hint"]


def test_a_stream_token_opens_this_run_only(platform: CrewshipDev, said: str, probe: str) -> None:
    token = platform.http.post(f"/runs/{said}/stream-token").json()["token"]
    other = platform.run(probe)["id"]
    with httpx.Client(base_url=f"{platform.url}/v1", trust_env=False) as browser:
        answer = browser.get(f"/runs/{said}/events", params={"token": token}, headers={"Accept": "text/event-stream"})
        assert answer.content == platform.read(f"/runs/{said}/events", "text/event-stream")
        assert browser.get(f"/runs/{other}/events", params={"token": token}).status_code in (401, 403)
        assert browser.get(f"/runs/{said}", params={"token": token}).status_code == 401
        assert browser.get(f"/runs/{said}/events").status_code == 401


def test_the_command_line_shows_and_verifies_the_log(platform: CrewshipDev, said: str) -> None:
    assert platform.crewship("runs", "events", said, "--json").stdout.encode() == platform.read(f"/runs/{said}/events")
    shown = platform.crewship("runs", "events", said)
    assert "grüße, 世界 🚢" in shown.stdout
    checked = platform.crewship("runs", "verify", said)
    assert checked.returncode == 0
    assert "every hash right" in checked.stderr


def test_a_build_has_a_log_like_a_run(platform: CrewshipDev, probe: str) -> None:
    current = platform.get(f"/projects/{probe}")["current_deployment_id"]
    path = f"/deployments/{current}/events"
    lines = platform.read(path)
    assert verify(lines.splitlines())[0] == platform.get(f"/deployments/{current}")["events"]["last_seq"]
    types = [name for _, name, _ in frames(platform.read(path, "text/event-stream"))]
    assert types[0] == "build.started"
    assert types[-3:] == ["build.completed", "deployment.activated", "deployment.ready"]
    assert set(types[1:-3]) == {"log"}
