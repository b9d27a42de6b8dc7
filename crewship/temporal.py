"""How the platform talks to its workflow engine: connecting, and the few calls that API and worker make.

Workflows are called by their wire names, so this module needs none of them. Engine errors become ``Unavailable`` and
``NotFound`` here. Nothing on a latency path waits for ``handle.result()``: a long poll may miss the close and wait out its
interval, so ends are learned from our own records.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, DescribeNamespaceRequest
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from crewship import contracts
from crewship.contracts import (
    CancelInput,
    DeployInput,
    EventsPage,
    EventsQuery,
    GarbageInput,
    GarbageResult,
    Head,
    ProjectRef,
    RecognizeInput,
    RecognizeResult,
    RollbackInput,
    RollbackResult,
    RunInput,
)
from crewship.errors import NotFound, Unavailable
from crewship.ids import new_id
from crewship.settings import Settings

PROJECT = SearchAttributeKey.for_keyword("CrewshipProject")
DEPLOYMENT = SearchAttributeKey.for_keyword("CrewshipDeployment")
STATUS = SearchAttributeKey.for_keyword("CrewshipStatus")
SEARCH_ATTRIBUTES = (PROJECT, DEPLOYMENT, STATUS)

_CALL_TIMEOUT = timedelta(seconds=5)
_QUERY_TIMEOUT = timedelta(seconds=2)
"""A query waits for a worker: with none it would hang for the whole time, so it is short."""

_RECOGNIZE_SECONDS = 5
"""Without an answer a deployment is built as usual."""
_GARBAGE_SECONDS = 75
"""Fifty images take half a minute; the CLI waits 90 s for an answer."""

_DOWN = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNKNOWN,
}

T = TypeVar("T")


async def connect(settings: Settings, *, lazy: bool = True) -> Client:
    """A client; with ``lazy`` it connects at the first call.

    Raises:
        Unavailable: nothing answers at the address (not lazy only).
    """
    try:
        return await Client.connect(
            settings.temporal_address,
            namespace=settings.temporal_namespace,
            data_converter=pydantic_data_converter,
            lazy=lazy,
        )
    except RuntimeError as error:  # a refused connection surfaces as a bare RuntimeError
        raise _unavailable() from error


async def check(client: Client) -> None:
    """Raise ``Unavailable`` unless the workflow engine answers within two seconds, with what its database has."""
    asked = DescribeNamespaceRequest(namespace=client.namespace)
    try:
        await asyncio.wait_for(client.workflow_service.describe_namespace(asked, timeout=timedelta(seconds=2)), 2)
    except (RPCError, RuntimeError, TimeoutError) as error:
        raise _unavailable() from error


async def admit_run(client: Client, run: RunInput) -> None:
    """Tell ``RunWorkflow`` that its project has a place for it, and start it if it was not; harmless when repeated."""
    await start_run(client, run, signal="admit")


async def start_run(client: Client, run: RunInput, *, signal: str | None = None) -> None:
    """Start ``RunWorkflow``; harmless when it was started before.

    Args:
        signal: Without argument; sent with the start, or to the workflow that is there.
    """
    await _start(
        client,
        "Run",
        run,
        workflow_id=contracts.run_workflow_id(run.run_id),
        project=run.project,
        deployment_id=run.deployment_id,
        summary=f"run of {run.project}",
        details=f"**{run.run_id}** of project `{run.project}`, deployment `{run.deployment_id}`",
        signal=signal,
    )


async def start_deploy(client: Client, deploy: DeployInput) -> None:
    """Start ``DeployWorkflow``; harmless when it was started before."""
    await _start(
        client,
        "Deploy",
        deploy,
        workflow_id=contracts.deploy_workflow_id(deploy.deployment_id),
        project=deploy.project,
        deployment_id=deploy.deployment_id,
        summary=f"deploy {deploy.project}",
        details=f"**{deploy.deployment_id}** of project `{deploy.project}`",
    )


async def start_project_deletion(client: Client, project: ProjectRef) -> None:
    """Start ``DeleteProjectWorkflow``; harmless while one is at work."""
    await _start(
        client,
        "DeleteProject",
        project,
        workflow_id=f"delete-project-{project.project}",
        project=project.project,
        deployment_id=None,
        summary=f"delete {project.project}",
        details=f"project `{project.project}` and everything it has",
        reuse=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
    )


async def cancel_run(client: Client, run_id: str, force: bool) -> None:
    """Ask a run's workflow to cancel.

    Raises:
        NotFound: the workflow has ended, or was never started.
    """
    handle = client.get_workflow_handle(contracts.run_workflow_id(run_id))
    await _call(handle.signal("cancel", CancelInput(force=force), rpc_timeout=_CALL_TIMEOUT))


async def cancel_deploy(client: Client, deployment_id: str) -> None:
    """Ask a deployment's workflow to stop the build; raises as ``cancel_run``."""
    handle = client.get_workflow_handle(contracts.deploy_workflow_id(deployment_id))
    await _call(handle.signal("cancel", CancelInput(), rpc_timeout=_CALL_TIMEOUT))


