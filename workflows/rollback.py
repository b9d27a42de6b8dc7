"""A switch of the project's pointer to a deployment that is there: a rollback, or a promotion. No build.

Started together with its update, so that a caller needs one round trip and no long poll; and on the queue of the host that has
the target's image, so that looking for the image and swapping the pointer is part of the one workflow task there is.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.deployments import DeploymentActivities
    from crewship.contracts import RollbackInput, RollbackResult

_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200))


@workflow.defn(name="Rollback")
class RollbackWorkflow:
    @workflow.init
    def __init__(self, rollback: RollbackInput, queue: str) -> None:
        self.rollback, self.queue = rollback, queue
        self.result: RollbackResult | None = None

    @workflow.run
    async def run(self, rollback: RollbackInput, queue: str) -> RollbackResult:
        await workflow.wait_condition(lambda: self.result is not None and workflow.all_handlers_finished())
        assert self.result is not None
        return self.result

    @workflow.update(description="Swap the pointer, answer with what is current now")
    async def switch(self) -> RollbackResult:
        result: RollbackResult
        if workflow.info().task_queue == self.queue:
            result = await workflow.execute_local_activity_method(
                DeploymentActivities.switch_current,
                self.rollback,
                start_to_close_timeout=timedelta(seconds=20),
                schedule_to_close_timeout=timedelta(seconds=25),
                retry_policy=_RETRY,
                summary=f"make {self.rollback.deployment_id or 'the previous deployment'} current",
            )
        else:  # started by an API of before
            result = await workflow.execute_activity_method(
                DeploymentActivities.switch_current,
                self.rollback,
                task_queue=self.queue,
                start_to_close_timeout=timedelta(seconds=20),
                schedule_to_close_timeout=timedelta(seconds=25),
                retry_policy=_RETRY,
                summary=f"make {self.rollback.deployment_id or 'the previous deployment'} current",
            )
        self.result = result
        return result
