"""The schedules that keep the house in order."""

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

from crewship.contracts import WORKFLOW_QUEUE, GarbageInput

_UPKEEP_EVERY = timedelta(seconds=30)
_GARBAGE_EVERY = timedelta(minutes=10)


async def ensure_schedules(client: Client, host: str) -> None:
    """Create the upkeep of ``host``, and the collection of garbage for all hosts, unless they are there."""
    await _ensure(
        client,
        f"maintenance-{host}",
        ScheduleActionStartWorkflow(
            "Maintenance",
            host,
            id=f"maintenance-{host}",
            task_queue=WORKFLOW_QUEUE,
            execution_timeout=timedelta(minutes=10),
            static_summary=f"upkeep of {host}",
        ),
        _UPKEEP_EVERY,
    )
    await _ensure(
        client,
        "garbage",
        ScheduleActionStartWorkflow(
            "Garbage",
            args=[GarbageInput(dry_run=False), False],
            id="garbage",
            task_queue=WORKFLOW_QUEUE,
            execution_timeout=timedelta(hours=6),
            static_summary="take what retention does not keep",
        ),
        _GARBAGE_EVERY,
    )


async def _ensure(client: Client, schedule_id: str, action: ScheduleActionStartWorkflow, every: timedelta) -> None:
    try:
        await client.create_schedule(
            schedule_id,
            Schedule(
                action=action,
                spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
                policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
            ),
        )
    except ScheduleAlreadyRunningError:
        return
