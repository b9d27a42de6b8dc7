"""Activities with the real names and a scripted behaviour, so that a workflow's own logic is what is tested."""

import asyncio
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from crewship import contracts
from crewship.contracts import (
    ActivateInput,
    CancelInput,
    CloseDeploymentInput,
    CloseRunInput,
    ContainerFacts,
    DeploymentRef,
    EndFacts,
    FinishInput,
    FinishResult,
    GarbageInput,
    GarbageResult,
    ProjectRef,
    RecognizeInput,
    RecognizeResult,
    Removal,
    RollbackInput,
    RollbackResult,
    RunContainerInput,
    RunError,
    StepResult,
    StopInput,
    StopResult,
)

OK = EndFacts(exit_code=0, ok=True, result_at_ms=1_700_000_000_500)


def facts(**changes: Any) -> ContainerFacts:
    return ContainerFacts(
        started=True,
        end=OK,
        exit_code=0,
        started_at_ms=1_700_000_000_000,
        ended_at_ms=1_700_000_001_000,
        memory="512m",
        pids=128,
    ).model_copy(update=changes)


def failing(retries: int, code: str = "user_error") -> ContainerFacts:
    """The crew raised, in a project that asks for ``retries``."""
    end = EndFacts(exit_code=1, ok=False, error_code=code, error_message="ValueError: no", cpu_ms=500)
    return facts(end=end, exit_code=1, retries=retries)


class RunStubs:
    """``run_container`` ends with the next of ``results`` once ``self.end`` is set (at once unless ``waits``)."""

    def __init__(self, *results: ContainerFacts, waits: bool = False) -> None:
        self.results = list(results) or [facts()]
        self.begun: list[RunContainerInput] = []
        self.attempts: list[int] = []
        self.finishes: list[FinishInput] = []
        self.end = asyncio.Event()
        if not waits:
            self.end.set()
        self.began = asyncio.Event()
        self.stop_result = StopResult(found=True, sigterm_at_ms=1_700_000_000_100)
        self.stops: list[StopInput] = []
        self.stubborn = False
        """Whether the container ends at a forced stop only."""
        self.closed: list[CloseRunInput] = []
        self.failures = 0
        self.closes_lost = 0
        """How many attempts to close are cut off, as by a worker that is killed."""
        self.closes_failed = 0
        """How many attempts to close raise: the object store is away."""
        self.canceled_while_closing = False
        self.failure = "Unavailable"
        self.holds: int | None = None
        """The attempt whose container goes on until it is stopped."""
        self.hopeless: set[str] = set()
        """Activities that fail for good."""

    def all(self) -> list[Any]:
        return [self.run_container, self.stop_container, self.finish_container, self.close_run]

    @activity.defn
    async def run_container(self, run: RunContainerInput) -> ContainerFacts:
        self.begun.append(run)
        if run.attempt == self.holds:
            self.end.clear()
        self.began.set()
        self._give_up("run_container")
        if self.failures:
            self.failures -= 1
            raise ApplicationError("the engine is away", type=self.failure)
        activity.heartbeat()
        while not self.end.is_set():
            try:
                await asyncio.wait_for(asyncio.shield(self.end.wait()), 0.2)
            except TimeoutError:
                activity.heartbeat()
            except asyncio.CancelledError:
                continue  # as the real one: it ends when the container does
        self.attempts.append(run.attempt)
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]

    @activity.defn
    async def stop_container(self, stop: StopInput) -> StopResult:
        self.stops.append(stop)
        if stop.force or not self.stubborn:
            self.end.set()
        return self.stop_result

    @activity.defn
    async def finish_container(self, finish: FinishInput) -> FinishResult:
        self.finishes.append(finish)
        self._give_up("finish_container")
        return FinishResult(artifact_count=0, gone_at_ms=1_700_000_002_000)

    def _give_up(self, name: str) -> None:
        if name in self.hopeless:
            raise ApplicationError("it cannot be done", non_retryable=True)

    @activity.defn
    async def close_run(self, close: CloseRunInput) -> None:
        if self.closes_lost:
            self.closes_lost -= 1
            await asyncio.Event().wait()
        if self.closes_failed:
            self.closes_failed -= 1
            raise ApplicationError("the object store is away", type="Unavailable")
        self.closed.append(close)
        if self.canceled_while_closing:
            self.canceled_while_closing = False
            await activity.client().get_workflow_handle(f"run-{close.run_id}").signal("cancel", CancelInput())


