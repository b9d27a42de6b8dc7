"""A deployment: source to image to smoke boot to current, each step told in the deployment's own log.

    build_image ──► smoke_boot ──► activate ──► terminal event ──► close_deployment

A project that cannot be built is a result of a step, not an activity failure: it is never tried again, and the project's
current deployment stays current.

A cancel, and a host that is gone for good, take back the step that waits for a worker; one that is at work goes on to its end,
which a build that is told to stop reaches at once.
"""

from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.deployments import DeploymentActivities
    from crewship import clock, contracts
    from crewship.clock import rfc3339
    from crewship.contracts import (
        ActivateInput,
        CancelInput,
        CloseDeploymentInput,
        DeployInput,
        DeploymentRef,
        DeployResult,
        RunError,
        StepResult,
    )
    from crewship.events import Draft
    from crewship.temporal import STATUS
    from workflows.logged import Logged

T = TypeVar("T")

RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10))
BUILD_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10), maximum_attempts=5
)


_CANCELED = RunError(code="canceled", message="The deployment was canceled")
_HOST_LOST = RunError(
    code="host_lost",
    message="The host that was to build it cannot be reached any more",
    hint="see that a worker of the host runs (crewship doctor), then deploy again",
)


@workflow.defn(name="Deploy")
class DeployWorkflow(Logged):
    @workflow.init
    def __init__(self, deploy: DeployInput) -> None:
        super().__init__()
        self.deploy = deploy
        self.is_host_lost = False

    @workflow.signal(description="Stop the build")
    def cancel(self, cancel: CancelInput) -> None:
        self.cancel_requested = True

    @workflow.signal(description="The host that builds is gone for good")
    def host_lost(self, host: str) -> None:
        workflow.set_current_details(f"host {host} is gone")
        self.is_host_lost = True

    @workflow.run
    async def run(self, deploy: DeployInput) -> DeployResult:
        began = workflow.now()
        error = await self._build()
        await workflow.wait_condition(workflow.all_handlers_finished)
        at = rfc3339(workflow.now())
        duration_ms = clock.duration_ms(began, workflow.now())
        if error is None:
            self.log.write(Draft(at, "build.completed", {"duration_ms": duration_ms}))
        else:
            self.log.write(Draft(at, "build.failed", {"duration_ms": duration_ms, "error": error.model_dump()}))
        if error is None and deploy.activate:
            self.log.write(Draft(at, "deployment.activated", {"deployment_id": deploy.deployment_id}))
        status: contracts.DeploymentStatus = "ready" if error is None else "failed"
        data: dict[str, object] = {"deployment_id": deploy.deployment_id}
        if error is not None:
            data["error"] = error.model_dump()
        self.log.finish(Draft(at, f"deployment.{status}", data))
        workflow.upsert_search_attributes([STATUS.value_set(status)])
        workflow.set_current_details(f"{status}{': ' + error.code if error else ''}")
        await workflow.execute_activity_method(
            DeploymentActivities.close_deployment,
            CloseDeploymentInput(deployment_id=deploy.deployment_id, error=error, at=at),
            heartbeat_timeout=timedelta(seconds=10),
            start_to_close_timeout=timedelta(minutes=5),
            retry_policy=RETRY,
            summary=f"archive the build log, record that the deployment is {status}",
        )
        return DeployResult(status=status, error_code=error.code if error else None)

    def _is_canceled(self) -> bool:
        """Whether to stop before the next step; within a step it is the activity that sees a cancel."""
        return self.cancel_requested and workflow.patched("cancel-between-steps")

    async def _build(self) -> RunError | None:
        """The steps up to the switch; the first error, or None."""
        ref = DeploymentRef(deployment_id=self.deploy.deployment_id)
        try:
            for step, minutes, summary in (
                (DeploymentActivities.build_image, 45, "build the image"),
                (DeploymentActivities.smoke_boot, 10, "smoke boot: import the entrypoint in the image"),
            ):
                if self._is_canceled():
                    return _CANCELED
                result: StepResult = await self._done(
                    workflow.start_activity_method(
                        step,
                        ref,
                        task_queue=contracts.builds_queue(self.deploy.host),
                        heartbeat_timeout=timedelta(seconds=10),
                        start_to_close_timeout=timedelta(minutes=minutes),
                        retry_policy=BUILD_RETRY,
                        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                        summary=summary,
                    )
                )
                if result.error is not None:
                    return result.error
            if self._is_canceled():
                return _CANCELED
            await self._done(
                workflow.start_activity_method(
                    DeploymentActivities.mark_ready,
                    ActivateInput(deployment_id=self.deploy.deployment_id, actor=self.deploy.actor),
                    task_queue=contracts.host_queue(self.deploy.host),
                    start_to_close_timeout=timedelta(minutes=1),
                    retry_policy=RETRY,
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                    summary="mark it ready" + (", make it current" if self.deploy.activate else ""),
                )
            )
        except ActivityError:
            if self.is_host_lost:
                return _HOST_LOST
            if self.cancel_requested:
                return _CANCELED
            return RunError(
                code="infrastructure",
                message="The platform could not finish the build",
                hint="look at the worker's log and the Temporal UI; crewship doctor",
            )
        return None

    async def _done(self, step: "workflow.ActivityHandle[T]") -> T:
        """The step's result. It is taken back on a cancel, and when its host is lost: at once when no worker has it, within its
        heartbeat's time when the one that had it is gone. One that is at work ends as it does.

        Raises:
            ActivityError: it has failed for good, or was taken back.
        """
        await workflow.wait_condition(lambda: step.done() or self.is_host_lost or self.cancel_requested)
        if not step.done() and (self.is_host_lost or workflow.patched("cancel-takes-back")):
            step.cancel()
        await workflow.wait_condition(lambda: step.done() or self.is_host_lost)
        if not step.done():
            step.cancel()
        result = await step
        self.is_host_lost = False  # it was there after all
        return result
