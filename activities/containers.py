"""Activities that deal with a run's container, on the host that has it.

``run_container`` is the long one: it makes sure that the container is there, follows it to its end, and reports facts. A
retry (the worker died, or was replaced) adopts the container by its name: it attaches again, asks the supervisor for what is not
durable yet, and goes on. The crew's code is started once: ``launched_at`` is written before the container is.

A run has one attempt, or as many as ``[run] retries`` allows; each is a container, and a ``run_container``, of its own.
"""

import contextlib
import logging
import math
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine as Database
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attempts import Attempt, Attempts
from activities.bridge import TemporalBridge
from activities.closed_network import ClosedNetwork
from activities.collect import Announcer, collect_artifacts
from activities.denials import Denials
from activities.follow import Follower, LetGo
from activities.log_writer import Abandoned, LogWriter, WorkflowGone
from activities.network import Network
from activities.outside import Outside
from activities.pulse import Pulse
from activities.recorder import Recorder
from activities.removals import Removals
from activities.run_records import LaunchedElsewhere, RunRecords
from activities.run_spec import RunSpec, is_restricted, load_run
from activities.slots import Slots
from activities.spares import Spare, Spares
from activities.stopping import Stopping
from activities.stops import Stops
from crewship.clock import now_ms
from crewship.contracts import (
    EPOCHS,
    LET_GO,
    Batch,
    ContainerFacts,
    EndFacts,
    FinishInput,
    FinishResult,
    Head,
    RunContainerInput,
    StopInput,
    StopResult,
    container_name,
    epoch_before,
    run_workflow_id,
)
from crewship.db import session as transaction
from crewship.engine import ContainerMissing, ContainerState, Engine, ImageMissing
from crewship.errors import Unavailable
from crewship.events import GENESIS
from crewship.models import Run
from crewship.redaction import Redactor
from crewship.sealing import Sealer
from crewship.settings import Settings
from crewship.storage import ObjectStore
from crewship.tail import TailPublisher

logger = logging.getLogger(__name__)

DESCRIBED_SECONDS = 5.0
"""How long a run's end waits for its isolation to be recorded; it takes milliseconds, and was begun when the run was."""
_SETTLE_SECONDS = 0.5
"""In which a container's interpreters have come up."""


