"""A run's container as its workflow sees it, from the queue to the facts of its end.

    held ──admit──► in the queue ──a slot──► run_container ──► facts
                                                  │ its worker died, or let go of it
                                                  ▼
                                             run_container, on the host's adoption queue

Only the first start waits for a slot, in the order of priority and fairness, and only for so long (``queue_timeout``). Who
adopts a container that has its slot already waits for nothing: behind a backlog it would stand still until its turn came.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType, is_cancelled_exception
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from activities.containers import ContainerActivities
    from crewship import contracts
    from crewship.contracts import ContainerFacts, RunContainerInput, RunInput
    from crewship.log import EventLog

RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=10))
"""The platform's own steps are tried until they work; none of them repeats the crew's code."""

HEARTBEAT_TIMEOUT = timedelta(seconds=5)
"""Five missed beats (``activities.pulse``): how long a killed worker's container goes without a follower."""

_TRIES = 100
"""A container that can neither be made nor followed for a quarter of an hour ends its run. Workers that are replaced use these up
as well, one each."""

_START = RetryPolicy(
    initial_interval=RETRY.initial_interval,
    maximum_interval=RETRY.maximum_interval,
    maximum_attempts=_TRIES,
    non_retryable_error_types=[contracts.LET_GO, "TemporalTimeout:Heartbeat", "TemporalTimeout:StartToClose"],
)
"""What failed before there was a container goes back into the queue; everything else is adopted."""

_ADOPT = RetryPolicy(
    initial_interval=RETRY.initial_interval, maximum_interval=RETRY.maximum_interval, maximum_attempts=_TRIES
)

_LEAST_WAIT = timedelta(seconds=1)


class QueueTimeout(Exception):
    """The run waited too long for its start."""


class Container:
    """The container of one attempt of a run. A further attempt has its place in the project, and no time-out in the queue."""

    def __init__(self, run: RunInput, log: EventLog, attempt: int = 1) -> None:
        self._run, self._log, self._attempt = run, log, attempt
        self._held = run.held and attempt == 1
        self._left = self._given_up = False
        self._pending: workflow.ActivityHandle[ContainerFacts] | None = None
        self._is_adopted = False

    @property
    def is_held(self) -> bool:
        """Whether it waits to be admitted."""
        return self._held

    def admit(self) -> None:
        """The project has a place for the run."""
        self._held = False

    def leave_queue(self) -> None:
        """Do not start it, if it has not been; what was started is stopped by other means."""
        self._left = True
        if self._pending is not None and not self._is_adopted:
            self._pending.cancel()

    def give_up(self) -> None:
        """Do not wait for its host, taken for gone; a worker that has the activity in hand takes no notice of its cancel."""
        self._left = self._given_up = True
        if self._pending is not None:
            self._pending.cancel()

    async def ended(self) -> ContainerFacts:
        """Wait for its turn, then for its end.

        Raises:
            QueueTimeout: its turn did not come in time.
            ActivityError: nobody can tell what became of it, or it was given up.
        """
        await self._admitted()
        if self._left:
            return _never_began()
        self._pending = workflow.start_activity_method(
            ContainerActivities.run_container,
            self._input(epoch=0),
            task_queue=contracts.runs_queue(self._run.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            schedule_to_start_timeout=self._patience(),
            start_to_close_timeout=self._longest(),
            retry_policy=_START,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=Priority(priority_key=self._run.priority, fairness_key=self._run.project),
            summary=f"run the crew in {contracts.container_name(self._run.run_id, self._attempt)}",
        )
        try:
            return await self._pending
        except ActivityError as error:
            if self._given_up:
                raise
            if is_cancelled_exception(error):  # there was no free slot yet
                return _never_began()
            if _is_timeout(error, TimeoutType.SCHEDULE_TO_START):
                raise QueueTimeout from error
            if not _goes_on(error) or not workflow.patched("adoption-queue"):
                raise
        return await self._adopted()

    async def _admitted(self) -> None:
        if not self._held:  # no timer for a run that need not wait
            return
        try:
            await workflow.wait_condition(
                lambda: self._left or not self._held, timeout=self._patience(), timeout_summary="queue timeout"
            )
        except TimeoutError:
            raise QueueTimeout from None

    async def _adopted(self) -> ContainerFacts:
        self._is_adopted = True
        self._pending = workflow.start_activity_method(
            ContainerActivities.run_container,
            self._input(epoch=max(1 + contracts.epoch_before(self._attempt), self._log.epoch)),
            task_queue=contracts.adoption_queue(self._run.host),
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            start_to_close_timeout=self._longest(),
            retry_policy=_ADOPT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"adopt {contracts.container_name(self._run.run_id, self._attempt)}",
        )
        return await self._pending

    def _input(self, epoch: int) -> RunContainerInput:
        run = self._run
        return RunContainerInput(
            run_id=run.run_id,
            attempt=self._attempt,
            timeout_seconds=run.timeout_seconds,
            grace_seconds=run.grace_seconds,
            epoch=epoch,
            takes_last=True,
        )

    def _longest(self) -> timedelta:
        return timedelta(seconds=self._run.timeout_seconds + 600)

    def _patience(self) -> timedelta | None:
        """What is left of the time that the run may wait for its start; None: no end."""
        if self._run.queue_timeout_seconds is None or self._attempt > 1:
            return None
        waited = workflow.now() - workflow.info().start_time
        return max(_LEAST_WAIT, timedelta(seconds=self._run.queue_timeout_seconds) - waited)


def _never_began() -> ContainerFacts:
    return ContainerFacts(started=False, end=None, canceled_before_start=True)


def _is_timeout(error: ActivityError, *types: TimeoutType) -> bool:
    return isinstance(error.cause, ActivityTimeout) and error.cause.type in types


def _goes_on(error: ActivityError) -> bool:
    """Whether there may be a container that nobody follows."""
    if isinstance(error.cause, ApplicationError):
        return error.cause.type == contracts.LET_GO
    return _is_timeout(error, TimeoutType.HEARTBEAT, TimeoutType.START_TO_CLOSE)
