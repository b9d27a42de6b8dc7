"""DeployWorkflow and RollbackWorkflow on a real Temporal server."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from crewship import temporal
from crewship.contracts import (
    WORKFLOW_QUEUE,
    CancelInput,
    DeployInput,
    DeploymentRef,
    EventsPage,
    EventsQuery,
    Head,
    RecognizeInput,
    RecognizeResult,
    RollbackInput,
    RollbackResult,
    StepResult,
    builds_queue,
    host_queue,
)
from crewship.errors import Unavailable
from crewship.events import parse
from crewship.ids import new_id
from tests.fixtures.replaying import replay
from tests.workflows.stubs import DeployStubs
from workflows.deploy import DeployWorkflow

pytestmark = pytest.mark.temporal

Serving = Callable[[list[Any]], AbstractAsyncContextManager[None]]


async def deploy(client: Client, *, activate: bool = True) -> Any:
    deployment = DeployInput(deployment_id=new_id("dep"), project="p", host="test", activate=activate, actor="key_1")
    await temporal.start_deploy(client, deployment)
    handle = client.get_workflow_handle(f"deploy-{deployment.deployment_id}")
    result = await handle.result()
    page = await handle.query("events", EventsQuery(include_terminal=True), result_type=EventsPage)
    events = [event for entry in page.entries for event in parse((entry.lines or "").encode())]
    return handle, result, events


async def test_a_deployment_that_becomes_current(client: Client, serving: Serving) -> None:
    stubs = DeployStubs()
    async with serving(stubs.all()):
        _, result, events = await deploy(client)
    assert result["status"] == "ready"
    assert stubs.steps == ["build_image", "smoke_boot", "mark_ready"]
    assert [e.type for e in events] == ["build.completed", "deployment.activated", "deployment.ready"]


async def test_without_activation_nothing_is_switched(client: Client, serving: Serving) -> None:
    async with serving(DeployStubs().all()):
        _, _, events = await deploy(client, activate=False)
    assert [e.type for e in events] == ["build.completed", "deployment.ready"]


@pytest.mark.parametrize("step", ["build_image", "smoke_boot"])
async def test_a_project_that_cannot_be_built_fails_and_is_not_tried_again(
    client: Client, serving: Serving, step: str
) -> None:
    stubs = DeployStubs(failing=step)
    async with serving(stubs.all()):
        handle, result, events = await deploy(client)
        history = await handle.fetch_history()
    assert result == {"status": "failed", "error_code": "import_error"}
    assert [e.type for e in events] == ["build.failed", "deployment.failed"]
    assert events[-1].data["error"]["code"] == "import_error"
    assert stubs.steps.count(step) == 1
    assert "mark_ready" not in stubs.steps
    assert stubs.closed[0].error is not None
    await replay(DeployWorkflow, history)


@pytest.mark.parametrize("step", ["build_image", "smoke_boot"])
async def test_a_cancel_between_two_steps_begins_no_other(client: Client, serving: Serving, step: str) -> None:
    """Also one that comes when the step in hand cannot be stopped any more."""
    stubs = DeployStubs(canceled_in=step)
    async with serving(stubs.all()):
        handle, result, events = await deploy(client)
        history = await handle.fetch_history()
    assert result == {"status": "failed", "error_code": "canceled"}
    assert [e.type for e in events] == ["build.failed", "deployment.failed"]
    assert stubs.steps[-1] == step
    await replay(DeployWorkflow, history)


async def test_builds_have_a_queue_of_their_own(client: Client, serving: Serving) -> None:
    """However many there are, a run is stopped, and collected, by a queue that they are not in."""
    async with serving(DeployStubs().all()):
        handle, _, _ = await deploy(client)
        history = await handle.fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    queues = {each.activity_type.name: each.task_queue.name for each in scheduled if each.activity_type.name}
    assert queues == {
        "build_image": builds_queue("test"),
        "smoke_boot": builds_queue("test"),
        "mark_ready": host_queue("test"),
        "close_deployment": WORKFLOW_QUEUE,
    }


async def begun(client: Client, host: str = "test") -> Any:
    deployment = DeployInput(deployment_id=new_id("dep"), project="p", host=host, activate=True, actor="key_1")
    await temporal.start_deploy(client, deployment)
    return client.get_workflow_handle(f"deploy-{deployment.deployment_id}")


@pytest.mark.parametrize("end", ["canceled", "host_lost"])
async def test_a_build_whose_host_is_away(client: Client, serving: Serving, end: str) -> None:
    """No worker serves the host's queue: a cancel ends it at once, and so does the word that none ever will."""
    stubs = DeployStubs()
    async with serving(stubs.all()):
        handle = await begun(client, host="away")
        if end == "canceled":
            await handle.signal("cancel", CancelInput())
        else:
            await handle.signal("host_lost", "away")
        async with asyncio.timeout(20):
            assert await handle.result() == {"status": "failed", "error_code": end}
        history = await handle.fetch_history()
    assert stubs.steps == []
    assert stubs.closed[0].error is not None
    assert stubs.closed[0].error.code == end
    assert stubs.closed[0].error.hint or end == "canceled"
    await replay(DeployWorkflow, history)


