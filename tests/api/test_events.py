"""Event streams over a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from api.tokens import LIFETIME_SECONDS, StreamTokens
from crewship import events
from crewship.errors import Forbidden, Unauthorized
from crewship.models import Deployment
from tests.api.conftest import Api, assert_problem
from tests.api.logs import ScriptedLog
from tests.api.test_runs import run

RUN = "run_000000000001"
EVENTS = f"/v1/runs/{RUN}/events"


@pytest.fixture
def live(served: Api) -> ScriptedLog:
    served.add(run(1, status="running"))
    log = served.live_log(f"run-{RUN}")
    log.write("one", "two")
    return log


@asynccontextmanager
async def stream(
    api: Api, path: str = EVENTS, **arguments: Any
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
    async with api.http.stream("GET", path, **arguments) as response:
        yield response, response.aiter_raw()


async def read_until(chunks: AsyncIterator[bytes], ending: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(10):
        async for chunk in chunks:
            got += chunk
            if got.endswith(ending):
                return got
    raise AssertionError(f"the stream ended with {got[-200:]!r}")


async def forgotten(api: Api) -> None:
    """Wait until no feed is left: a response is whole for its client a moment before it is over for the server."""
    async with asyncio.timeout(10):
        while len(api.platform.feeds):
            await asyncio.sleep(0.01)


async def test_frames_as_they_are_promised(served: Api, live: ScriptedLog) -> None:
    async with stream(served) as (response, chunks):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert await read_until(chunks, b"\n\n") == b"retry: 1000\n" + events.sse(live.bytes)
        live.write("three")
        rest = await read_until(chunks, events.sse(live.bytes.splitlines(keepends=True)[-1]))
        assert b'event: log\ndata: {"message":"three","at":"2026-01-01T00:00:00.003Z"}\n\n' in rest
        served.close_log(live)
        final = b"".join([chunk async for chunk in chunks])
    assert final == b'id: 4\nevent: run.completed\ndata: {"duration_ms":60000,"at":"2026-01-01T00:01:00.000Z"}\n\n'


async def test_an_event_source_reads_it(served: Api, live: ScriptedLog) -> None:
    served.close_log(live)
    async with aconnect_sse(served.http, "GET", EVENTS) as source:
        read = [(event.id, event.event, event.json().get("message")) async for event in source.aiter_sse()]
    assert read == [("1", "log", "one"), ("2", "log", "two"), ("3", "run.completed", None)]


async def test_live_and_archived_bytes_are_the_same(served: Api, live: ScriptedLog) -> None:
    headers = {"accept": "application/x-ndjson"}
    async with stream(served, headers=headers) as (response, chunks):
        assert response.headers["content-type"] == "application/x-ndjson"
        live.write(*(f"bulk {number}" for number in range(5000)), segment=True)
        live.write("end")
        served.close_log(live)
        got = b"".join([chunk async for chunk in chunks])
    assert got == live.bytes
    assert (await served.http.get(EVENTS, headers=headers)).content == live.bytes
    assert (await served.http.get(EVENTS)).content == b"retry: 1000\n" + events.sse(live.bytes)
    await forgotten(served)


async def test_many_clients_cost_one_query_stream(served: Api, live: ScriptedLog) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=served.http.base_url, headers=served.http.headers, limits=limits, timeout=30
    ) as http:
        readers = [
            asyncio.create_task(http.get(EVENTS, headers={"accept": "application/x-ndjson"})) for _ in range(100)
        ]
        async with asyncio.timeout(20):
            while served.platform.metrics.streams._value.get() < 100:
                await asyncio.sleep(0.01)
        before = served.dispatch.queries
        for number in range(20):
            live.write(f"line {number}")
            await asyncio.sleep(0)
        served.close_log(live)
        assert {(await reader).content for reader in readers} == {live.bytes}
    assert served.dispatch.queries - before <= 3
    assert served.platform.metrics.streams._value.get() == 0


@pytest.mark.parametrize("closed", [False, True])
async def test_resuming(served: Api, live: ScriptedLog, closed: bool) -> None:
    if closed:
        served.close_log(live)
    expected = live.bytes.splitlines(keepends=True)[1]
    asked: list[dict[str, Any]] = [
        {"headers": {"last-event-id": "1"}}, {"params": {"after": "1"}},
        {"headers": {"last-event-id": "1"}, "params": {"after": "0"}},  # as an EventSource resumes
    ]  # fmt: skip
    for arguments in asked:
        async with stream(served, **arguments) as (response, chunks):
            assert response.status_code == 200
            got = b""
            async for chunk in chunks:
                got += chunk
                if events.sse(expected) in got:
                    break
            assert b"id: 1\n" not in got


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "position", ["-1", "1.5", "one", "", "1 2", "0x1", "٣", "9" * 30, "4", "99"], ids=lambda value: repr(value)
)
async def test_positions_that_cannot_be(served: Api, live: ScriptedLog, closed: bool, position: str) -> None:
    if closed:
        served.close_log(live)
    response = await served.http.get(EVENTS, params={"after": position})
    assert_problem(response, 400, "invalid_cursor")
    if position.isascii():
        response = await served.http.get(EVENTS, headers={"last-event-id": position})
        assert_problem(response, 400, "invalid_cursor")


async def test_the_end_of_a_closed_log_tells_an_event_source_to_stop(served: Api, live: ScriptedLog) -> None:
    served.close_log(live)
    response = await served.http.get(EVENTS, headers={"last-event-id": "3"})
    assert (response.status_code, response.content) == (204, b"")


async def test_a_closed_log_that_the_store_does_not_have(served: Api, live: ScriptedLog) -> None:
    served.close_log(live)
    served.store.delete_prefix("runs/")
    problem = assert_problem(await served.http.get(EVENTS), 404, "log_not_found")
    assert "ended with event 3" in problem["detail"]
    assert "crewship doctor" in problem["hint"]


async def test_types(served: Api, live: ScriptedLog) -> None:
    live.write("notes.md", type="artifact")
    served.close_log(live)
    text = (await served.http.get(f"{EVENTS}?types=artifact,run.completed")).text
    assert [line for line in text.splitlines() if line.startswith("event:")] == [
        "event: artifact", "event: run.completed",
    ]  # fmt: skip
    problem = assert_problem(await served.http.get(f"{EVENTS}?types=log,odd"), 400, "invalid_request")
    assert "'odd'" in problem["detail"]
    assert_problem(await served.http.get(f"{EVENTS}?types="), 400, "invalid_request")


async def test_a_closed_log_without_an_event_of_the_types_left_tells_an_event_source_to_stop(
    served: Api, live: ScriptedLog
) -> None:
    live.write("notes.md", type="artifact")
    live.write(*(f"line {number} {'x' * 1000}" for number in range(2000)), segment=True)
    live.write("last", type="custom")
    served.close_log(live)
    for types, last_seen, status in [
        ("log", "2002", 200), ("log", "2003", 204), ("log", "2004", 204), ("artifact", "2", 200), ("artifact", "3", 204),
        ("artifact,custom", "3", 200), ("custom", "2003", 200), ("agent.started", "0", 204), ("run.completed", "0", 200),
    ]:  # fmt: skip
        for accept in ("text/event-stream", "application/x-ndjson"):
            response = await served.http.get(
                EVENTS, params={"types": types}, headers={"last-event-id": last_seen, "accept": accept}
            )
            assert response.status_code == status, (types, last_seen)
            if status == 200:
                lines = events.seek(live.bytes, int(last_seen), frozenset(types.split(",")))
                sse = accept == "text/event-stream"
                assert response.content == (b"retry: 1000\n" + events.sse(lines) if sse else lines)
            else:
                assert response.content == b""


async def test_a_deployments_events(served: Api) -> None:
    served.add(Deployment(id="dep_9", project="crew", status="building", host="h", source_key="k", source_sha256="s"))
    log = served.live_log("deploy-dep_9")
    log.write("installing", type="build.started")
    async with stream(served, "/v1/deployments/dep_9/events") as (_, chunks):
        await read_until(chunks, events.sse(log.bytes))
        served.close_log(log, status="ready")
        assert b"event: deployment.ready\n" in b"".join([chunk async for chunk in chunks])


async def test_a_browsers_token(served: Api, live: ScriptedLog) -> None:
    served.add(run(2))
    answer = (await served.http.post(f"/v1/runs/{RUN}/stream-token")).json()
    served.close_log(live)
    async with httpx.AsyncClient(base_url=served.http.base_url) as browser:
        token = {"token": answer["token"]}
        assert (await browser.get(EVENTS, params=token)).status_code == 200
        other = await browser.get("/v1/runs/run_000000000002/events", params=token)
        assert "stream-token" in assert_problem(other, 403, "forbidden")["hint"]
        invalid = await browser.get(EVENTS, params={"token": "x"})
        assert "stream-token" in assert_problem(invalid, 401, "invalid_token")["hint"]
        assert_problem(await browser.get(EVENTS), 401, "unauthorized")
        assert_problem(await browser.get(f"/v1/runs/{RUN}", params=token), 401, "unauthorized")
        assert_problem(await browser.get(f"/v1/runs/{RUN}/artifacts", params=token), 401, "unauthorized")


def test_tokens_expire_and_cannot_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = StreamTokens.derive(b"secret")
    token, expires_at = tokens.issue("run_1")
    tokens.check(token, "run_1")
    with pytest.raises(Forbidden):
        tokens.check(token, "run_2")
    run_id, expiry, signature = token.split(".")
    for forged in (
        f"run_2.{expiry}.{signature}", f"{run_id}.{int(expiry) + 1}.{signature}", f"{run_id}.{expiry}.", f"{run_id}.",
        "", "..", f"{run_id}.²³.{signature}", f"{run_id}.{'9' * 5000}.{signature}", f"{run_id}.{expiry}.ü",
    ):  # fmt: skip
        with pytest.raises(Unauthorized):
            tokens.check(forged, "run_1")
    with pytest.raises(Unauthorized):
        StreamTokens.derive(b"other").check(token, "run_1")
    now = time.time()
    assert 0 < expires_at.timestamp() - now <= LIFETIME_SECONDS
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME_SECONDS + 1)
    with pytest.raises(Unauthorized, match="expired"):
        tokens.check(token, "run_1")


async def test_streams_end_in_order_when_the_api_stops(served: Api, live: ScriptedLog) -> None:
    async with stream(served, headers={"accept": "application/x-ndjson"}) as (_, chunks):
        await read_until(chunks, live.bytes)
        served.platform.feeds.end_streams()
        assert [chunk async for chunk in chunks] == []  # a clean end, or httpx would raise


async def test_a_stream_outlives_the_engine(served: Api, live: ScriptedLog) -> None:
    served.dispatch.down.add("all")
    async with stream(served) as (response, chunks):
        assert response.status_code == 200
        assert await read_until(chunks, b"\n") == b"retry: 1000\n"
        served.dispatch.down.clear()
        await read_until(chunks, events.sse(live.bytes))


async def test_a_client_that_leaves_is_noticed(served: Api, live: ScriptedLog) -> None:
    async with stream(served) as (_, chunks):
        await read_until(chunks, events.sse(live.bytes))
        assert len(served.platform.feeds) == 1
    await forgotten(served)


async def test_quiet_streams_are_kept_warm(served: Api, live: ScriptedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.streaming._PING_SECONDS", 0.02)
    async with stream(served) as (_, chunks):
        await read_until(chunks, b": ping\n")


async def test_head_opens_no_stream(served: Api, live: ScriptedLog) -> None:
    assert_problem(await served.http.request("OPTIONS", EVENTS), 405, "method_not_allowed")
    assert (await served.http.head(EVENTS)).status_code == 405
    assert len(served.platform.feeds) == 0


async def test_a_stalled_client_is_cut_off(served: Api, live: ScriptedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.streaming._SEND_SECONDS", 0.2)
    live.write(*("x" * 1000 for _ in range(30_000)), segment=True)
    served.close_log(live)
    url = served.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    writer.write(
        f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {served.http.headers['authorization']}\r\n\r\n".encode()
    )
    await reader.readline()
    async with asyncio.timeout(10):
        while served.platform.metrics.streams._value.get() == 0:
            await asyncio.sleep(0.01)
        while served.platform.metrics.streams._value.get() > 0:  # it reads nothing more
            await asyncio.sleep(0.01)
    writer.close()
    await forgotten(served)


async def test_an_upload_that_is_too_large_is_told_so_while_it_is_sent(served: Api) -> None:
    response = await served.http.post("/v1/projects/crew/deployments", files={"source": b"x" * 20_000_000})
    assert_problem(response, 413, "too_large")
    response = await served.http.post("/v1/runs", json={"project": "crew", "input": {"a": "x" * 5_000_000}})
    assert_problem(response, 413, "too_large")