class DeployStubs:
    """Steps that succeed, except the one that is given an error; ``canceled_in`` is one that a cancel comes too late for."""

    def __init__(self, failing: str | None = None, canceled_in: str | None = None) -> None:
        self.failing, self.canceled_in = failing, canceled_in
        self.steps: list[str] = []
        self.closed: list[CloseDeploymentInput] = []

    def all(self) -> list[Any]:
        return [self.build_image, self.smoke_boot, self.mark_ready, self.close_deployment]

    async def _step(self, name: str) -> StepResult:
        self.steps.append(name)
        if name == self.canceled_in:
            workflow_id = activity.info().workflow_id
            assert workflow_id is not None
            await activity.client().get_workflow_handle(workflow_id).signal("cancel", CancelInput())
        return StepResult(error=RunError(code="import_error", message="no") if name == self.failing else None)

    @activity.defn
    async def build_image(self, ref: DeploymentRef) -> StepResult:
        return await self._step("build_image")

    @activity.defn
    async def smoke_boot(self, ref: DeploymentRef) -> StepResult:
        return await self._step("smoke_boot")

    @activity.defn
    async def mark_ready(self, activate: ActivateInput) -> None:
        await self._step("mark_ready")

    @activity.defn
    async def close_deployment(self, close: CloseDeploymentInput) -> None:
        self.closed.append(close)


class UpkeepStubs:
    """What upkeep and the collection of garbage find."""

    def all(self) -> list[Any]:
        return [self.reconcile, self.end_abandoned, self.collect_records, self.collect_on_host]

    @activity.defn
    async def reconcile(self) -> int:
        return 0

    @activity.defn
    async def end_abandoned(self) -> int:
        return 1

    @activity.defn
    async def collect_records(self, garbage: GarbageInput) -> GarbageResult:
        removal = Removal(kind="run", name="run_1", why="old", bytes=1)
        return GarbageResult(removals=[removal], more=False, hosts=["test"])

    @activity.defn
    async def collect_on_host(self, garbage: GarbageInput) -> GarbageResult:
        return GarbageResult(removals=[], more=False)


class ProjectStubs:
    """A project with work to stop and an image to remove; and its pointer."""

    def __init__(self) -> None:
        self.looks = 0

    def all(self) -> list[Any]:
        return [
            self.stop_work, self.hosts, self.remove_images, self.remove_records, self.switch_current, self.recognize,
        ]  # fmt: skip

    @activity.defn
    async def stop_work(self, project: ProjectRef) -> int:
        self.looks += 1
        return 2 - self.looks

    @activity.defn
    async def hosts(self, project: ProjectRef) -> list[str]:
        return ["test"]

    @activity.defn
    async def remove_images(self, project: ProjectRef) -> None: ...

    @activity.defn
    async def remove_records(self, project: ProjectRef) -> None: ...

    @activity.defn
    async def switch_current(self, rollback: RollbackInput) -> RollbackResult:
        return RollbackResult(deployment_id=rollback.deployment_id or "", changed=True)

    @activity.defn
    async def recognize(self, asked: RecognizeInput) -> RecognizeResult:
        return RecognizeResult(same=True)


QUEUES = (
    contracts.WORKFLOW_QUEUE,
    contracts.host_queue("test"),
    contracts.builds_queue("test"),
    contracts.runs_queue("test"),
    contracts.adoption_queue("test"),
)