async def test_a_build_whose_worker_dies_and_stays_away(client: Client, serving: Serving) -> None:
    """The step had begun: its heartbeat's time is all that is waited for."""
    stubs, began = DeployStubs(), asyncio.Event()

    @activity.defn(name="build_image")
    async def dying(ref: DeploymentRef) -> StepResult:
        began.set()
        await asyncio.Event().wait()  # without a heartbeat, and deaf to a cancel, as a worker that is gone
        raise AssertionError

    async with serving([dying, stubs.close_deployment]):
        handle = await begun(client)
        await began.wait()
        await handle.signal("host_lost", "test")
        async with asyncio.timeout(30):
            assert await handle.result() == {"status": "failed", "error_code": "host_lost"}


async def test_a_build_on_a_host_that_was_taken_for_gone_and_is_there(client: Client, serving: Serving) -> None:
    stubs, began, goes_on = DeployStubs(), asyncio.Event(), asyncio.Event()

    @activity.defn(name="build_image")
    async def slow(ref: DeploymentRef) -> StepResult:
        began.set()
        while not goes_on.is_set():
            activity.heartbeat()
            with contextlib.suppress(asyncio.CancelledError):  # the real one takes no notice
                await asyncio.sleep(0.1)
        return StepResult()

    async with serving([slow, stubs.smoke_boot, stubs.mark_ready, stubs.close_deployment]):
        handle = await begun(client)
        await began.wait()
        await handle.signal("host_lost", "test")
        await handle.query("head", result_type=Head)
        goes_on.set()
        async with asyncio.timeout(20):
            assert (await handle.result())["status"] == "ready"


async def test_rollback_answers_what_the_switch_said(client: Client, serving: Serving) -> None:
    @activity.defn(name="switch_current")
    async def switch_current(rollback: RollbackInput) -> RollbackResult:
        return RollbackResult(deployment_id=rollback.deployment_id or "", changed=True)

    async with serving([switch_current]):
        results = await asyncio.gather(
            *(
                temporal.rollback(
                    client, RollbackInput(project="p", deployment_id=f"dep_{n}", actor="key_1"), host_queue("test")
                )
                for n in range(5)
            )
        )
    assert [r.deployment_id for r in results] == [f"dep_{n}" for n in range(5)]


async def test_a_rollback_says_soon_what_is_away(client: Client, serving: Serving) -> None:
    tries: list[str] = []

    @activity.defn(name="switch_current")
    async def switch_current(rollback: RollbackInput) -> RollbackResult:
        tries.append(activity.info().workflow_id or "")
        raise ApplicationError("The container engine (Docker) cannot be reached", type="Unavailable")

    async with serving([switch_current]):
        with pytest.raises(Unavailable, match="container engine"):
            await temporal.rollback(
                client, RollbackInput(project="p", deployment_id="dep_1", actor="key_1"), host_queue("test")
            )
        assert len(tries) == 5
        assert await client.get_workflow_handle(tries[0]).result() is None  # it has ended too


@pytest.mark.parametrize("same", [True, False])
async def test_recognition_answers_what_the_host_has_found(client: Client, serving: Serving, same: bool) -> None:
    asked: list[RecognizeInput] = []

    @activity.defn(name="recognize")
    async def recognize(one: RecognizeInput) -> RecognizeResult:
        asked.append(one)
        return RecognizeResult(same=same)

    one = RecognizeInput(deployment_id="dep_1", project="p")
    async with serving([recognize]):
        assert await temporal.recognize(client, one, host_queue("test")) is same
    assert asked == [one]


async def test_a_host_that_cannot_tell_is_unavailable(client: Client, serving: Serving) -> None:
    @activity.defn(name="recognize")
    async def recognize(one: RecognizeInput) -> RecognizeResult:
        raise ApplicationError("The container engine (Docker) cannot be reached", type="Unavailable")

    async with serving([recognize]):
        with pytest.raises(Unavailable, match="container engine"):
            await temporal.recognize(client, RecognizeInput(deployment_id="d", project="p"), host_queue("test"))
