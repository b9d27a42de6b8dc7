"""RunWorkflow on a real Temporal server: endings, cancels, the log's signals and queries, replay."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from crewship import temporal
from crewship.contracts import Batch, CancelInput, EndFacts, EventsPage, EventsQuery, Head, RunInput, StopResult
from crewship.events import Event, parse
from crewship.ids import new_id
from tests.workflows.stubs import RunStubs, facts, failing
from worker.sandbox import sandbox_runner
from workflows.run import RunWorkflow

pytestmark = pytest.mark.temporal

Serving = Callable[[list[Any]], AbstractAsyncContextManager[None]]


async def start(client: Client) -> WorkflowHandle[Any, Any]:
    run = RunInput(
        run_id=new_id("run"), project="p", deployment_id="dep_1", host="test", timeout_seconds=60, grace_seconds=1
    )
    await temporal.start_run(client, run)
    return client.get_workflow_handle(f"run-{run.run_id}")


async def logged(handle: WorkflowHandle[Any, Any]) -> list[Event]:
    page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    return [event for entry in page.entries for event in parse((entry.lines or "").encode())]


async def terminal(handle: WorkflowHandle[Any, Any]) -> Any:
    page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    return list(parse((page.entries[-1].lines or "").encode()))[-1]


async def test_a_run_that_succeeds(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        event = await terminal(handle)
    assert result["status"] == "succeeded"
    assert (event.type, event.data) == ("run.completed", {"duration_ms": 1000})
    assert stubs.closed[0].duration_ms == 1000


async def test_the_terminal_event_is_not_shown_before_the_log_is_closed(client: Client, serving: Serving) -> None:
    async with serving(RunStubs().all()):
        handle = await start(client)
        await handle.result()
        page = await handle.query("events", EventsQuery(), result_type=EventsPage)
    assert page.entries == []


async def test_a_crew_that_fails(client: Client, serving: Serving) -> None:
    end = EndFacts(exit_code=1, ok=False, error_code="user_error", error_message="ValueError: no")
    stubs = RunStubs(facts(end=end))
    async with serving(stubs.all()):
        handle = await start(client)
        await handle.result()
        event = await terminal(handle)
    assert event.type == "run.failed"
    assert event.data["error"] == {"code": "user_error", "message": "ValueError: no", "hint": None}


@pytest.mark.parametrize("way", ["signal", "temporal"])
async def test_a_cancel_stops_the_container_and_says_when(client: Client, serving: Serving, way: str) -> None:
    stubs = RunStubs(facts(end=None, exit_code=143), waits=True)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        if way == "signal":
            await handle.signal("cancel", CancelInput())
        else:
            await handle.cancel()
        result = await handle.result()
        event = await terminal(handle)
    assert result["status"] == "canceled"
    assert event.type == "run.canceled"
    assert event.data["sigterm_at"] == "2023-11-14T22:13:20.100Z"
    assert event.data["sigkill_at"] is None
    assert event.data["gone_at"] == "2023-11-14T22:13:22.000Z"


async def test_a_result_that_was_there_first_wins_over_the_cancel(client: Client, serving: Serving) -> None:
    stubs = RunStubs(waits=True)
    stubs.stop_result = StopResult(found=True, sigterm_at_ms=1_700_000_000_900)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        result = await handle.result()
    assert result["status"] == "succeeded"
    assert stubs.closed[0].cancel is None


async def test_a_second_cancel_with_force_stops_again_at_once(client: Client, serving: Serving) -> None:
    stubs = RunStubs(facts(end=None, exit_code=137), waits=True)
    stubs.stop_result = StopResult(found=False)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        await handle.signal("cancel", CancelInput(force=True))
        await handle.result()
    assert stubs.stops[-1].force


async def test_a_platform_failure_is_tried_again(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    stubs.failures = 2
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
    assert result["status"] == "succeeded"


@pytest.mark.parametrize("hopeless", [{"run_container"}, {"run_container", "finish_container"}], ids=len)
async def test_a_container_that_is_given_up_ends_its_run(client: Client, serving: Serving, hopeless: set[str]) -> None:
    stubs = RunStubs(failing(3))
    stubs.hopeless = hopeless
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        event = await terminal(handle)
    assert result["status"] == "failed"
    assert event.data["error"]["code"] == "infrastructure"
    assert stubs.closed[0].status == "failed"


async def test_a_container_that_cannot_be_removed_does_not_hold_the_end_up(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(3))
    stubs.hopeless = {"finish_container"}
    async with serving(stubs.all()):
        handle = await start(client)
        await handle.result()
        event = await terminal(handle)
    assert stubs.attempts == [1]  # the next one would stand beside it
    assert event.data["error"]["code"] == "user_error"


async def test_a_crew_that_fails_is_tried_again_when_its_project_asks(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(2), failing(2, "no_result"), facts(retries=2))
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        first, second, last = await logged(handle)
    assert result["status"] == "succeeded"
    assert stubs.attempts == [1, 2, 3]
    assert [(each.attempt, each.collect) for each in stubs.finishes] == [(1, False), (2, False), (3, True)]
    error = {"code": "user_error", "message": "ValueError: no", "hint": None}
    assert first.type == second.type == "run.retrying"
    assert first.data == {"attempt": 2, "of": 3, "error": error, "delay_ms": 1000}
    assert (second.data["attempt"], second.data["error"]["code"], second.data["delay_ms"]) == (3, "no_result", 2000)
    assert last.type == "run.completed"
    assert stubs.closed[0].usage["container_seconds"] == 3
    assert stubs.closed[0].usage["cpu_seconds"] == 1


async def test_the_last_attempts_failure_is_the_runs(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(1))
    async with serving(stubs.all()):
        handle = await start(client)
        await handle.result()
        event = await terminal(handle)
    assert stubs.attempts == [1, 2]
    assert event.data["error"]["code"] == "user_error"


@pytest.mark.parametrize("code", ["import_error", "invalid_output", "log_limit", "disk_limit", "interrupted"])
async def test_what_would_be_the_same_again_is_not_tried(client: Client, serving: Serving, code: str) -> None:
    stubs = RunStubs(failing(3, code))
    async with serving(stubs.all()):
        await (await start(client)).result()
    assert stubs.attempts == [1]


@pytest.mark.parametrize("way", ["signal", "temporal"])
async def test_a_cancel_between_two_attempts(client: Client, serving: Serving, way: str) -> None:
    stubs = RunStubs(failing(10))
    async with serving(stubs.all()):
        handle = await start(client)
        while not await logged(handle):
            await asyncio.sleep(0.02)
        if way == "signal":
            await handle.signal("cancel", CancelInput())
        else:
            await handle.cancel()
        result = await handle.result()
        event = await terminal(handle)
    assert result["status"] == "canceled"
    assert (event.type, event.data["sigterm_at"]) == ("run.canceled", None)
    assert event.data["gone_at"] == "2023-11-14T22:13:22.000Z"
    assert stubs.stops == []
    assert [(each.attempt, each.collect) for each in stubs.finishes] == [(1, True)]  # what it has written is kept


async def test_a_cancel_in_a_later_attempt_stops_that_one(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(1), facts(end=None, exit_code=143, retries=1))
    async with serving(stubs.all()):
        handle = await start(client)
        while not await logged(handle):
            await asyncio.sleep(0.02)
        stubs.end.clear()
        stubs.began.clear()
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        result = await handle.result()
    assert result["status"] == "canceled"
    assert {stop.attempt for stop in stubs.stops} == {2}


async def test_batches_are_taken_once_and_fenced(client: Client, serving: Serving) -> None:
    stubs = RunStubs(waits=True)

    def batch(first: int, last: int, epoch: int) -> Batch:
        return Batch(source="container/1", epoch=epoch, n=last, first=first, last=last, hash="0" * 64, lines="x\n")

    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("append", batch(1, 2, 1))
        await handle.signal("append", batch(1, 2, 1))
        await handle.signal("fence", 2)
        await handle.signal("append", batch(3, 4, 1))
        await handle.signal("append", batch(3, 3, 2))
        head = await handle.query("head", result_type=Head)
        page = await handle.query("events", EventsQuery(after=2), result_type=EventsPage)
        stubs.end.set()
        await handle.result()
    assert (head.next_seq, head.epoch, head.acknowledged) == (4, 2, {"container/1": 3})
    assert [(e.first, e.last) for e in page.entries] == [(3, 3)]


async def test_its_history_replays(client: Client, serving: Serving) -> None:
    stubs = RunStubs(facts(end=None, exit_code=143), waits=True)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        await handle.result()
        history = await handle.fetch_history()
    replayer = Replayer(
        workflows=[RunWorkflow], workflow_runner=sandbox_runner(), data_converter=pydantic_data_converter
    )
    await replayer.replay_workflow(history)
