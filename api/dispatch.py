"""The calls that the API makes to the workflow engine: a port, so that tests can take the engine away at any moment."""

import time
from typing import Protocol

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from crewship import temporal
from crewship.contracts import (
    WORKFLOW_QUEUE,
    DeployInput,
    EventsPage,
    EventsQuery,
    GarbageInput,
    GarbageResult,
    ProjectRef,
    RecognizeInput,
    RollbackInput,
    RollbackResult,
    RunInput,
)
from crewship.errors import CrewshipError, Unavailable

_REACHABLE_SECONDS = 1.0
"""How long an answer about the engine's health is good for."""


class Dispatch(Protocol):
    """Each raises ``Unavailable`` when the workflow engine cannot be reached."""

    async def check(self) -> None: ...

    async def start_run(self, run: RunInput) -> None: ...

    async def admit_run(self, run: RunInput) -> None:
        """Start the run, or let it go on when it is held."""
        ...

    async def start_deploy(self, deploy: DeployInput) -> None: ...

    async def start_project_deletion(self, project: ProjectRef) -> None: ...

    async def cancel_run(self, run_id: str, force: bool) -> None:
        """Raises ``NotFound`` when the run's workflow has ended or was never started."""
        ...

    async def cancel_deploy(self, deployment_id: str) -> None:
        """Raises ``NotFound`` when the deployment's workflow has ended or was never started."""
        ...

    async def rollback(self, rollback: RollbackInput, queue: str) -> RollbackResult: ...

    async def recognize(self, asked: RecognizeInput, queue: str) -> bool:
        """Whether a deployment is what a new build of its source and config would be."""
        ...

    async def collect_garbage(self, garbage: GarbageInput) -> GarbageResult: ...

    async def query_events(self, workflow_id: str, query: EventsQuery) -> EventsPage:
        """Raises ``NotFound`` when there is no such workflow, ``Unavailable`` also when no worker answers."""
        ...

    async def workers(self) -> int:
        """How many workers asked for workflow tasks lately."""
        ...


class TemporalDispatch:
    """The real one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._checked_at = -_REACHABLE_SECONDS
        self._problem: CrewshipError | None = None

    async def check(self) -> None:
        if time.monotonic() - self._checked_at >= _REACHABLE_SECONDS:
            self._problem = None
            try:
                await temporal.check(self._client)
            except Unavailable as error:
                self._problem = error
            self._checked_at = time.monotonic()
        if self._problem is not None:
            raise Unavailable(self._problem.detail, hint=self._problem.hint)

    async def start_run(self, run: RunInput) -> None:
        await temporal.start_run(self._client, run)

    async def admit_run(self, run: RunInput) -> None:
        await temporal.admit_run(self._client, run)

    async def start_deploy(self, deploy: DeployInput) -> None:
        await temporal.start_deploy(self._client, deploy)

    async def start_project_deletion(self, project: ProjectRef) -> None:
        await temporal.start_project_deletion(self._client, project)

    async def cancel_run(self, run_id: str, force: bool) -> None:
        await temporal.cancel_run(self._client, run_id, force)

    async def cancel_deploy(self, deployment_id: str) -> None:
        await temporal.cancel_deploy(self._client, deployment_id)

    async def rollback(self, rollback: RollbackInput, queue: str) -> RollbackResult:
        return await temporal.rollback(self._client, rollback, queue)

    async def recognize(self, asked: RecognizeInput, queue: str) -> bool:
        return await temporal.recognize(self._client, asked, queue)

    async def collect_garbage(self, garbage: GarbageInput) -> GarbageResult:
        return await temporal.collect_garbage(self._client, garbage)

    async def query_events(self, workflow_id: str, query: EventsQuery) -> EventsPage:
        return await temporal.query_events(self._client, workflow_id, query)

    async def workers(self) -> int:
        await self.check()
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=WORKFLOW_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        try:
            described = await self._client.workflow_service.describe_task_queue(request)
        except (RPCError, RuntimeError) as error:
            raise Unavailable("The workflow engine (Temporal) cannot be reached", hint="crewship doctor") from error
        return len(described.pollers)
