"""Activities of a deployment: build, smoke boot, become current, close; and the rollback's switch.

What a project does wrong is a ``StepResult`` with an error, never an activity failure: trying again would not mend it.
"""

import contextlib
import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine as Database
from sqlmodel import col, select
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.archiving import archive_log
from activities.bridge import TemporalBridge
from activities.closed_network import ClosedNetwork
from activities.log_writer import LogWriter
from activities.pulse import Pulse
from activities.run_spec import open_env, warmth_of
from activities.spares import SETTLE_SECONDS, Spares
from crewship import audit, contents
from crewship.boots import container_limits, network_of
from crewship.build_secrets import NONE, BuildSecrets, open_secrets
from crewship.clock import now, rfc3339
from crewship.config import DeploymentConfig
from crewship.contracts import (
    ActivateInput,
    Actor,
    CloseDeploymentInput,
    DeploymentRef,
    Head,
    RecognizeInput,
    RecognizeResult,
    RollbackInput,
    RollbackResult,
    RunError,
    StepResult,
    deploy_workflow_id,
)
from crewship.db import session as transaction
from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec, Engine
from crewship.errors import CrewshipError, Unavailable
from crewship.events import GENESIS, Draft, LogLines
from crewship.image_builder import BuildFailed, ImageBuilder
from crewship.limits import limits_of
from crewship.models import Deployment, Project
from crewship.projects import rollback_target, switch
from crewship.redaction import Redactor
from crewship.sealing import Sealer
from crewship.settings import Settings
from crewship.source import Limits, files_of
from crewship.storage import ObjectMissing, ObjectStore
from crewship.tail import TailPublisher

logger = logging.getLogger(__name__)

_SMOKE_EPOCH = 1000
"""Epochs of the smoke boot's log writers: above every build attempt's."""
_CANCEL_POLL_SECONDS = 0.5
"""How late a cancel is seen; a query of the workflow each time, and builds are few."""


def _recipe(builder: str, secrets: BuildSecrets) -> str:
    """Digest of how an image is built: by the platform, and with which secrets, for other ones may mean other packages."""
    return builder if not secrets.revision else hashlib.sha256(f"{builder} {secrets.revision}".encode()).hexdigest()


class BuildLog:
    """The build's lines and steps as events of the deployment's log."""

    def __init__(self, writer: LogWriter, redactor: Redactor) -> None:
        self._writer, self._redactor, self._n = writer, redactor, 0

    def line(self, line: str, level: str = "info", stream: str = "stdout") -> None:
        """A line of output."""
        messages = self._redactor.redact(line).split("\n")
        self._write(LogLines(rfc3339(now()), messages, level, stream))

    def step(self, name: str, status: str, duration_ms: int | None = None, cached: bool = False) -> None:
        """A step began (``started``), was done (``completed``) or ``failed``; told as a log line with its facts."""
        data: dict[str, Any] = {"message": name, "level": "info", "stream": "stdout", "step": name, "status": status}
        if duration_ms is not None:
            data |= {"duration_ms": duration_ms, "cached": cached}
        self._write(Draft(rfc3339(now()), "log", data), urgent=True)

    def event(self, type_: str, data: dict[str, Any]) -> None:
        self._write(Draft(rfc3339(now()), type_, data), urgent=True)

    def _write(self, draft: Draft | LogLines, *, urgent: bool = False) -> None:
        self._n += 1
        self._writer.write([draft], self._n, urgent=urgent)


