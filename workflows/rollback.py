"""A rollback: swap the project's pointer after checking that the target's image is really there. No build.

Started together with its update, so that a caller needs one round trip and no long poll.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.deployments import DeploymentActivities
    from crewship.contracts import RollbackInput, RollbackResult


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
        result: RollbackResult = await workflow.execute_activity_method(
            DeploymentActivities.switch_current,
            self.rollback,
            task_queue=self.queue,
            start_to_close_timeout=timedelta(seconds=20),
            schedule_to_close_timeout=timedelta(seconds=25),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200)),
            summary=f"make {self.rollback.deployment_id or 'the previous deployment'} current",
        )
        self.result = result
        return result
