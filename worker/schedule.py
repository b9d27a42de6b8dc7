"""The schedule that keeps the house in order."""

from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)

from crewship.contracts import WORKFLOW_QUEUE

_EVERY = timedelta(seconds=30)


async def ensure_maintenance(client: Client, host: str) -> None:
    """Create the schedule of ``host`` unless it is there."""
    try:
        await client.create_schedule(
            f"maintenance-{host}",
            Schedule(
                action=ScheduleActionStartWorkflow(
                    "Maintenance",
                    host,
                    id=f"maintenance-{host}",
                    task_queue=WORKFLOW_QUEUE,
                    execution_timeout=timedelta(minutes=10),
                    static_summary=f"upkeep of {host}",
                ),
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=_EVERY)]),
                policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
            ),
        )
    except ScheduleAlreadyRunningError:
        return
