"""Records the histories that ``test_histories.py`` replays: ``python -m tests.workflows.record <temporal address> [name ...]``.

Record once, when a workflow gets a new shape, and commit the file beside the old ones: a change that cannot replay an old
history would break the runs that are under way when it is deployed.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from crewship import temporal
from crewship.contracts import (
    LET_GO,
    Batch,
    CancelInput,
    DeployInput,
    GarbageInput,
    ProjectRef,
    RecognizeInput,
    RollbackInput,
    RunInput,
    host_queue,
)
from crewship.ids import new_id
from tests.fixtures.sandbox import sandbox_runner
from tests.workflows.stubs import OK, QUEUES, DeployStubs, ProjectStubs, RunStubs, UpkeepStubs, facts, failing
from workflows.deploy import DeployWorkflow
from workflows.garbage import GarbageWorkflow
from workflows.maintenance import MaintenanceWorkflow
from workflows.project import DeleteProjectWorkflow
from workflows.recognition import RecognizeWorkflow
from workflows.rollback import RollbackWorkflow
from workflows.run import RunWorkflow

WORKFLOWS = [
    RunWorkflow, DeployWorkflow, MaintenanceWorkflow, GarbageWorkflow, DeleteProjectWorkflow, RollbackWorkflow,
    RecognizeWorkflow,
]  # fmt: skip
FOLDER = Path(__file__).parent / "histories"


async def main(address: str, names: list[str]) -> None:
    client = await Client.connect(address, data_converter=pydantic_data_converter)

    async def serve(name: str, stubs: Any, drive: Any) -> None:
        if names and name not in names:
            return
        async with contextlib.AsyncExitStack() as stack:
            for queue in QUEUES:
                workflows = WORKFLOWS if queue in QUEUES[:2] else []
                worker = Worker(
                    client,
                    task_queue=queue,
                    workflows=workflows,
                    activities=stubs.all(),
                    workflow_runner=sandbox_runner(),
                )
                await stack.enter_async_context(worker)
            workflow_id = await drive(stubs)
            handle = client.get_workflow_handle(workflow_id)
            await handle.result()
            history = json.loads((await handle.fetch_history()).to_json())
        _scrub(history)
        path = FOLDER / f"{name}.json"
        FOLDER.mkdir(exist_ok=True)
        if path.exists():  # an old shape stays as it was
            return
        path.write_text(json.dumps({"workflow_id": workflow_id, "history": history}, indent=1))

    def run_input(**changes: Any) -> RunInput:
        return RunInput(
            run_id=new_id("run"), project="p", deployment_id="dep_1", host="test", timeout_seconds=60, grace_seconds=1,
            queue_timeout_seconds=3600,
        ).model_copy(update=changes)  # fmt: skip

    async def held(stubs: RunStubs) -> str:
        started = run_input(held=True)
        await temporal.start_run(client, started)
        await temporal.admit_run(client, started)
        return f"run-{started.run_id}"

    async def too_long(stubs: RunStubs) -> str:
        started = run_input(host="away", queue_timeout_seconds=1)
        await temporal.start_run(client, started)
        return f"run-{started.run_id}"

    async def run(stubs: RunStubs) -> str:
        started = run_input()
        await temporal.start_run(client, started)
        workflow_id = f"run-{started.run_id}"
        if not stubs.end.is_set():
            handle = client.get_workflow_handle(workflow_id)
            await stubs.began.wait()
            await handle.signal(
                "append",
                Batch(source="container/1", epoch=1, n=1, first=1, last=1, hash="0" * 64, lines="{}\n"),
            )
            await handle.signal("cancel", CancelInput())
        return workflow_id

    async def deploy(stubs: DeployStubs) -> str:
        started = DeployInput(deployment_id=new_id("dep"), project="p", host="test", activate=True, actor="key_1")
        await temporal.start_deploy(client, started)
        return f"deploy-{started.deployment_id}"

    async def deploy_away(signal: str, argument: Any) -> str:
        started = DeployInput(deployment_id=new_id("dep"), project="p", host="away", activate=True, actor="key_1")
        await temporal.start_deploy(client, started)
        await client.get_workflow_handle(f"deploy-{started.deployment_id}").signal(signal, argument)
        return f"deploy-{started.deployment_id}"

    async def deploy_lost(stubs: DeployStubs) -> str:
        return await deploy_away("host_lost", "away")

    async def deploy_taken_back(stubs: DeployStubs) -> str:
        return await deploy_away("cancel", CancelInput())

    async def lost(stubs: RunStubs) -> str:
        started = run_input(host="gone")
        await temporal.start_run(client, started)
        await client.get_workflow_handle(f"run-{started.run_id}").signal("host_lost", "gone")
        return f"run-{started.run_id}"

    async def maintain(_: UpkeepStubs) -> str:
        await client.start_workflow("Maintenance", "test", id="maintenance-test", task_queue=QUEUES[0])
        return "maintenance-test"

    async def collect(_: UpkeepStubs) -> str:
        start = [GarbageInput(dry_run=False), False]
        await client.start_workflow("Garbage", args=start, id="garbage", task_queue=QUEUES[0])
        return "garbage"

    async def deleted(_: ProjectStubs) -> str:
        await temporal.start_project_deletion(client, ProjectRef(project="p"))
        return "delete-project-p"

    async def rolled_back(_: ProjectStubs) -> str:
        rollback = RollbackInput(project="p", deployment_id="dep_1", actor="key_1")
        return await updated("Rollback", rollback, "switch")

    async def recognized(_: ProjectStubs) -> str:
        return await updated("Recognize", RecognizeInput(deployment_id="dep_1", project="p"), "answer")

    async def updated(name: str, argument: Any, update: str) -> str:
        """One that is started together with its update, on the host's queue."""
        workflow_id = new_id(name.lower())
        start = WithStartWorkflowOperation[Any, Any](
            name,
            args=[argument],
            id=workflow_id,
            task_queue=host_queue("test"),
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
        await client.execute_update_with_start_workflow(update, start_workflow_operation=start)
        return workflow_id

    told = Batch(source="container/1", epoch=1, n=3, first=1, last=1, hash="0" * 64, lines="{}\n", end=OK)
    short = facts(last=told, gone_at_ms=1_700_000_001_100)
    retried, adopted, unclosed, cut_off = RunStubs(), RunStubs(), RunStubs(short), RunStubs(short)
    unclosed.closes_failed, cut_off.closes_lost = 1, 1
    retried.failures = 1
    adopted.failures, adopted.failure = 1, LET_GO
    shapes: dict[str, tuple[Any, Any]] = {
        "run-succeeded-1": (RunStubs(), run),
        "run-short-1": (RunStubs(short), run),
        "run-short-unclosed-1": (unclosed, run),
        "run-short-cut-off-1": (cut_off, run),
        "run-retried-1": (retried, run),
        "run-attempts-1": (RunStubs(failing(1), facts(retries=1)), run),
        "run-canceled-1": (RunStubs(facts(end=None, exit_code=143), waits=True), run),
        "run-held-1": (RunStubs(), held),
        "run-queue-timeout-1": (RunStubs(), too_long),
        "run-adopted-1": (adopted, run),
        "run-host-lost-1": (RunStubs(), lost),
        "maintenance-1": (UpkeepStubs(), maintain),
        "garbage-1": (UpkeepStubs(), collect),
        "deploy-ready-1": (DeployStubs(), deploy),
        "deploy-failed-1": (DeployStubs(failing="smoke_boot"), deploy),
        "deploy-canceled-1": (DeployStubs(canceled_in="build_image"), deploy),
        "deploy-canceled-2": (DeployStubs(canceled_in="smoke_boot"), deploy),
        "deploy-taken-back-1": (DeployStubs(), deploy_taken_back),
        "deploy-host-lost-1": (DeployStubs(), deploy_lost),
        "project-deleted-1": (ProjectStubs(), deleted),
        "rollback-1": (ProjectStubs(), rolled_back),
        "recognize-1": (ProjectStubs(), recognized),
    }
    for name in names or shapes:
        await serve(name, *shapes[name])


def _scrub(value: Any) -> None:
    """Take out what tells of the machine and means nothing to a replay."""
    if isinstance(value, dict):
        for key in ("stackTrace", "identity"):
            value.pop(key, None)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _scrub(inner)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