async def rollback(client: Client, rollback: RollbackInput, queue: str) -> RollbackResult:
    """Swap a project's pointer by ``RollbackWorkflow`` and wait for it (one round trip: update-with-start).

    Args:
        queue: Task queue of the host that has the target's image; the workflow runs there too.

    Raises:
        Unavailable: the workflow engine does not answer, or what the host needs (its engine, the database) does not.
    """
    start = WithStartWorkflowOperation[Any, RollbackResult](
        "Rollback",
        args=[rollback],
        id=f"rollback-{rollback.project}-{new_id('x')[2:]}",
        task_queue=queue,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        result_type=RollbackResult,
        search_attributes=_attributes(rollback.project, rollback.deployment_id, None),
        static_summary=f"{rollback.kind} {rollback.project}",
        execution_timeout=timedelta(seconds=60),
    )
    try:
        return await _call(
            asyncio.wait_for(
                client.execute_update_with_start_workflow(
                    "switch", start_workflow_operation=start, result_type=RollbackResult
                ),
                30,
            )
        )
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:  # how a wait that was cut off surfaces here
        raise _unavailable() from error
    except WorkflowUpdateFailedError as error:
        raise Unavailable(
            _what_is_away(error) or "The rollback did not come through", hint="crewship doctor"
        ) from error


async def recognize(client: Client, asked: RecognizeInput, queue: str) -> bool:
    """Whether a deployment is what a new build of its source and config would be; ``RecognizeWorkflow`` asks its host.

    Args:
        queue: Task queue of that host.

    Raises:
        Unavailable: the workflow engine or the host does not answer soon.
    """
    start = WithStartWorkflowOperation[Any, None](
        "Recognize",
        args=[asked],
        id=f"recognize-{asked.deployment_id}-{new_id('x')[2:]}",
        task_queue=queue,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        search_attributes=_attributes(asked.project, asked.deployment_id, None),
        static_summary=f"look whether {asked.deployment_id} would be built the same",
        execution_timeout=timedelta(seconds=15),
    )
    try:
        result: RecognizeResult = await _call(
            asyncio.wait_for(
                client.execute_update_with_start_workflow(
                    "answer", start_workflow_operation=start, result_type=RecognizeResult
                ),
                _RECOGNIZE_SECONDS,
            )
        )
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        raise _unavailable() from error
    except WorkflowUpdateFailedError as error:
        raise Unavailable(_what_is_away(error) or "It could not be found out", hint="crewship doctor") from error
    return result.same


async def collect_garbage(client: Client, garbage: GarbageInput) -> GarbageResult:
    """Have one step of what retention does not keep taken by ``GarbageWorkflow``, or shown, and wait for it.

    Raises:
        Unavailable: the workflow engine does not answer, or the step took too long (it goes on).
    """
    start = WithStartWorkflowOperation[Any, None](
        "Garbage",
        args=[garbage, True],
        id=f"garbage-{new_id('x')[2:]}",
        task_queue=contracts.WORKFLOW_QUEUE,
        id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        static_summary="show what retention does not keep" if garbage.dry_run else "take what retention does not keep",
        execution_timeout=timedelta(minutes=30),
    )
    try:
        return await _call(
            asyncio.wait_for(
                client.execute_update_with_start_workflow(
                    "step", start_workflow_operation=start, result_type=GarbageResult
                ),
                _GARBAGE_SECONDS,
            )
        )
    except WorkflowUpdateRPCTimeoutOrCancelledError as error:
        raise Unavailable(
            "It takes longer than expected and goes on", hint="crewship gc again shows what is left"
        ) from error
    except WorkflowUpdateFailedError as error:
        raise Unavailable(_what_is_away(error) or "It did not come through", hint="crewship doctor") from error


async def query_events(client: Client, workflow_id: str, query: EventsQuery) -> EventsPage:
    """Entries of a live log.

    Raises:
        NotFound: there is no such workflow.
        Unavailable: no worker answers, or the engine does not.
    """
    handle = client.get_workflow_handle(workflow_id)
    return await _call(handle.query("events", query, result_type=EventsPage, rpc_timeout=_QUERY_TIMEOUT))


async def query_head(client: Client, workflow_id: str) -> Head:
    """Where a live log stands; raises as ``query_events``."""
    handle = client.get_workflow_handle(workflow_id)
    return await _call(handle.query("head", result_type=Head, rpc_timeout=_QUERY_TIMEOUT))


async def running_workflows(client: Client) -> set[str]:
    """Ids of the runs' and deployments' workflows that are open, as the engine's index has them (it may lag a moment).

    Raises:
        Unavailable: the engine does not answer.
    """

    async def ids() -> set[str]:
        query = "ExecutionStatus = 'Running' AND WorkflowType IN ('Run', 'Deploy')"
        return {found.id async for found in client.list_workflows(query, rpc_timeout=_CALL_TIMEOUT)}

    return await _call(ids())


