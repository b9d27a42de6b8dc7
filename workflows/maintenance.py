"""Upkeep on a schedule: start what was left unstarted, remove containers whose run is over.

Started by a Temporal Schedule (``worker.schedule``), a short workflow each time.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
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
        removed = await workflow.execute_activity_method(
            MaintenanceActivities.sweep_containers,
            task_queue=host_queue(host),
            start_to_close_timeout=timedelta(minutes=5),
            schedule_to_start_timeout=timedelta(minutes=1),
            retry_policy=_ONCE,
            summary="remove containers whose run is over",
        )
        trimmed = await workflow.execute_activity_method(
            RunActivities.trim_logs,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=_ONCE,
            summary="cut logs beyond their retention down to the end",
        )
        workflow.set_current_details(f"started {started}, removed {removed}, trimmed {trimmed}")
