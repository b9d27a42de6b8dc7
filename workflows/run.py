"""A run: owns its event log, has its container run on the host, and makes sure that it ends, and ends once.

    run_container ──► classify ──► finish_container ──► terminal event ──► close_run
         ▲                          (artifacts, remove)                     (archive, then the row)
      cancel: stop_container at once, on the host's control queue

The terminal state is decided here, in one place, from facts. A cancel by signal and by the Temporal UI's own button are the same.
"""

import asyncio
import contextlib
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.containers import ContainerActivities
    from activities.runs import RunActivities
    from crewship import contracts
    from crewship.clock import from_ms, rfc3339
    from crewship.contracts import (
        CancelFacts,
        CancelInput,
        CloseRunInput,
        ContainerFacts,
        FinishInput,
        FinishResult,
        RunContainerInput,
        RunError,
        RunInput,
        RunResult,
        RunStatus,
        StopInput,
        StopResult,
    )
    from crewship.events import Draft
    from crewship.outcome import classify
    from crewship.temporal import STATUS
    from workflows.logged import Logged

T = TypeVar("T")

RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10))
"""The platform's own steps are tried until they work; none of them repeats the crew's code."""

HEARTBEAT_TIMEOUT = timedelta(seconds=5)
"""Five missed beats (``activities.pulse``): how long a killed worker's container goes without a follower."""

_HOST_LOST = RunError(
    code="host_lost",
    message="The host that ran the container cannot be reached any more",
    hint="look at the worker's log; crewship doctor",
)

_TERMINAL = {"succeeded": "run.completed", "failed": "run.failed", "canceled": "run.canceled"}


