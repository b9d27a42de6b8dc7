"""RunWorkflow on a real Temporal server: endings, cancels, the log's signals and queries, replay."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from crewship import contracts, temporal
from crewship.contracts import (
    Batch,
    CancelInput,
    ContainerFacts,
    EndFacts,
    EventsPage,
    EventsQuery,
    Head,
    ResultFacts,
    RunContainerInput,
    StopResult,
)
from crewship.events import parse
from crewship.ids import new_id
from tests.fixtures.replaying import replay
from tests.fixtures.sandbox import sandbox_runner
from tests.workflows.runs import Serving, logged, run_input, start, terminal
from tests.workflows.stubs import QUEUES, RunStubs, facts, failing
from workflows.run import RunWorkflow

pytestmark = pytest.mark.temporal


async def at_work(stubs: RunStubs, attempt: int) -> None:
    while not any(run.attempt == attempt for run in stubs.begun):
        await asyncio.sleep(0.02)


async def test_a_run_that_succeeds(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        event = await terminal(handle)
    assert result["status"] == "succeeded"
    assert (event.type, event.data) == ("run.completed", {"duration_ms": 1000})
    assert stubs.closed[0].duration_ms == 1000
    known = stubs.closed[0].log
    assert known is not None
    assert [line.type for entry in known for line in parse((entry.lines or "").encode())] == ["run.completed"]


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
    stubs.stop_result, stubs.stubborn = StopResult(found=False), True
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        await handle.signal("cancel", CancelInput(force=True))
        await handle.result()
    assert stubs.stops[-1].force  # the container would not have ended by another one


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
    stubs.holds = 2
    async with serving(stubs.all()):
        handle = await start(client)
        await at_work(stubs, 2)
        await handle.signal("cancel", CancelInput())
        result = await handle.result()
    assert result["status"] == "canceled"
    assert {stop.attempt for stop in stubs.stops} == {2}


async def test_an_attempt_knows_nothing_of_how_the_last_one_ended(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(1), facts(end=None, exit_code=1, retries=1))
    stubs.holds = 1

    def batch(epoch: int, first: int, **told: Any) -> Batch:
        return Batch(
            source="container/1", epoch=epoch, n=1, first=first, last=first, hash="0" * 64, lines="{}\n", **told
        )

    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        told = {"result": ResultFacts(ok=False, code="user_error"), "end": failing(1).end}
        await handle.signal("append", batch(1, 1, **told))
        before = await handle.query("head", result_type=Head)
        stubs.holds = 2
        stubs.end.set()
        await at_work(stubs, 2)
        begun = await handle.query("head", result_type=Head)
        await handle.signal("append", batch(99_999, begun.next_seq, **told))  # one that should have let go
        late = await handle.query("head", result_type=Head)
        stubs.end.set()
        await handle.result()
    assert before.result is not None
    assert before.end is not None
    assert (begun.result, begun.end) == (None, None)
    assert late == begun
    assert begun.epoch > before.epoch
    assert stubs.closed[0].error is not None
    assert stubs.closed[0].error.code == "no_result"  # of what the second container left


async def test_a_further_attempt_waits_for_a_slot_only(client: Client, serving: Serving) -> None:
    stubs = RunStubs(failing(1), facts(retries=1))
    async with serving(stubs.all()):
        handle = await start(client, held=True, priority=2, queue_timeout_seconds=600)
        await temporal.admit_run(client, run_input(handle.id.removeprefix("run-")))
        result = await handle.result()
        history = await handle.fetch_history()
    assert result["status"] == "succeeded"
    first, second = (
        task
        for event in history.events
        if (task := event.activity_task_scheduled_event_attributes).activity_type.name == "run_container"
    )
    assert first.schedule_to_start_timeout.ToTimedelta() > timedelta(seconds=590)
    assert second.schedule_to_start_timeout.ToTimedelta() == timedelta(0)  # none
    assert first.priority == second.priority
    assert [run.epoch for run in stubs.begun] == [0, 0]  # neither is one to adopt


async def test_a_further_attempt_is_adopted_above_the_fences_of_the_one_before(
    client: Client, serving: Serving
) -> None:
    stubs = RunStubs(failing(1), facts(retries=1))
    inputs: list[RunContainerInput] = []

    @activity.defn(name="run_container")
    async def leaving(run: RunContainerInput) -> ContainerFacts:
        inputs.append(run)
        if run.attempt == 1:
            return failing(1)
        raise ApplicationError("goes on", type="LetGo")

    @activity.defn(name="run_container")
    async def adopting(run: RunContainerInput) -> ContainerFacts:
        inputs.append(run)
        return facts(retries=1)

    others = [stubs.stop_container, stubs.finish_container, stubs.close_run]
    async with serving([leaving, *others], {contracts.adoption_queue("test"): [adopting]}):
        result = await (await start(client)).result()
    assert result["status"] == "succeeded"
    assert [(run.attempt, run.epoch) for run in inputs] == [(1, 0), (2, 0), (2, contracts.EPOCHS + 1)]


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
    await replay(RunWorkflow, history)


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


async def test_a_host_that_is_gone_before_its_container_was_adopted(client: Client) -> None:
    stubs = RunStubs()

    @activity.defn(name="run_container")
    async def leaving(run: RunContainerInput) -> ContainerFacts:
        raise ApplicationError("goes on", type="LetGo")

    async def is_to_be_adopted(handle: WorkflowHandle[Any, Any]) -> bool:
        history = await handle.fetch_history()
        queues = [event.activity_task_scheduled_event_attributes.task_queue.name for event in history.events]
        return contracts.adoption_queue("test") in queues

    runner = sandbox_runner()
    records = Worker(
        client, task_queue=QUEUES[0], workflows=[RunWorkflow], activities=[stubs.close_run], workflow_runner=runner
    )
    async with records, Worker(client, task_queue=contracts.runs_queue("test"), activities=[leaving]):
        handle = await start(client)
        async with asyncio.timeout(30):
            while not await is_to_be_adopted(handle):
                await asyncio.sleep(0.05)
            await handle.signal("host_lost", "test")
            result = await handle.result()
    assert result == {"status": "failed", "error_code": "host_lost"}


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
