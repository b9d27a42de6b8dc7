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

_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=5)
"""Three seconds, by which a caller knows what is away. By attempts: a time limit over all of them does not end a local activity
while it waits for the next one."""


@workflow.defn(name="Rollback")
class RollbackWorkflow:
    @workflow.init
    def __init__(self, rollback: RollbackInput) -> None:
        self.rollback = rollback
        self.result: RollbackResult | None = None
        self.is_over = False

    @workflow.run
    async def run(self, rollback: RollbackInput) -> RollbackResult | None:
        await workflow.wait_condition(lambda: self.is_over and workflow.all_handlers_finished())
        return self.result

    @workflow.update(description="Swap the pointer, answer with what is current now")
    async def switch(self) -> RollbackResult:
        try:
            self.result = await self._switch()
        finally:
            self.is_over = True
        return self.result

    async def _switch(self) -> RollbackResult:
        result: RollbackResult = await workflow.execute_local_activity_method(
            DeploymentActivities.switch_current,
            self.rollback,
            start_to_close_timeout=timedelta(seconds=20),
            retry_policy=_RETRY,
            summary=f"make {self.rollback.deployment_id or 'the previous deployment'} current",
        )
        return result