@workflow.defn(name="Run")
class RunWorkflow(Logged):
    @workflow.init
    def __init__(self, run: RunInput) -> None:
        super().__init__()
        self.run_input = run
        self.force = False
        self.cancel_requested_at = ""
        self.stop_result: StopResult | None = None
        self.stops: list[asyncio.Task[None]] = []
        self.is_host_lost = False

    @workflow.signal(description="Stop the run; with force without grace")
    def cancel(self, cancel: CancelInput) -> None:
        self._request_cancel(cancel.force)

    @workflow.signal(description="The host that has the container is gone for good")
    def host_lost(self, host: str) -> None:
        workflow.set_current_details(f"host {host} is gone")
        self.is_host_lost = True

    def _request_cancel(self, force: bool) -> None:
        if not self.cancel_requested:
            self.cancel_requested = True
            self.cancel_requested_at = rfc3339(workflow.now())
        self.force = self.force or force

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        container = workflow.start_activity_method(
            ContainerActivities.run_container,
            RunContainerInput(
                run_id=run.run_id, attempt=1, timeout_seconds=run.timeout_seconds, grace_seconds=run.grace_seconds
            ),
            task_queue=contracts.runs_queue(run.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            start_to_close_timeout=timedelta(seconds=run.timeout_seconds + 600),
            retry_policy=RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"run the crew in {contracts.container_name(run.run_id)}",
        )
        facts, lost = await self._ended(container)
        status, error = (
            ("failed", lost)
            if lost is not None
            else classify(
                facts,
                self.stop_result,
                memory=facts.memory,
                pids=facts.pids,
                timeout_seconds=run.timeout_seconds,
            )
        )
        finished = await self._finish(run)
        if finished is None:
            status, error = "failed", _HOST_LOST
            finished = FinishResult(artifact_count=0, gone_at_ms=round(workflow.time() * 1000))
        if finished.limit_exceeded and status == "succeeded":
            status, error = classify(
                facts.model_copy(update={"artifact_limit": True}),
                None,
                memory=facts.memory,
                pids=facts.pids,
                timeout_seconds=run.timeout_seconds,
            )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return await self._close(facts, finished, status, error)

    async def _ended(
        self, container: "workflow.ActivityHandle[ContainerFacts]"
    ) -> tuple[ContainerFacts, RunError | None]:
        """Wait for the container's end; on a cancel have it stopped, harder when asked again."""
        watch = asyncio.create_task(self._stop_when_asked(container))
        give_up = asyncio.create_task(self._give_up_when_lost(container))
        try:
            facts = await self._uninterrupted(container)
            self.is_host_lost = False  # it was there after all
            return facts, None
        except ActivityError as error:
            if is_cancelled_exception(error) and not self.is_host_lost:  # it never began: there was no free slot yet
                return ContainerFacts(started=False, end=None, canceled_before_start=True), None
            return ContainerFacts(started=self.log.next_seq > 1, end=self.log.end), _HOST_LOST
        finally:
            watch.cancel()
            await asyncio.gather(*self.stops, return_exceptions=True)  # their times are part of the outcome
            give_up.cancel()

    async def _finish(self, run: RunInput) -> FinishResult | None:
        """Have what is left collected and the container removed; None when its host is lost."""
        finish = workflow.start_activity_method(
            ContainerActivities.finish_container,
            FinishInput(run_id=run.run_id, attempt=1),
            task_queue=contracts.host_queue(run.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            start_to_close_timeout=timedelta(minutes=30),
            schedule_to_close_timeout=timedelta(hours=1),
            retry_policy=RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary="collect artifacts, remove the container",
        )
        give_up = asyncio.create_task(self._give_up_when_lost(finish))
        try:
            return await self._uninterrupted(finish)
        except ActivityError:
            if not self.is_host_lost:
                raise
            return None
        finally:
            give_up.cancel()

    async def _uninterrupted(self, handle: "workflow.ActivityHandle[T]") -> T:
        """Wait for an activity; a cancel of the workflow (the UI's button) becomes a cancel of the run."""
        while True:
            try:
                return await asyncio.shield(handle)
            except asyncio.CancelledError:
                if handle.cancelled():
                    raise
                self._request_cancel(force=False)

    async def _give_up_when_lost(self, handle: "workflow.ActivityHandle[T]") -> None:
        """Ends the wait for a worker that never comes; one that has the activity in hand takes no notice of its cancel."""
        await workflow.wait_condition(lambda: self.is_host_lost)
        for waiting in (handle, *self.stops):
            waiting.cancel()

    async def _stop_when_asked(self, container: "workflow.ActivityHandle[ContainerFacts]") -> None:
        await workflow.wait_condition(lambda: self.cancel_requested)
        workflow.set_current_details("cancel requested")
        container.cancel()  # ends it when it waits for a slot, tells it otherwise
        while True:
            force = self.force
            stop = asyncio.create_task(self._stop(force))
            self.stops.append(stop)
            await workflow.wait_condition(lambda s=stop, f=force: s.done() or (self.force and not f))  # type: ignore[misc]
            # Not there yet (it is being created): once more in a second; asked again with force: once more now.
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda f=force: self.force and not f,  # type: ignore[misc]
                    timeout=timedelta(seconds=1),
                )

    async def _stop(self, force: bool) -> None:
        stop = await workflow.execute_activity_method(
            ContainerActivities.stop_container,
            StopInput(run_id=self.run_input.run_id, attempt=1, grace_seconds=self.run_input.grace_seconds, force=force),
            task_queue=contracts.host_queue(self.run_input.host),
            start_to_close_timeout=timedelta(minutes=2),
            schedule_to_start_timeout=timedelta(seconds=5) if self.is_host_lost else None,
            retry_policy=RETRY,
            summary="stop the container" + (" at once" if force else ""),
        )
        before = self.stop_result
        self.stop_result = StopResult(
            found=stop.found or (before is not None and before.found),
            sigterm_at_ms=(before.sigterm_at_ms if before else None) or stop.sigterm_at_ms,
            sigkill_at_ms=(before.sigkill_at_ms if before else None) or stop.sigkill_at_ms,
        )

    async def _close(
        self, facts: ContainerFacts, finished: FinishResult, status: RunStatus, error: RunError | None
    ) -> RunResult:
        now = rfc3339(workflow.now())
        cancel = None
        if status == "canceled":
            stop = self.stop_result or StopResult(found=False)
            cancel = CancelFacts(
                requested_at=self.cancel_requested_at,
                sigterm_at=_time(stop.sigterm_at_ms if facts.started else None),
                sigkill_at=_time(stop.sigkill_at_ms if facts.started else None),
                gone_at=rfc3339(from_ms(finished.gone_at_ms)),
            )
        ended_at_ms = facts.ended_at_ms or finished.gone_at_ms
        duration_ms = max(0, ended_at_ms - facts.started_at_ms) if facts.started_at_ms is not None else 0
        data: dict[str, object] = {"duration_ms": duration_ms}
        if error is not None:
            data["error"] = error.model_dump()
        if cancel is not None:
            data |= {"sigterm_at": cancel.sigterm_at, "sigkill_at": cancel.sigkill_at, "gone_at": cancel.gone_at}
        if facts.end is None and facts.started:
            data["truncated"] = True
        self.log.finish(Draft(at=now, type=_TERMINAL[status], data=data))
        workflow.upsert_search_attributes([STATUS.value_set(status)])
        workflow.set_current_details(f"{status}{': ' + error.code if error else ''}")
        await self._uninterrupted(
            workflow.start_activity_method(
                RunActivities.close_run,
                CloseRunInput(
                    run_id=self.run_input.run_id,
                    status=status,
                    error=error,
                    cancel=cancel,
                    completed_at=now,
                    duration_ms=duration_ms,
                    usage=_usage(facts, duration_ms),
                ),
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                start_to_close_timeout=timedelta(minutes=10),
                retry_policy=RETRY,
                summary=f"archive the log, record that the run {status}",
            )
        )
        return RunResult(status=status, error_code=error.code if error else None)


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(from_ms(milliseconds))


def _usage(facts: ContainerFacts, duration_ms: int) -> dict[str, float | int | None]:
    """What the run used, from the container's cgroup; null where the kernel did not tell."""
    end = facts.end
    return {
        "container_seconds": duration_ms / 1000,
        "cpu_seconds": end.cpu_ms / 1000 if end is not None and end.cpu_ms is not None else None,
        "peak_memory_bytes": end.memory_peak_bytes if end is not None else None,
    }
