"""Upkeep on a schedule: start what was left unstarted, end what nobody can end any more.

Started by a Temporal Schedule (``worker.schedule``), a short workflow each time. Containers are not its business but the
worker's own (``worker.reaper``), which must not wait for it, and what retention takes is ``workflows.garbage``'s.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.abandoned import AbandonedActivities
    from activities.maintenance import MaintenanceActivities
    from activities.runs import RunActivities
    from crewship.contracts import host_queue

_ONCE = RetryPolicy(maximum_attempts=2)


@workflow.defn(name="Maintenance")
class MaintenanceWorkflow:
    @workflow.run
    async def run(self, host: str) -> None:
        started = await workflow.execute_activity_method(
            RunActivities.reconcile,
            start_to_close_timeout=timedelta(minutes=2),
            retry_policy=_ONCE,
            summary="start what was left unstarted",
        )
        if not workflow.patched("ends-abandoned"):  # by the version before, and under way when this one came
            await workflow.execute_activity_method(
                MaintenanceActivities.sweep_containers,
                task_queue=host_queue(host),
                start_to_close_timeout=timedelta(minutes=5),
                schedule_to_start_timeout=timedelta(minutes=1),
                retry_policy=_ONCE,
            )
            return
        ended = await workflow.execute_activity_method(
            AbandonedActivities.end_abandoned,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=_ONCE,
            summary="end what nobody can end any more",
        )
        workflow.set_current_details(f"started {started}, ended {ended}")