async def has_ended(client: Client, workflow_id: str) -> bool:
    """Whether a workflow was started and has ended; False also when the engine knows of none.

    Raises:
        Unavailable: the engine does not answer.
    """
    try:
        found = await _call(client.get_workflow_handle(workflow_id).describe(rpc_timeout=_CALL_TIMEOUT))
    except NotFound:
        return False
    return found.close_time is not None


async def signal(client: Client, workflow_id: str, name: str, argument: Any) -> None:
    """Send a signal; returns when it is durable. Raises as ``query_events``."""
    handle = client.get_workflow_handle(workflow_id)
    await _call(handle.signal(name, argument, rpc_timeout=_CALL_TIMEOUT))


async def delete_histories(client: Client, project: str, workflow_ids: Iterable[str]) -> None:
    """Have the engine forget workflows of a project: those of ``workflow_ids``, its rollbacks, and the like. Idempotent.

    One that still runs is ended by it. Raises as ``query_events``.
    """
    rollbacks = client.list_workflows(f"{PROJECT.name} = '{project}' AND WorkflowType IN ('Rollback', 'Recognize')")
    known = [*workflow_ids, *[found.id for found in await _call(_all(rollbacks))]]
    for workflow_id in known:
        request = DeleteWorkflowExecutionRequest(
            namespace=client.namespace, workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
        with contextlib.suppress(NotFound):
            await _call(client.workflow_service.delete_workflow_execution(request, timeout=_CALL_TIMEOUT))


async def _all(items: AsyncIterable[T]) -> list[T]:
    return [item async for item in items]


async def _start(
    client: Client,
    name: str,
    argument: Any,
    *,
    workflow_id: str,
    project: str,
    deployment_id: str | None,
    summary: str,
    details: str,
    reuse: WorkflowIDReusePolicy = WorkflowIDReusePolicy.REJECT_DUPLICATE,
    signal: str | None = None,
) -> None:
    try:
        await _call(
            asyncio.wait_for(
                client.start_workflow(
                    name,
                    argument,
                    id=workflow_id,
                    task_queue=contracts.WORKFLOW_QUEUE,
                    id_reuse_policy=reuse,
                    id_conflict_policy=(
                        WorkflowIDConflictPolicy.FAIL if signal is None else WorkflowIDConflictPolicy.USE_EXISTING
                    ),
                    start_signal=signal,
                    search_attributes=_attributes(project, deployment_id, "running"),
                    static_summary=summary,
                    static_details=details,
                    rpc_timeout=_CALL_TIMEOUT,
                ),
                _CALL_TIMEOUT.total_seconds() + 1,
            )
        )
    except WorkflowAlreadyStartedError:
        return


def _attributes(project: str, deployment_id: str | None, status: str | None) -> TypedSearchAttributes:
    pairs = [SearchAttributePair(PROJECT, project)]
    if deployment_id is not None:
        pairs.append(SearchAttributePair(DEPLOYMENT, deployment_id))
    if status is not None:
        pairs.append(SearchAttributePair(STATUS, status))
    return TypedSearchAttributes(pairs)


async def _call(call: Awaitable[T]) -> T:
    try:
        return await call
    except WorkflowAlreadyStartedError:
        raise
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND and not _lacks_namespace(error):
            raise NotFound("No such workflow") from error
        if error.status in _DOWN or error.status == RPCStatusCode.NOT_FOUND:
            raise _unavailable() from error
        raise
    except (RuntimeError, TimeoutError) as error:  # lazy connect: refused surfaces as RuntimeError
        raise _unavailable() from error


def _lacks_namespace(error: RPCError) -> bool:
    """Whether it is the namespace that was not found, so that nothing is known of the workflow. A server that has just come up,
    or whose database does not answer, says so of every namespace."""
    status = error.grpc_status
    return any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in status.details)


def _what_is_away(error: BaseException | None) -> str | None:
    """The sentence of the ``Unavailable`` that an activity failed with."""
    while error is not None:
        if isinstance(error, ApplicationError) and error.type == Unavailable.__name__:
            return error.message
        error = error.__cause__
    return None


def _unavailable() -> Unavailable:
    return Unavailable("The workflow engine (Temporal) cannot be reached", hint="crewship doctor")


__all__ = [
    "SEARCH_ATTRIBUTES", "STATUS", "WorkflowUpdateStage", "admit_run", "cancel_deploy", "cancel_run", "check",
    "collect_garbage", "connect", "delete_histories", "has_ended", "query_events", "query_head", "recognize", "rollback",
    "running_workflows", "signal", "start_deploy", "start_project_deletion", "start_run",
]  # fmt: skip
