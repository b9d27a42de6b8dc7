"""A run: owns its event log, has its container run on the host, and makes sure that it ends, and ends once.

    container ──► classify ──► finish_container ──► terminal event ──► close_run
      ▲  ▲            │         (artifacts, remove;                     (archive, then the row;
      │  │            │          not when it left none)                  within the same task when all is told)
      │  │            └─ the crew failed, and [run] retries: run.retrying, delay, a new container ─┐
      │  └─────────────────────────────────────────────────────────────────────────────────────────┘
      cancel: stop_container at once, on the host's control queue

The terminal state is decided here, in one place, from facts. A cancel by signal and by the Temporal UI's own button are the same.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

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
        Entry,
        FinishInput,
        FinishResult,
        Head,
        RunError,
        RunInput,
        RunResult,
        RunStatus,
        StopInput,
        StopResult,
    )
    from crewship.events import Draft
    from crewship.outcome import RETRIED, classify
    from crewship.temporal import STATUS
    from workflows.container import HEARTBEAT_TIMEOUT, RETRY, Container, QueueTimeout
    from workflows.logged import Logged

T = TypeVar("T")

RETRY_DELAY_MS = 1000
"""Before the second attempt of a crew that failed; twice as long before each further one."""
MAX_RETRY_DELAY_MS = 60_000
SHORT_LOG_BYTES = 16 * 1024
"""What is handed to ``close_run``, so that it need not ask: a query costs what a workflow task does, some KB of history less."""

_STOP_AGAIN, _STOP_AGAIN_LATE = timedelta(seconds=1), timedelta(seconds=20)
"""After a stop that found nothing: the container is being created. After so many it is the log's end that is waited for, which an
outage may keep from being stored for hours, and each stop is 11 events of a history that may have 51,200."""
_STOPS = 60

CLOSE_TIMEOUT = timedelta(seconds=4)
"""For closing a run within its workflow task, which has 10 s; what takes longer is done by an activity of its own."""

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
        self.container = Container(run, self.log)
        self.force = False
        self.cancel_requested_at = ""
        self.stop_result: StopResult | None = None
        self.stops: list[asyncio.Task[None]] = []
        self.attempt = 1
        self.earlier: list[ContainerFacts] = []
        self.is_host_lost = False

    @workflow.signal(description="Stop the run; with force without grace")
    def cancel(self, cancel: CancelInput) -> None:
        self._request_cancel(cancel.force)

    @workflow.signal(description="Start the run: its project has a place for it")
    def admit(self) -> None:
        self.container.admit()

    @workflow.query(description="Where the log stands")
    def head(self) -> Head:
        return super().head().model_copy(update={"held": self.container.is_held})

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
        while True:
            facts, lost = await self._ended()
            status, error = (
                ("failed", lost)
                if lost is not None
                else classify(facts, self.stop_result, timeout_seconds=run.timeout_seconds)
            )
            if error is None or error.code not in RETRIED or self.attempt > facts.retries or self.cancel_requested:
                break
            await self._wait_to_retry(facts, error)
            # The container stays until then, with what it has written: a cancel's is collected.
            removed = None if self.cancel_requested else _gone(facts) or await self._finish(collect=False)
            if self.cancel_requested:
                status, error = "canceled", None
                break
            if removed is None:  # the next one would stand beside it
                break
            self._begin_attempt(facts)
        finished = _gone(facts) or await self._finished(lost)
        if self.is_host_lost:
            status, error = "failed", _HOST_LOST
        if finished.limit_exceeded and status == "succeeded":
            limited = facts.model_copy(update={"artifact_limit": True})
            status, error = classify(limited, None, timeout_seconds=run.timeout_seconds)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return await self._close(facts, finished, status, error)

    async def _wait_to_retry(self, facts: ContainerFacts, error: RunError) -> None:
        """Tell of the next attempt and wait for its time, or for a cancel."""
        delay_ms = min(RETRY_DELAY_MS * 2 ** (self.attempt - 1), MAX_RETRY_DELAY_MS)
        attempt, of = self.attempt + 1, facts.retries + 1
        data = {"attempt": attempt, "of": of, "error": error.model_dump(), "delay_ms": delay_ms}
        self.log.write(Draft(rfc3339(workflow.now()), "run.retrying", data))
        workflow.set_current_details(f"{error.code}: attempt {attempt} of {of} begins in {delay_ms} ms")
        try:
            await workflow.wait_condition(lambda: self.cancel_requested, timeout=timedelta(milliseconds=delay_ms))
        except TimeoutError:
            return
        except asyncio.CancelledError:  # the UI's button
            self._request_cancel(force=False)

    def _begin_attempt(self, before: ContainerFacts) -> None:
        self.earlier.append(before)
        self.attempt += 1
        self.log.begin_attempt(contracts.epoch_before(self.attempt))
        self.container = Container(self.run_input, self.log, self.attempt)

    async def _ended(self) -> tuple[ContainerFacts, RunError | None]:
        """Wait for the container's end; on a cancel have it stopped, harder when asked again."""
        watch = asyncio.create_task(self._stop_when_asked())
        give_up = asyncio.create_task(self._give_up_when_lost(self.container.give_up))
        try:
            facts = await self._uninterrupted(asyncio.create_task(self.container.ended()))
            if not facts.canceled_before_start:
                self.is_host_lost = False  # it was there after all
            if facts.last is not None:
                self.log.append(facts.last)
            return facts, None
        except QueueTimeout:
            return ContainerFacts(started=False, end=None), _queue_timeout(self.run_input)
        except ActivityError as error:
            lost = _HOST_LOST if self.is_host_lost else _lost(error)
            return ContainerFacts(started=self.log.next_seq > 1, end=self.log.end), lost
        finally:
            watch.cancel()
            await asyncio.gather(*self.stops, return_exceptions=True)  # their times are part of the outcome
            give_up.cancel()

    async def _finished(self, lost: RunError | None) -> FinishResult:
        """Have what is left of the last container collected and removed."""
        if lost is not None and lost.code == "queue_timeout":  # there was none, and its host may be away
            return _nothing()
        # Where the host has gone for good nothing can be collected, and what is left there its own sweep removes.
        patience = timedelta(hours=1) if lost is None else timedelta(minutes=1)
        return await self._finish(collect=True, patience=patience) or _nothing()

    async def _finish(self, *, collect: bool, patience: timedelta = timedelta(hours=1)) -> FinishResult | None:
        """Remove the attempt's container; None when its host does not get to it in time."""
        finish = workflow.start_activity_method(
            ContainerActivities.finish_container,
            FinishInput(run_id=self.run_input.run_id, attempt=self.attempt, collect=collect),
            task_queue=contracts.host_queue(self.run_input.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            start_to_close_timeout=timedelta(minutes=30),
            schedule_to_close_timeout=patience,
            retry_policy=RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary="collect artifacts, remove the container" if collect else "remove the container",
        )
        give_up = asyncio.create_task(self._give_up_when_lost(finish.cancel))
        try:
            finished = await self._uninterrupted(finish)
        except ActivityError:
            return None
        finally:
            give_up.cancel()
        self.is_host_lost = False
        return finished

    async def _uninterrupted(self, handle: "asyncio.Task[T]") -> T:
        """Wait for an activity; a cancel of the workflow (the UI's button) becomes a cancel of the run."""
        while True:
            try:
                return await asyncio.shield(handle)
            except asyncio.CancelledError:
                if handle.cancelled():
                    raise
                self._request_cancel(force=False)

    async def _give_up_when_lost(self, give_up: Callable[[], object]) -> None:
        """End the wait for a worker that never comes."""
        await workflow.wait_condition(lambda: self.is_host_lost)
        give_up()
        for stop in self.stops:
            stop.cancel()

    async def _stop_when_asked(self) -> None:
        await workflow.wait_condition(lambda: self.cancel_requested)
        workflow.set_current_details("cancel requested")
        self.container.leave_queue()
        while True:
            force = self.force
            stop = asyncio.create_task(self._stop(force))
            self.stops.append(stop)
            await workflow.wait_condition(lambda s=stop, f=force: s.done() or (self.force and not f))  # type: ignore[misc]
            # Not there yet (it is being created): once more in a second; asked again with force: once more now.
            with contextlib.suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda f=force: self.force and not f,  # type: ignore[misc]
                    timeout=_STOP_AGAIN if len(self.stops) < _STOPS else _STOP_AGAIN_LATE,
                )

    async def _stop(self, force: bool) -> None:
        stop = await workflow.execute_activity_method(
            ContainerActivities.stop_container,
            StopInput(
                run_id=self.run_input.run_id,
                attempt=self.attempt,
                grace_seconds=self.run_input.grace_seconds,
                force=force,
            ),
            task_queue=contracts.host_queue(self.run_input.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
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
        # A crew that has told of its success whole: its end is the same whatever comes to this workflow meanwhile, and whenever
        # this task is done again, for a reader may have seen it by then.
        is_whole = facts.last is not None and status == "succeeded"
        is_settled = is_whole and not self.stops
        now = rfc3339(from_ms(facts.ended_at_ms) if is_whole and facts.ended_at_ms else workflow.now())
        cancel = None
        if status == "canceled":
            stop = self.stop_result or StopResult(found=False)
            cancel = CancelFacts(
                requested_at=self.cancel_requested_at,
                sigterm_at=_time(stop.sigterm_at_ms if facts.started else None),
                sigkill_at=_time(stop.sigkill_at_ms if facts.started else None),
                gone_at=rfc3339(from_ms(finished.gone_at_ms)),
            )
        attempts = [*self.earlier, facts]
        ended_at_ms = facts.ended_at_ms or finished.gone_at_ms
        started_at_ms = next((each.started_at_ms for each in attempts if each.started_at_ms is not None), None)
        duration_ms = max(0, ended_at_ms - started_at_ms) if started_at_ms is not None else 0
        data: dict[str, object] = {"duration_ms": duration_ms}
        if error is not None:
            data["error"] = error.model_dump()
        if cancel is not None:
            data |= {"sigterm_at": cancel.sigterm_at, "sigkill_at": cancel.sigkill_at, "gone_at": cancel.gone_at}
        if any(each.end is None and each.started for each in attempts):
            data["truncated"] = True
        self.log.finish(Draft(at=now, type=_TERMINAL[status], data=data))
        workflow.upsert_search_attributes([STATUS.value_set(status)])
        workflow.set_current_details(f"{status}{': ' + error.code if error else ''}")
        close = CloseRunInput(
            run_id=self.run_input.run_id,
            status=status,
            error=error,
            cancel=cancel,
            completed_at=now,
            duration_ms=duration_ms,
            usage=_usage(attempts, finished.gone_at_ms),
            log=self.log.whole(SHORT_LOG_BYTES),
        )
        summary = f"archive the log, record that the run {status}"
        if not (is_settled and _is_inline(close.log) and await self._closed_at_once(close, summary)):
            await self._uninterrupted(
                workflow.start_activity_method(
                    RunActivities.close_run,
                    close,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    start_to_close_timeout=timedelta(minutes=10),
                    retry_policy=RETRY,
                    summary=summary,
                )
            )
        return RunResult(status=status, error_code=error.code if error else None)

    async def _closed_at_once(self, close: CloseRunInput, summary: str) -> bool:
        """Close the run within this workflow task; whether that worked.

        The task may be lost and done again, so what is closed has to be the same then: only what is settled comes here.
        """
        try:
            await self._uninterrupted(
                workflow.start_local_activity_method(
                    RunActivities.close_run,
                    close,
                    schedule_to_close_timeout=CLOSE_TIMEOUT,
                    retry_policy=RetryPolicy(maximum_attempts=1),
                    summary=summary,
                )
            )
        except FailureError:  # it comes wrapped in an ActivityError, or as it is, and when replayed in another way
            return False
        return True


def _gone(facts: ContainerFacts) -> FinishResult | None:
    """What there is to know of a container that left nothing and was removed at its end."""
    return None if facts.gone_at_ms is None else FinishResult(artifact_count=0, gone_at_ms=facts.gone_at_ms)


def _is_inline(log: list[Entry] | None) -> bool:
    """Whether it is short, and nothing of it is in a segment, which goes when the log is archived: that can be done twice."""
    return log is not None and all(entry.segment is None for entry in log)


def _nothing() -> FinishResult:
    return FinishResult(artifact_count=0, gone_at_ms=round(workflow.time() * 1000))


def _queue_timeout(run: RunInput) -> RunError:
    return RunError(
        code="queue_timeout",
        message=f"The run waited longer than {run.queue_timeout_seconds} s for its start",
        hint="set queue_timeout_seconds or concurrency under [run] in crewship.toml, "
        "or give the host more room: CREWSHIP_RUN_CAPACITY",
    )


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(from_ms(milliseconds))


def _usage(attempts: list[ContainerFacts], gone_at_ms: int) -> dict[str, float | int | None]:
    """What all attempts used, from their containers' cgroups; null where the kernel did not tell."""
    lasted = [
        max(0, (each.ended_at_ms or gone_at_ms) - each.started_at_ms)
        for each in attempts
        if each.started_at_ms is not None
    ]
    ends = [each.end for each in attempts if each.end is not None]
    cpu_ms = [end.cpu_ms for end in ends if end.cpu_ms is not None]
    peaks = [end.memory_peak_bytes for end in ends if end.memory_peak_bytes is not None]
    return {
        "container_seconds": sum(lasted) / 1000,
        "cpu_seconds": sum(cpu_ms) / 1000 if cpu_ms else None,
        "peak_memory_bytes": max(peaks, default=None),
    }


def _lost(error: ActivityError) -> RunError:
    """Why the platform has given a container up."""
    if isinstance(error.cause, ApplicationError):
        return RunError(
            code="infrastructure",
            message="The run's container could not be made or followed",
            hint="look at the worker's log and the Temporal UI; crewship doctor",
        )
    return _HOST_LOST
