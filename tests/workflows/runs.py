"""Starts a run's workflow and reads what it has: its log, and the tasks in its history."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowHistory

from crewship import temporal
from crewship.contracts import (
    EventsPage,
    EventsQuery,
    RunInput,
)
from crewship.events import Event, parse
from crewship.ids import new_id

Serving = Callable[..., AbstractAsyncContextManager[None]]


def run_input(run_id: str, **changes: Any) -> RunInput:
    return RunInput(
        run_id=run_id, project="p", deployment_id="dep_1", host="test", timeout_seconds=60, grace_seconds=1
    ).model_copy(update=changes)


async def start(client: Client, **changes: Any) -> WorkflowHandle[Any, Any]:
    run = run_input(new_id("run"), **changes)
    await temporal.start_run(client, run)
    return client.get_workflow_handle(f"run-{run.run_id}")


async def logged(handle: WorkflowHandle[Any, Any]) -> list[Event]:
    page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    return [event for entry in page.entries for event in parse((entry.lines or "").encode())]


async def terminal(handle: WorkflowHandle[Any, Any]) -> Any:
    page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    return list(parse((page.entries[-1].lines or "").encode()))[-1]


def scheduled(history: WorkflowHistory) -> list[str]:
    """Names of the activities that have tasks of their own, in order."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
