"""Takes what retention does not keep, a limited step at a time: of the records first, then on each container host.

Started by a Temporal Schedule for as many steps as there are, and by ``POST /v1/gc`` for one, which waits by the update.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.garbage import GarbageActivities
    from crewship.contracts import GarbageInput, GarbageResult, host_queue

_ONCE = RetryPolicy(maximum_attempts=2)
_MAX_STEPS = 100
"""Of one workflow; the next one goes on."""


@workflow.defn(name="Garbage")
class GarbageWorkflow:
    @workflow.init
    def __init__(self, garbage: GarbageInput, once: bool) -> None:
        self.result: GarbageResult | None = None

    @workflow.run
    async def run(self, garbage: GarbageInput, once: bool) -> None:
        count = 0
        for _ in range(1 if once else _MAX_STEPS):
            self.result = await self._step(garbage)
            count += len(self.result.removals)
            workflow.set_current_details(f"{count} {'would go' if garbage.dry_run else 'gone'}")
            if not self.result.more or not self.result.removals:
                break  # done, or all that is left is in use
        await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.update(description="What one step has taken, or would take")
    async def step(self) -> GarbageResult:
        await workflow.wait_condition(lambda: self.result is not None)
        assert self.result is not None
        return self.result

    async def _step(self, garbage: GarbageInput) -> GarbageResult:
        records = await workflow.execute_activity_method(
            GarbageActivities.collect_records,
            garbage,
            start_to_close_timeout=timedelta(minutes=10),
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=_ONCE,
            summary="runs, artifacts, logs, sources",
        )
        removals, more, unreachable = list(records.removals), records.more, []
        for host in records.hosts:
            try:
                found = await workflow.execute_activity_method(
                    GarbageActivities.collect_on_host,
                    garbage,
                    task_queue=host_queue(host),
                    schedule_to_start_timeout=timedelta(seconds=10),
                    start_to_close_timeout=timedelta(minutes=10),
                    heartbeat_timeout=timedelta(minutes=2),
                    retry_policy=_ONCE,
                    summary=f"images, volumes, networks on {host}",
                )
            except ActivityError:
                unreachable.append(host)
                continue
            removals += found.removals
            more = more or found.more
        return GarbageResult(removals=removals, more=more, hosts=records.hosts, unreachable_hosts=unreachable)
