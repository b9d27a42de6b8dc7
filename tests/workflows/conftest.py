"""Workers with stub activities on the suite's Temporal server, in the sandbox that refuses what could not be replayed."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from crewship.contracts import WORKFLOW_QUEUE, host_queue
from tests.fixtures.sandbox import sandbox_runner
from tests.fixtures.temporal import temporal_server
from tests.workflows.stubs import QUEUES
from workflows.deploy import DeployWorkflow
from workflows.recognition import RecognizeWorkflow
from workflows.rollback import RollbackWorkflow
from workflows.run import RunWorkflow

__all__ = ["temporal_server"]

WORKFLOWS: dict[str, list[Any]] = {
    WORKFLOW_QUEUE: [RunWorkflow, DeployWorkflow],
    host_queue("test"): [RollbackWorkflow, RecognizeWorkflow],
}


@pytest.fixture
async def client(temporal_server: str) -> Client:
    return await Client.connect(temporal_server, data_converter=pydantic_data_converter)


@pytest.fixture
def serving(client: Client) -> Callable[..., contextlib.AbstractAsyncContextManager[None]]:
    """Workers with the same activities on every queue, except those that have their own."""

    @contextlib.asynccontextmanager
    async def serve(activities: list[Any], own: dict[str, list[Any]] | None = None) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for queue in QUEUES:
                await stack.enter_async_context(
                    Worker(
                        client,
                        task_queue=queue,
                        workflows=WORKFLOWS.get(queue, []),
                        activities=(own or {}).get(queue, activities),
                        workflow_runner=sandbox_runner(),
                    )
                )
            yield

    return serve