def _epoch(attempt: int, *, after: int = 0, announces: bool = False) -> int:
    """The fence of a log writer; grows from each of an attempt's to the next: its followers' first, then its announcers'."""
    base = max(after, epoch_before(attempt))
    return base + (EPOCHS // 2 if announces else 0) + activity.info().attempt


@dataclass
class _Ending:
    """What the platform itself did to the container."""

    timed_out: bool = False
    log_limit: bool = False
    sigterm_at_ms: int | None = None
    sigkill_at_ms: int | None = None


class ContainerActivities:
    """Bound to one container host's engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: ObjectStore,
        database: Database,
        tail: TailPublisher,
        bridge: TemporalBridge,
        sealer: Sealer,
        spares: Spares,
        slots: Slots,
        removals: Removals,
        network: Network,
        closed: ClosedNetwork,
        denials: Denials,
        settings: Settings,
    ) -> None:
        self._network, self._closed, self._denials = network, closed, denials
        self._engine, self._store, self._database, self._tail = engine, store, database, tail
        self._bridge, self._sealer, self._spares, self._settings = bridge, sealer, spares, settings
        self._slots, self._removals = slots, removals
        self._stops = Stops()
        self._attempts = Attempts()

    @activity.defn(no_thread_cancel_exception=True)
    def run_container(self, run: RunContainerInput) -> ContainerFacts:
        """Run the crew in its container and follow it to the end; facts, never a verdict.

        Correctness: may run any number of times. The first finds no container and makes one; every later one adopts what is
        there: not started → starts it, running → follows it from the last durable frame, ended → reports it. A container
        that was launched and is gone is reported as gone, never made again.
        """
        stop = self._stops.watch(run.run_id)
        attempt = self._attempts.begin(run.run_id)
        name = container_name(run.run_id, run.attempt)
        try:
            with (
                Pulse(let_go=attempt.let_go),
                self._slots.hold(
                    name,
                    adopted=run.epoch > 0,
                    give_up=lambda: stop.is_set() or attempt.is_let_go,
                    admits=self._closed.admits_now if is_restricted(self._database, run.run_id) else None,
                ),
            ):
                if attempt.is_let_go:
                    raise Unavailable("The worker stops")
                attempt.succeed()
                return self._timed(run, self._run(run, stop, attempt))
        except (LetGo, Abandoned, LaunchedElsewhere):
            raise ApplicationError("the container goes on without this attempt", type=LET_GO) from None
        except Unavailable as error:
            raise ApplicationError(error.detail, type=LET_GO if attempt.launched else "Unavailable") from error
        except WorkflowGone:
            self._engine.remove(container_name(run.run_id, run.attempt))
            raise ApplicationError("the run's workflow has ended", type="WorkflowGone", non_retryable=True) from None
        except ApplicationError:
            raise
        except Exception as error:  # whatever it is: behind the queue nobody would follow the container
            if not attempt.launched:
                raise
            raise ApplicationError(f"{type(error).__name__}: {error}", type=LET_GO) from error
        finally:
            self._attempts.end(run.run_id, attempt)
            self._stops.forget(run.run_id)

    @activity.defn
    def stop_container(self, stop: StopInput) -> StopResult:
        """SIGTERM, grace, SIGKILL, until the engine says that it ended.

        Correctness: idempotent; a container that is not there or has ended is ``found=False`` and not touched, as is one whose
        crew has told of its success whole: what is left of it goes when the run is closed. What was sent is told with the
        heartbeats, so that an attempt after one whose worker was killed knows of it.
        """
        if not self._stops.request(stop.run_id):  # its supervisor alone is left, and goes when the run is closed
            return StopResult(found=False)
        name = container_name(stop.run_id, stop.attempt)
        stopping = Stopping(self._engine, name, lambda: self._attempts.is_at_work(stop.run_id))
        try:
            return stopping.stop(stop.grace_seconds, force=stop.force)
        except Unavailable as error:
            raise ApplicationError(error.detail, type="Unavailable") from error

    @activity.defn(no_thread_cancel_exception=True)
    def finish_container(self, finish: FinishInput) -> FinishResult:
        """Collect the artifacts, unless another attempt follows, then remove the container and its volume.

        Correctness: idempotent, and two at the same time do no harm; objects are written by name, the rows once, the
        container is removed last, and when it is gone already the rows tell what was collected.
        """
        name = container_name(finish.run_id, finish.attempt)
        try:
            with Pulse():
                if finish.collect:
                    self._collect(finish.run_id, finish.attempt, name)
                return self._finish(finish.run_id, name)
        except Unavailable as error:
            raise ApplicationError(error.detail, type="Unavailable") from error

    def _collect(self, run_id: str, attempt: int, name: str) -> None:
        with contextlib.suppress(ContainerMissing):
            self._engine.inspect(name)
            collect_artifacts(
                run_id,
                name,
                engine=self._engine,
                store=self._store,
                database=self._database,
                limit_bytes=self._settings.artifacts_limit_bytes,
                announce=Announcer(
                    self._bridge, self._store, self._tail, run_id, epoch=_epoch(attempt, announces=True)
                ),
            )

    def _finish(self, run_id: str, name: str) -> FinishResult:
        self._engine.remove(name)
        gone_at_ms = now_ms()
        with transaction(self._database) as session:
            row = session.get(Run, run_id)
        return FinishResult(
            artifact_count=row.artifact_count if row is not None else 0,
            gone_at_ms=gone_at_ms,
            limit_exceeded=row is not None and row.collected == "some",
        )

    # --- run_container's parts ----------------------------------------------------------------------------------------

    def _run(self, run: RunContainerInput, stop: threading.Event, attempt: Attempt) -> ContainerFacts:
        workflow_id = run_workflow_id(run.run_id)
        epoch = _epoch(run.attempt, after=run.epoch)
        try:
            spec = load_run(self._database, run.run_id, run.attempt, self._sealer, self._settings)
        except LookupError:
            raise ApplicationError("the run is gone", type="RunGone", non_retryable=True) from None
        if epoch == 1:
            head = Head(next_seq=1, hash=GENESIS, epoch=0, acknowledged={})
        else:
            self._bridge.signal(workflow_id, "fence", epoch)
            head = self._bridge.head(workflow_id)
        asked: dict[str, Any] = {"limits": spec.limits, "retries": spec.config.run.retries or 0}
        name = container_name(run.run_id, run.attempt)
        state = self._find(name) if epoch > 1 else None
        if state is None:
            if head.end is not None or spec.launched:
                return self._gone(run, head, asked)
            if stop.is_set() or head.cancel_requested:
                return ContainerFacts(started=False, end=None, canceled_before_start=True, **asked)
            spare = self._spares.take(spec.container(name), spec.env_version)
            try:
                container = spare.container if spare is not None else self._engine.create(spec.container(name))
            except ImageMissing:
                return ContainerFacts(started=False, end=None, image_missing=True, **asked)
        else:
            container, spare = state.id, None
        engine_started_at = self._engine.started_at() if state is not None and state.status == "exited" else None
        if state is not None and state.status == "exited":
            logger.warning("%s: found ended, with %s", name, "its end" if head.end else "no end frame")
            facts = self._gone(run, head, asked)
            return facts.model_copy(
                update={
                    "exit_code": state.exit_code,
                    "oom_killed": state.oom_killed,
                    "engine_restarted": head.end is None and (engine_started_at or "") > state.started_at,
                }
            )
        return self._follow(run, spec, head, container, spare, state, stop, epoch, attempt).model_copy(update=asked)

    def _timed(self, run: RunContainerInput, facts: ContainerFacts) -> ContainerFacts:
        """With the time limit, where an attempt before this one ended the crew at it and was killed before it could say so."""
        end = facts.end
        if end is None or end.sigterm_at_ms is None or facts.timed_out:
            return facts
        launched_at_ms = RunRecords(self._database, run.run_id, run.attempt).launched_at_ms()
        if launched_at_ms is None or end.sigterm_at_ms < launched_at_ms + run.timeout_seconds * 1000:
            return facts
        return facts.model_copy(update={"timed_out": True})

    def _find(self, name: str) -> ContainerState | None:
        try:
            return self._engine.inspect(name)
        except ContainerMissing:
            return None

    def _gone(self, run: RunContainerInput, head: Head, asked: dict[str, Any]) -> ContainerFacts:
        """Facts of a container that can tell nothing any more: what the log and the row have."""
        started_at_ms = RunRecords(self._database, run.run_id, run.attempt).started_at_ms()
        return ContainerFacts(
            started=started_at_ms is not None,
            end=head.end,
            started_at_ms=started_at_ms,
            ended_at_ms=head.end.result_at_ms if head.end else None,
            **asked,
        )

    def _follow(
        self,
        run: RunContainerInput,
        spec: RunSpec,
        head: Head,
        container: str,
        spare: Spare | None,
        state: ContainerState | None,
        stop: threading.Event,
        epoch: int,
        attempt: Attempt,
    ) -> ContainerFacts:
        source = f"container/{run.attempt}"
        made = spec.container("")
        if state is None or state.status != "exited":
            # Before the start, and again by each that adopts: the proxy may be another one by then.
            self._closed.permit(container, made, is_adopted=state is not None and state.status == "running")
        proxy = self._closed.environment() if made.allow else {}
        records = RunRecords(self._database, run.run_id, run.attempt)
        adopted = state is not None and state.status == "running"
        nonces = self._sealer.nonces(container)
        follower = Follower(
            engine=self._engine,
            container=container,
            nonces=nonces,
            deployment_id=spec.deployment_id,
            redactor=Redactor(spec.env),
            records=records,
            head=head,
            source=source,
            epoch=epoch,
            log_limit_bytes=spec.limits.log.value,
            is_retry=run.attempt > 1,
            is_closed=spec.network is None,
            is_started=adopted and records.was_started(),
        )
        writer = LogWriter(
            self._bridge,
            self._store,
            self._tail,
            workflow_id=run_workflow_id(run.run_id),
            source=source,
            epoch=epoch,
            head=head,
            on_durable=follower.acknowledge,
        )
        outside = Outside(
            self._engine,
            self._network,
            self._denials,
            container,
            lambda: self._closed.facts(made.allow) if made.allow else self._network.facts(spec.network),
            lambda denied: follower.tell(denied, writer),
        )
        follower.isolation_besides = outside.facts
        ending = _Ending()
        attempt.launched = True
        recorder = Recorder(self._engine, self._store, records, run.run_id, container, run.attempt)
        follower.on_end = recorder.look
        if not adopted:  # who adopts does not know what the worker before it was asked to do
            follower.is_enough = lambda end: (
                run.takes_last
                and bool(end.ok)
                and end.artifacts == 0
                and self._removals.has_room()
                and self._stops.settle(run.run_id)
            )
        attempt.on_let_go(follower.let_go, writer.abandon)
        last: Batch | None = None
        try:
            launch = None if spec.launched else records.launch()
            if adopted:
                # The last worker may have died before, or while, it sent these; the supervisor takes them once.
                follower.attach()
                _durable(launch)
                follower.send(b"\n" + spec.boot(nonces[0], proxy))
                follower.resume()
            else:
                follower.attach()
                if stop.is_set() or head.cancel_requested:
                    return ContainerFacts(started=False, end=None, canceled_before_start=True)
                # Before the start: the supervisor finds it when it first looks. One that is through phase 1 told of it already.
                _durable(launch)
                follower.send(spec.boot(nonces[0], proxy))
                if spare is not None:
                    follower.resume()
                self._engine.start(container)
                self._replenish(spec, after_seconds=0 if spare is not None else _SETTLE_SECONDS)
            outside.start()
            deadline = time.monotonic() + run.timeout_seconds - (records.running_seconds() if adopted else 0)
            watchdog = threading.Thread(
                target=self._watch, args=(container, run, deadline, ending, follower), name="watchdog", daemon=True
            )
            watchdog.start()
            recorder.start()
            follower.follow(writer)
            recorder.stop()
            follower.ended.set()
            watchdog.join()
            if not follower.left_early:
                writer.close()
            if follower.described is not None:
                wait_for([follower.described], DESCRIBED_SECONDS)
            # A crew that succeeded and told so: there is nothing that the engine could add.
            after = None if follower.end is not None and follower.end.ok else self._find(container)
            recorder.join()
            if follower.left_early:
                last = writer.last()
        finally:
            outside.stop()
            recorder.stop()
            follower.ended.set()
            if last is None:
                follower.close()
            writer.abandon()
        self._closed.forget(container)
        end: EndFacts | None = follower.end
        return ContainerFacts(
            started=follower.started_at_ms is not None or records.was_started(),
            end=end,
            exit_code=after.exit_code if after else None,
            oom_killed=after.oom_killed if after else False,
            timed_out=ending.timed_out,
            log_limit=follower.log_limit_reached,
            engine_restarted=end is None and after is not None and self._engine.started_at() > after.started_at,
            sigterm_at_ms=ending.sigterm_at_ms,
            sigkill_at_ms=ending.sigkill_at_ms,
            started_at_ms=follower.started_at_ms or records.started_at_ms(),
            ended_at_ms=follower.ended_at_ms or (end.result_at_ms if end is not None else None) or now_ms(),
            gone_at_ms=self._removed(run.run_id, container, follower, last) if end and end.artifacts == 0 else None,
            last=last,
        )

    def _removed(self, run_id: str, container: str, follower: Follower, last: Batch | None) -> int | None:
        """Remove a container that has nothing to collect: no other activity has to be waited for.

        Args:
            last: What is durable with the activity's result; the container stays until it is, and the run closed.
        """
        if last is not None:
            self._removals.remove_closed(run_id, container, lambda: self._dismiss(run_id, follower))
            return now_ms()
        self._stops.dismissed(run_id)
        if follower.left_early:
            self._removals.remove(container)
            return now_ms()
        try:
            self._engine.remove(container)
        except Unavailable:
            return None
        return now_ms()

    def _dismiss(self, run_id: str, follower: Follower) -> None:
        self._stops.dismissed(run_id)
        follower.dismiss()

    def _replenish(self, spec: RunSpec, after_seconds: float) -> None:
        """Have a spare made; not while the run that had none comes up, which it would slow down."""
        warmth = spec.warmth(self._settings, self._closed.environment)
        self._spares.replenish(spec.container(""), warmth, after_seconds)

    def _watch(
        self, container: str, run: RunContainerInput, deadline: float, ending: _Ending, follower: Follower
    ) -> None:
        """End the container at its deadline or log limit; SIGTERM first, SIGKILL after the grace. See that its end is noticed."""
        stopped = False
        while not follower.ended.wait(max(0.0, min(1.0, deadline - time.monotonic()))):
            follower.look()
            timed_out = time.monotonic() >= deadline
            if stopped or not (timed_out or follower.log_limit_reached):
                continue
            if not self._stops.request(run.run_id):  # it was quicker
                return
            ending.timed_out = timed_out
            ending.sigterm_at_ms = now_ms()
            try:
                self._engine.kill(container, "SIGTERM")
                if not self._engine.wait(container, run.grace_seconds):
                    ending.sigkill_at_ms = now_ms()
                    self._engine.kill(container, "SIGKILL")
            except (Unavailable, ContainerMissing) as error:
                logger.warning("%s: could not be ended: %s", container, error)
                deadline = time.monotonic() + 1
                continue
            stopped, deadline = True, math.inf


def _durable(launch: "Future[None] | None") -> None:
    """Wait until the row says that a container of the run was started: before the crew's code can run."""
    if launch is not None:
        launch.result()
