"""RunWorkflow on a real Temporal server: endings, cancels, the log's signals and queries, replay."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer, Worker

from crewship import temporal
from crewship.contracts import Batch, CancelInput, EndFacts, EventsPage, EventsQuery, Head, RunInput, StopResult
from crewship.events import parse
from crewship.ids import new_id
from tests.workflows.stubs import QUEUES, RunStubs, facts
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


@pytest.mark.parametrize("canceled", [False, True], ids=["alone", "after a cancel"])
async def test_a_host_that_is_gone(client: Client, canceled: bool) -> None:
    """No worker serves the host's queues: the run waits until it is told that none will."""
    stubs = RunStubs()
    only = Worker(
        client,
        task_queue=QUEUES[0],
        workflows=[RunWorkflow],
        activities=[stubs.close_run],
        workflow_runner=sandbox_runner(),
    )
    async with only:
        handle = await start(client)
        if canceled:
            await handle.signal("cancel", CancelInput())
        await handle.signal("host_lost", "test")
        async with asyncio.timeout(30):
            result = await handle.result()
    assert result == {"status": "failed", "error_code": "host_lost"}
    assert stubs.closed[0].error is not None
    assert stubs.closed[0].error.code == "host_lost"


async def test_a_host_that_was_taken_for_gone_and_is_there(client: Client, serving: Serving) -> None:
    stubs = RunStubs(waits=True)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("host_lost", "test")
        await handle.query("head", result_type=Head)
        stubs.end.set()
        result = await handle.result()
    assert result["status"] == "succeeded"


async def test_a_worker_that_is_killed_while_it_closes_the_run(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    stubs.closes_lost = 1
    async with serving(stubs.all()):
        handle = await start(client)
        async with asyncio.timeout(60):
            result = await handle.result()
    assert result["status"] == "succeeded"
    assert len(stubs.closed) == 1
