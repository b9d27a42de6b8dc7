"""Asks the host of a deployment whether that is what a new build of the same source and config would be.

Started together with its update, on the host's queue: one round trip, as a rollback.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.deployments import DeploymentActivities
    from crewship.contracts import RecognizeInput, RecognizeResult


@workflow.defn(name="Recognize")
class RecognizeWorkflow:
    @workflow.init
    def __init__(self, asked: RecognizeInput) -> None:
        self.asked, self.is_answered = asked, False

    @workflow.run
    async def run(self, asked: RecognizeInput) -> None:
        await workflow.wait_condition(lambda: self.is_answered and workflow.all_handlers_finished())

    @workflow.update(description="Whether a new build would be the same")
    async def answer(self) -> RecognizeResult:
        try:
            result: RecognizeResult = await workflow.execute_local_activity_method(
                DeploymentActivities.recognize,
                self.asked,
                start_to_close_timeout=timedelta(seconds=5),
                schedule_to_close_timeout=timedelta(seconds=5),
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary=f"look whether {self.asked.deployment_id} would be built the same",
            )
        finally:
            self.is_answered = True
        return result
