"""How RunWorkflow closes a run: within the task that learned of its end where all is told, and otherwise by an activity."""

import asyncio

import pytest
from temporalio.client import Client

from crewship.contracts import Batch, CancelInput, EventsPage, EventsQuery, Segment, StopResult
from tests.fixtures.replaying import replay
from tests.workflows.runs import Serving, scheduled, start
from tests.workflows.stubs import OK, RunStubs, facts, failing
from workflows.run import RunWorkflow

pytestmark = pytest.mark.temporal

LAST = Batch(
    source="container/1", epoch=1, n=3, first=1, last=1, hash="0" * 64, lines='{"seq":1,"type":"run.started"}\n', end=OK
)
"""What a short crew has told, all of it."""


async def test_what_a_crew_told_last_comes_with_its_end_and_the_run_is_closed_at_once(
    client: Client, serving: Serving
) -> None:
    stubs = RunStubs(facts(last=LAST, gone_at_ms=1_700_000_001_100))
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        history = await handle.fetch_history()
        page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    assert stubs.begun[0].takes_last
    assert result["status"] == "succeeded"
    assert [(entry.first, entry.last) for entry in page.entries] == [(1, 1), (2, 2)]
    (closed,) = stubs.closed
    assert closed.log == page.entries
    assert scheduled(history) == ["run_container"]
    # The same whenever this is done again: a workflow task may be lost after what it did was seen.
    assert closed.completed_at == "2023-11-14T22:13:21.000Z"
    await replay(RunWorkflow, history)


async def test_a_task_that_is_done_again_for_a_cancel_closes_the_same(client: Client, serving: Serving) -> None:
    """The cancel comes while the run is being closed: the server refuses the task's end, and the next task sees it first."""
    stubs = RunStubs(facts(last=LAST, gone_at_ms=1_700_000_001_100))
    stubs.stop_result = StopResult(found=False)
    stubs.canceled_while_closing = True
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
    assert result["status"] == "succeeded"
    assert len(stubs.closed) == 2
    assert stubs.closed[0] == stubs.closed[1]


@pytest.mark.parametrize("way", ["fails", "is lost", "segment"])
async def test_a_run_that_cannot_be_closed_at_once_is_closed_as_ever(
    client: Client, serving: Serving, way: str
) -> None:
    segment = Segment(key="k", sha256="0" * 64, size_bytes=1)
    last = LAST.model_copy(update={"lines": None, "segment": segment}) if way == "segment" else LAST
    stubs = RunStubs(facts(last=last, gone_at_ms=1_700_000_001_100))
    stubs.closes_failed, stubs.closes_lost = int(way == "fails"), int(way == "is lost")
    async with serving(stubs.all()):
        handle = await start(client)
        result = await handle.result()
        history = await handle.fetch_history()
    assert result["status"] == "succeeded"
    assert scheduled(history) == ["run_container", "close_run"]
    assert len(stubs.closed) == 1
    await replay(RunWorkflow, history)


async def test_a_cancel_behind_a_success_that_is_told_whole_changes_nothing(client: Client, serving: Serving) -> None:
    stubs = RunStubs(facts(last=LAST, gone_at_ms=1_700_000_001_100), waits=True)
    stubs.stop_result = StopResult(found=False)
    async with serving(stubs.all()):
        handle = await start(client)
        await stubs.began.wait()
        await handle.signal("cancel", CancelInput())
        result = await handle.result()
        history = await handle.fetch_history()
    assert result["status"] == "succeeded"
    assert "close_run" in scheduled(history)  # not at once: there was more to wait for


async def test_the_terminal_event_is_not_shown_before_the_log_is_closed(client: Client, serving: Serving) -> None:
    async with serving(RunStubs().all()):
        handle = await start(client)
        await handle.result()
        page = await handle.query("events", EventsQuery(), result_type=EventsPage)
    assert page.entries == []


async def test_a_container_that_left_nothing_is_gone_at_its_end(client: Client, serving: Serving) -> None:
    stubs = RunStubs(
        failing(1).model_copy(update={"gone_at_ms": 1_700_000_001_500}), facts(gone_at_ms=1_700_000_003_000)
    )
    async with serving(stubs.all()):
        result = await (await start(client)).result()
    assert result["status"] == "succeeded"
    assert stubs.attempts == [1, 2]
    assert stubs.finishes == []  # nothing was left to be removed, after either attempt


async def test_a_worker_that_is_killed_while_it_closes_the_run(client: Client, serving: Serving) -> None:
    stubs = RunStubs()
    stubs.closes_lost = 1
    async with serving(stubs.all()):
        handle = await start(client)
        async with asyncio.timeout(60):
            result = await handle.result()
    assert result["status"] == "succeeded"
    assert len(stubs.closed) == 1
