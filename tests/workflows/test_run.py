"""RunWorkflow on a real Temporal server: endings, cancels, the log's signals and queries, replay."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError
from temporalio.worker import Replayer

from crewship import contracts, temporal
from crewship.contracts import (
    Batch,
    CancelInput,
    ContainerFacts,
    EndFacts,
    EventsPage,
    EventsQuery,
    Head,
    RunContainerInput,
    RunInput,
    StopResult,
)
from crewship.events import parse
from crewship.ids import new_id
from tests.workflows.stubs import RunStubs, facts
from worker.sandbox import sandbox_runner
from workflows.run import RunWorkflow

pytestmark = pytest.mark.temporal

Serving = Callable[..., AbstractAsyncContextManager[None]]


def run_input(run_id: str, **changes: Any) -> RunInput:
    return RunInput(
        run_id=run_id, project="p", deployment_id="dep_1", host="test", timeout_seconds=60, grace_seconds=1
    ).model_copy(update=changes)


async def start(client: Client, **changes: Any) -> WorkflowHandle[Any, Any]:
    run = run_input(new_id("run"), **changes)
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


async def test_a_run_without_a_place_in_its_project_starts_when_it_gets_one(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    async with serving(stubs.all()):
        handle = await start(client, held=True, queue_timeout_seconds=600)
        assert (await handle.query("head", result_type=Head)).held
        assert not stubs.began.is_set()
        await temporal.admit_run(client, run_input(handle.id.removeprefix("run-")))
        await temporal.admit_run(client, run_input(handle.id.removeprefix("run-")))
        result = await handle.result()
    assert result["status"] == "succeeded"


async def test_a_run_that_is_admitted_before_it_was_started_does_not_wait(client: Client, serving: Serving) -> None:
    run = run_input(new_id("run"))
    async with serving(RunStubs().all()):
        await temporal.admit_run(client, run)
        await temporal.start_run(client, run.model_copy(update={"held": True}))
        result = await client.get_workflow_handle(f"run-{run.run_id}").result()
    assert result["status"] == "succeeded"


@pytest.mark.parametrize("held", [True, False], ids=["held", "no-slot"])
async def test_a_run_that_waits_too_long_fails(client: Client, serving: Serving, held: bool) -> None:
    stubs = RunStubs()
    async with serving(stubs.all()):
        # No worker serves that host: nothing of the run may depend on it.
        handle = await start(client, host="away", held=held, queue_timeout_seconds=1)
        await handle.result()
        event = await terminal(handle)
    error = event.data["error"]
    assert (event.type, error["code"]) == ("run.failed", "queue_timeout")
    assert "queue_timeout_seconds" in error["hint"]
    assert stubs.closed[0].error is not None


@pytest.mark.parametrize("way", ["signal", "temporal"])
async def test_a_held_run_is_canceled_without_being_started(client: Client, serving: Serving, way: str) -> None:
    stubs = RunStubs()
    stubs.stop_result = StopResult(found=False)
    async with serving(stubs.all()):
        handle = await start(client, held=True)
        await (handle.signal("cancel", CancelInput()) if way == "signal" else handle.cancel())
        result = await handle.result()
    assert result["status"] == "canceled"
    assert not stubs.began.is_set()


@pytest.mark.parametrize("error_type", ["LetGo", "heartbeat"])
async def test_a_container_without_a_follower_is_adopted_past_the_queue(
    client: Client, serving: Serving, error_type: str
) -> None:
    stubs = RunStubs()

    @activity.defn(name="run_container")
    async def leaving(run: RunContainerInput) -> ContainerFacts:
        if error_type == "LetGo":
            raise ApplicationError("goes on", type="LetGo")
        await asyncio.Event().wait()  # never a heartbeat
        raise AssertionError

    @activity.defn(name="run_container")
    async def adopting(run: RunContainerInput) -> ContainerFacts:
        inputs.append(run)
        return facts()

    inputs: list[RunContainerInput] = []
    others = [stubs.stop_container, stubs.finish_container, stubs.close_run]
    async with serving([leaving, *others], {contracts.adoption_queue("test"): [adopting]}):
        handle = await start(client, queue_timeout_seconds=600)
        result = await handle.result()
        history = await handle.fetch_history()
    assert result["status"] == "succeeded"
    assert [run.epoch for run in inputs] == [1]
    scheduled = [
        event.activity_task_scheduled_event_attributes
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    first, second = (task for task in scheduled if task.activity_type.name == "run_container")
    assert first.schedule_to_start_timeout.ToTimedelta() > timedelta(seconds=590)
    assert second.schedule_to_start_timeout.ToTimedelta() == timedelta(0)  # none


async def test_priority_and_fairness_are_the_task_queues(client: Client, serving: Serving) -> None:
    async with serving(RunStubs().all()):
        handle = await start(client, priority=1)
        await handle.result()
        history = await handle.fetch_history()
    (priority,) = (
        task.priority
        for event in history.events
        if (task := event.activity_task_scheduled_event_attributes).activity_type.name == "run_container"
    )
    assert (priority.priority_key, priority.fairness_key) == (1, "p")