class DeploymentActivities:
    """Bound to one container host's engine and to the records."""

    def __init__(
        self,
        *,
        engine: Engine,
        builder: ImageBuilder,
        store: ObjectStore,
        database: Database,
        tail: TailPublisher,
        bridge: TemporalBridge,
        sealer: Sealer,
        spares: Spares,
        closed: ClosedNetwork,
        settings: Settings,
    ) -> None:
        self._closed = closed
        self._engine, self._builder, self._store, self._database = engine, builder, store, database
        self._tail, self._bridge, self._sealer, self._spares = tail, bridge, sealer, spares
        self._settings = settings

    @activity.defn(no_thread_cancel_exception=True)
    def build_image(self, ref: DeploymentRef) -> StepResult:
        """Fetch and verify the source, build its image.

        Correctness: may be repeated; the image is a function of its inputs, and what a killed attempt left in the engine's
        cache is used or built again. The log says that it was tried again. What the deployment consists of is kept before the
        row says that there is an image.
        """
        attempt = activity.info().attempt

        with transaction(self._database) as session:
            row = session.get(Deployment, ref.deployment_id)
            secrets = open_secrets(session, row.project, self._sealer) if row is not None else NONE

        def build(deployment: Deployment, log: BuildLog, _env: dict[str, str], stop: threading.Event) -> None:
            if attempt == 1:
                log.event("build.started", {"deployment_id": deployment.id, "source_sha256": deployment.source_sha256})
            else:
                log.line("the build was interrupted by the platform and is tried again", "warning", "stderr")
            with tempfile.TemporaryDirectory(prefix="crewship-build-") as folder:
                source = Path(folder) / "source.tar.gz"
                self._fetch(deployment, source)
                with source.open("rb") as stream:
                    files = files_of(stream, Limits.of(self._settings.max_source_bytes))
                contents.keep_files(self._store, deployment.id, files)
                config = DeploymentConfig.model_validate(deployment.config)
                built = self._builder.build(
                    deployment.id,
                    deployment.project,
                    config,
                    source,
                    log,
                    stop,
                    secrets=secrets,
                    locks=self._kept_lock,
                    is_tried=config.build.smoke,
                )
            contents.keep_build(self._store, deployment.id, contents.Build.of(built))
            with transaction(self._database) as session:
                row = session.get(Deployment, deployment.id)
                if row is not None:
                    row.image = built.image_id
                    row.base_image, row.base_python = built.base.image_id, built.base.python
                    row.python, row.recipe = built.python, _recipe(built.recipe, secrets)
                    row.dependency_key = built.dependency_key
                    session.add(row)

        return self._step(ref, epoch=attempt, work=build, first=attempt == 1)

    @activity.defn(no_thread_cancel_exception=True)
    def smoke_boot(self, ref: DeploymentRef) -> StepResult:
        """Boot the real image, hardened and without network, and import the entrypoint.

        Correctness: may be repeated; it changes nothing.
        """

        def smoke(deployment: Deployment, log: BuildLog, env: dict[str, str], stop: threading.Event) -> None:
            config = DeploymentConfig.model_validate(deployment.config)
            if not config.build.smoke:
                log.line("smoke boot skipped ([build] smoke = false)")
                return
            limits = container_limits(limits_of(config, self._settings))
            facts = self._builder.smoke(deployment.id, deployment.image or "", config, limits, env, log, stop)
            log.line(f"entrypoint imported in {facts.import_ms} ms")

        try:
            return self._step(ref, epoch=_SMOKE_EPOCH + activity.info().attempt, work=smoke, first=False)
        finally:
            self._spares.later(self._prepare, ref, after_seconds=SETTLE_SECONDS)

    @activity.defn
    def mark_ready(self, activate: ActivateInput) -> None:
        """Mark the deployment ready and, when it was deployed to be, make it current; both in one transaction.

        Correctness: idempotent; a second time finds it ready and current.
        """
        previous = None
        with transaction(self._database) as session:
            row = session.get(Deployment, activate.deployment_id)
            if row is None:
                raise ApplicationError("the deployment is gone", type="DeploymentGone", non_retryable=True)
            if row.ready_at is None:
                row.status, row.ready_at = "ready", now()
                session.add(row)
                session.flush()
                if row.activate:
                    who = audit.maker_of(session, row.id) or Actor(key_id=activate.actor, name="")
                    previous = switch(session, row.project, row.id, who, kind="deploy").previous
        if row.activate:
            self._spares.later(self._in_use, row, previous, after_seconds=SETTLE_SECONDS)

    @activity.defn
    def close_deployment(self, close: CloseDeploymentInput) -> None:
        """Archive the build log, record how it ended, tell the readers.

        Correctness: idempotent, as ``close_run``. What ``mark_ready`` has committed stays, also when its worker was gone before
        it could say so.
        """
        with Pulse():
            self._close(close)

    def _close(self, close: CloseDeploymentInput) -> None:
        workflow_id = deploy_workflow_id(close.deployment_id)
        last_seq = archive_log(workflow_id, bridge=self._bridge, store=self._store)
        with transaction(self._database) as session:
            row = session.get(Deployment, close.deployment_id)
            if row is not None and row.last_seq is None:
                if close.error is not None and row.ready_at is None:
                    traceback = (row.error or {}).get("traceback")
                    row.status, row.error = "failed", {**close.error.model_dump(), "traceback": traceback}
                elif row.ready_at is None:
                    row.ready_at = datetime.fromisoformat(close.at)
                row.last_seq = last_seq
                session.add(row)
        self._tail.publish(workflow_id, b'{"closed":true}')

    @activity.defn
    def recognize(self, asked: RecognizeInput) -> RecognizeResult:
        """Whether a deployment is what would come of building its source and config once more, and its image is there.

        Correctness: may be repeated; it changes nothing.
        """
        with transaction(self._database) as session:
            row = session.get(Deployment, asked.deployment_id)
            secrets = open_secrets(session, row.project, self._sealer) if row is not None else NONE
        try:
            same = (
                row is not None
                and row.image is not None
                and row.recipe == _recipe(self._builder.recipe, secrets)
                and self._engine.image_exists(row.image)
                and row.base_image == self._builder.base_now(row.base_python)
            )
        except Unavailable as error:
            raise ApplicationError(error.detail, type="Unavailable") from error
        return RecognizeResult(same=same)

    @activity.defn
    def switch_current(self, rollback: RollbackInput) -> RollbackResult:
        """Point the project at another deployment whose image is really there.

        Correctness: idempotent by the call's key, under which the switch is recorded in the transaction that makes it. The target
        is resolved by the API, which asks for it by id: "the previous one" would be another one after the switch.
        """
        try:
            with transaction(self._database) as session:
                target = rollback_target(session, rollback.project, rollback.deployment_id)
            if not target.image or not self._engine.image_exists(target.image):
                return RollbackResult(
                    error_code="image_missing",
                    error_detail=f"The image of deployment {target.id} is not on its host any more",
                    error_hint="deploy that version again: crewship deploy",
                )
            with transaction(self._database) as session:
                done = switch(
                    session,
                    rollback.project,
                    target.id,
                    rollback.by or Actor(key_id=rollback.actor, name=""),
                    kind=rollback.kind,
                    key=rollback.key,
                    with_env=rollback.with_env,
                )
        except Unavailable as error:
            raise ApplicationError(error.detail, type="Unavailable") from error
        except CrewshipError as error:
            return RollbackResult(error_code=error.code, error_detail=error.detail, error_hint=error.hint)
        self._spares.later(self._in_use, target, done.previous)
        return RollbackResult(
            deployment_id=done.deployment_id,
            previous_deployment_id=done.previous,
            changed=done.changed,
            env_version=done.env_version,
            previous_env_version=done.previous_env_version,
        )

    # --- parts --------------------------------------------------------------------------------------------------------

    def _step(
        self,
        ref: DeploymentRef,
        *,
        epoch: int,
        work: Callable[[Deployment, BuildLog, dict[str, str], threading.Event], None],
        first: bool,
    ) -> StepResult:
        """Do ``work`` with the deployment's log open; what the project did wrong becomes the result's error."""
        workflow_id = deploy_workflow_id(ref.deployment_id)
        deployment, env = self._load(ref)
        if first:
            head = Head(next_seq=1, hash=GENESIS, epoch=0, acknowledged={})
        else:
            self._bridge.signal(workflow_id, "fence", epoch)
            head = self._bridge.head(workflow_id)
        stop = threading.Event()
        writer = LogWriter(
            self._bridge,
            self._store,
            self._tail,
            workflow_id=workflow_id,
            source="build",
            epoch=epoch,
            head=head,
        )
        log = BuildLog(writer, Redactor(env))
        error: RunError | None = None
        try:
            with Pulse(let_go=stop.set):
                if head.cancel_requested:
                    raise BuildFailed("canceled", "The build was canceled", None)
                watch = threading.Thread(target=self._watch_cancel, args=(workflow_id, stop), daemon=True)
                watch.start()
                work(deployment, log, env, stop)
        except BuildFailed as failed:
            if activity.is_worker_shutdown():
                raise ApplicationError("the worker stops; the build is done again", type="WorkerStopping") from None
            redact = Redactor(env).redact
            error = RunError(code=failed.code, message=redact(failed.message), hint=failed.hint)
            if failed.traceback is not None:
                self._keep_traceback(ref, redact(failed.traceback))
        except Unavailable as unavailable:
            raise ApplicationError(unavailable.detail, type="Unavailable") from unavailable
        finally:
            stop.set()
            writer.close()
        return StepResult(error=error)

    def _kept_lock(self, dependency_key: str) -> str | None:
        """What the last deployment with the same dependencies had installed, whatever became of its image."""
        with transaction(self._database) as session:
            same = select(Deployment.id).where(Deployment.dependency_key == dependency_key)
            last = session.exec(same.order_by(col(Deployment.created_at).desc()).limit(1)).first()
        build = None if last is None else contents.read_build(self._store, last)
        return None if build is None else build.lock

    def _keep_traceback(self, ref: DeploymentRef, traceback: str) -> None:
        """The crew's own; it goes into the row only, as a run's does."""
        with transaction(self._database) as session:
            row = session.get(Deployment, ref.deployment_id)
            if row is not None:
                row.error = {"traceback": traceback}
                session.add(row)

    def _watch_cancel(self, workflow_id: str, stop: threading.Event) -> None:
        """Stop the work once the workflow was asked to cancel."""
        while not stop.wait(_CANCEL_POLL_SECONDS):
            try:
                if self._bridge.head(workflow_id).cancel_requested:
                    stop.set()
            except CrewshipError as error:
                logger.info("%s: %s", workflow_id, error.detail)

    def _load(self, ref: DeploymentRef) -> tuple[Deployment, dict[str, str]]:
        with transaction(self._database) as session:
            row = session.get(Deployment, ref.deployment_id)
            project = session.get(Project, row.project) if row is not None else None
            if row is None or project is None:
                raise ApplicationError("the deployment is gone", type="DeploymentGone", non_retryable=True)
            if row.status == "pending":
                row.status = "building"
                session.add(row)
            return row, open_env(session, project.name, project.env_version, self._sealer)

    def _fetch(self, deployment: Deployment, target: Path) -> None:
        digest = hashlib.sha256()
        with target.open("wb") as file:
            with contextlib.suppress(ObjectMissing):  # then what was stored is not there
                for chunk in self._store.open(deployment.source_key):
                    digest.update(chunk)
                    file.write(chunk)
        if digest.hexdigest() != deployment.source_sha256:
            raise BuildFailed(
                "infrastructure", "The stored source is not what was uploaded", "deploy again: crewship deploy"
            )

    def _prepare(self, ref: DeploymentRef) -> None:
        """Have a container ready for the next build with the same dependencies, which mostly follows."""
        with transaction(self._database) as session:
            row = session.get(Deployment, ref.deployment_id)
        if row is not None and row.dependency_key:
            self._builder.prepare(row.dependency_key)

    def _in_use(self, deployment: Deployment, instead_of: str | None) -> None:
        """Have spares for the deployment that is current now; the one before it needs none."""
        if instead_of is not None and instead_of != deployment.id:
            self._spares.discard(instead_of)
        self._replenish(deployment)

    def _replenish(self, deployment: Deployment) -> None:
        config = DeploymentConfig.model_validate(deployment.config)
        limits = container_limits(limits_of(config, self._settings))
        with transaction(self._database) as session:
            project = session.get_one(Project, deployment.project)
            env = open_env(session, project.name, project.env_version, self._sealer)
        self._spares.replenish(
            ContainerSpec(
                name="",
                image=deployment.image or "",
                limits=limits,
                kind="run",
                network=network_of(config, self._settings),
                allow=tuple(config.network.allow),
                labels={LABEL_DEPLOYMENT: deployment.id},
            ),
            warmth_of(config, env, project.env_version, self._settings, self._closed.environment),
        )

    def warm_up(self) -> None:
        """Spares for the current deployments of this host that ask for warm ones; called when a worker begins."""
        with transaction(self._database) as session:
            current = session.exec(
                select(Deployment)
                .join(Project, col(Project.current_deployment_id) == col(Deployment.id))
                .where(Deployment.host == self._settings.host)
            ).all()
        for deployment in current:
            if DeploymentConfig.model_validate(deployment.config).run.warm:
                self._replenish(deployment)
