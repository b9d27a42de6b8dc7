"""Runs: start, list, show, cancel."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints
from sqlmodel import Session, col, delete, exists, select, tuple_, update
from sqlmodel.sql.expression import SelectOfScalar

from api.auth import Caller, InvokeCaller, ReadCaller
from api.idempotency import IdempotencyKey, claim, digest, release
from api.lookups import get_deployment, get_project, get_run, require_live
from api.pages import CursorQuery, LimitQuery, cut, decode_moment, encode_cursor
from api.state import Platform, PlatformDep
from api.values import check_json
from api.waiting import WaitingRead, waiting_for
from api.wire import Body, ErrorRead, Events, Moment, Read, Time
from crewship import audit
from crewship.admission import ACTIVE, admit, run_input
from crewship.clock import duration_ms, now, rfc3339
from crewship.config import DeploymentConfig
from crewship.contracts import RunInput, RunStatus, run_workflow_id
from crewship.errors import Conflict, InvalidRequest, NotFound, TooLarge, Unavailable, Unprocessable
from crewship.hosts import require_engine
from crewship.ids import new_id
from crewship.models import Deployment, Run, RunLabel
from crewship.projects import require_image
from crewship.settings import Settings

router = APIRouter(prefix="/runs", tags=["runs"])

_MAX_LABELS = 32
_MAX_WAIT_SECONDS = 60
_MAX_CANCELS = 1000
"""Runs of one bulk cancel: some seconds of work."""
_CANCELS_AT_ONCE = 16

Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._/-]+$")]
LabelValue = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]


class RunCreate(Body):
    """Of ``project`` (its current deployment) and ``deployment_id`` at least one."""

    project: str | None = None
    deployment_id: str | None = None
    input: dict[str, Any] = Field(default_factory=dict)
    labels: dict[Label, LabelValue] = Field(default_factory=dict, max_length=_MAX_LABELS)
    timeout_seconds: int | None = Field(default=None, ge=1)
    priority: int = Field(default=3, ge=1, le=5)
    """1, the most urgent, to 5: who gets the next free place."""


class CancelCreate(Body):
    force: bool = False
    """Without grace."""


class RunsCancelCreate(CancelCreate):
    """Which active runs: those that fit everything that is said, of which there must be something."""

    project: str | None = None
    deployment_id: str | None = None
    status: Literal["pending", "running"] | None = None
    labels: dict[Label, LabelValue] = Field(default_factory=dict, max_length=_MAX_LABELS)
    run_ids: list[str] | None = Field(default=None, min_length=1, max_length=_MAX_CANCELS)


class RunsCancelRead(Read):
    """What a bulk cancel did; the same call again finds nothing to do, except with ``force``."""

    requested: int
    """How many runs were asked to end."""
    run_ids: list[str]
    """Those; each has ended when its own status says so."""
    more: bool
    """Whether there are more than one call takes: call again."""


class CancelRead(Read):
    requested_at: str | None
    sigterm_at: str | None = None
    sigkill_at: str | None = None
    gone_at: str | None = None


class RunRead(Read):
    id: str
    project: str
    deployment_id: str
    status: RunStatus
    input: dict[str, Any]
    output: Any
    error: ErrorRead | None
    labels: dict[str, str]
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    duration_ms: int | None
    timeout_seconds: int
    priority: int
    waiting_for: WaitingRead | None
    cancel: CancelRead | None
    usage: dict[str, Any]
    isolation: dict[str, Any]
    events: Events
    artifact_count: int

    @classmethod
    def of(cls, row: Run, waiting: WaitingRead | None) -> "RunRead":
        duration = row.duration_ms
        if duration is None and row.started_at is not None and row.completed_at is not None:
            duration = duration_ms(row.started_at, row.completed_at)
        return cls(
            id=row.id,
            project=row.project,
            deployment_id=row.deployment_id,
            status=row.status,
            input=row.input,
            output=row.output,
            error=ErrorRead(**row.error) if row.error else None,
            labels=row.labels,
            created_at=row.created_at,
            started_at=row.started_at,
            completed_at=row.completed_at,
            duration_ms=duration,
            timeout_seconds=row.timeout_seconds,
            priority=row.priority,
            waiting_for=waiting,
            cancel=_cancel(row),
            usage=row.usage,
            isolation=row.isolation,
            events=Events(last_seq=row.last_seq),
            artifact_count=row.artifact_count,
        )


class RunPage(Read):
    runs: list[RunRead]
    next_cursor: str | None


def _cancel(row: Run) -> CancelRead | None:
    """As recorded at the end; while a cancel is under way, when it was asked for."""
    if row.cancel:
        return CancelRead(**row.cancel)
    if row.cancel_requested_at is not None and row.status in ACTIVE:
        return CancelRead(requested_at=rfc3339(row.cancel_requested_at))
    return None


def read_run(session: Session, row: Run, settings: Settings) -> RunRead:
    return RunRead.of(row, waiting_for(session, [row], settings.run_capacity).get(row.id))


@router.post("", status_code=202, responses={200: {"model": RunRead, "description": "The same call came before"}})
async def create_run(
    body: RunCreate, platform: PlatformDep, caller: InvokeCaller, response: Response, key: IdempotencyKey = None
) -> RunRead:
    """Start a run of a deployment, or of a project's current one."""
    settings = platform.settings
    _check_body(body, settings)
    content = body.model_dump()
    await platform.dispatch.check()
    run_id, scope = new_id("run"), f"runs:{caller.key_id}"

    def record(session: Session) -> tuple[RunRead, RunInput | None, list[RunInput]]:
        if (taken := claim(session, scope, key, digest(content), run_id)) != run_id:
            return read_run(session, get_run(session, caller, taken), settings), None, []
        deployment = _deployment(session, caller, body)
        config = DeploymentConfig.model_validate(deployment.config)
        require_engine(session, deployment.host, restricted=config.network.mode == "allow")
        project = require_live(get_project(session, caller, deployment.project))
        row = Run(
            id=run_id,
            project=project.name,
            deployment_id=deployment.id,
            input=body.input,
            labels=body.labels,
            timeout_seconds=_timeout(body, config, settings),
            priority=body.priority,
            queue_timeout_seconds=config.run.queue_timeout_seconds or settings.queue_timeout_seconds,
            concurrency=config.run.concurrency or settings.project_concurrency or None,
            env_version=project.env_version,
            created_by=caller.key_id,
        )
        session.add(row)
        session.flush()
        session.add_all(RunLabel(run_id=run_id, key=name, value=value) for name, value in body.labels.items())
        audit.record(
            session,
            caller.actor,
            "run.created",
            project=row.project,
            target=run_id,
            after={"deployment_id": row.deployment_id, "env_version": row.env_version, "priority": row.priority},
        )
        admitted = [] if row.concurrency is None else admit(session, row.project)
        others = [
            run_input(other, session.get_one(Deployment, other.deployment_id).host, settings)
            for other in admitted
            if other.id != run_id
        ]
        return read_run(session, row, settings), run_input(row, deployment.host, settings), others

    run, start, others = await platform.transact(record)
    response.headers["Location"] = f"/v1/runs/{run.id}"
    if start is None:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
        return run
    try:
        await platform.dispatch.start_run(start)
    except Unavailable:

        def forget(session: Session) -> None:
            session.exec(delete(RunLabel).where(col(RunLabel.run_id) == run_id))
            session.exec(delete(Run).where(col(Run.id) == run_id))
            release(session, scope, key)
            audit.record(session, caller.actor, "run.withdrawn", project=start.project, target=run_id)

        await platform.transact(forget)
        raise
    for other in others:  # the limit was raised; upkeep tells those that are not told here
        with contextlib.suppress(Unavailable):
            await platform.dispatch.admit_run(other)
    return run


def _check_body(body: RunCreate, settings: Settings) -> None:
    if body.project is None and body.deployment_id is None:
        raise Unprocessable(
            "/project: is missing",
            errors=[{"pointer": "/project", "detail": "is missing, and so is deployment_id"}],
            hint="name a project (its current deployment is run) or a deployment_id",
        )
    check_json(body.input, "/input")
    size = len(orjson.dumps(body.input))
    if size > settings.max_input_bytes:
        raise TooLarge(
            f"The input has {size:,} bytes; {settings.max_input_bytes:,} are allowed",
            hint="put large data where the crew can fetch it, and pass the address",
        )
    if body.timeout_seconds is not None and body.timeout_seconds > settings.max_timeout_seconds:
        detail = f"must be at most {settings.max_timeout_seconds}"
        raise Unprocessable(
            f"/timeout_seconds: {detail}",
            errors=[{"pointer": "/timeout_seconds", "detail": detail}],
            hint="CREWSHIP_MAX_TIMEOUT_SECONDS on the server sets the most that a run may take",
        )


def _deployment(session: Session, caller: Caller, body: RunCreate) -> Deployment:
    if body.deployment_id is not None:
        deployment = get_deployment(session, caller, body.deployment_id)
        if body.project is not None and deployment.project != body.project:
            raise InvalidRequest(
                f"Deployment {deployment.id} is not of project {body.project!r} but of {deployment.project!r}",
                hint="name one of the two",
            )
    else:
        project = require_live(get_project(session, caller, str(body.project)))
        if project.current_deployment_id is None:
            raise Conflict(
                f"Project {project.name!r} has no current deployment",
                code="no_current_deployment",
                hint="crewship deploy makes one",
            )
        deployment = get_deployment(session, caller, project.current_deployment_id)
    if deployment.status != "ready":
        raise Conflict(
            f"Deployment {deployment.id} is {deployment.status}, not ready",
            code="deployment_not_ready",
            hint="crewship deployments list shows which are ready",
        )
    require_image(deployment)
    return deployment


def _timeout(body: RunCreate, config: DeploymentConfig, settings: Settings) -> int:
    wanted = body.timeout_seconds or config.run.timeout_seconds or settings.default_timeout_seconds
    return min(wanted, settings.max_timeout_seconds)


@router.get("")
async def list_runs(
    platform: PlatformDep,
    caller: ReadCaller,
    project: str | None = None,
    deployment_id: str | None = None,
    status: RunStatus | None = None,
    label: Annotated[list[str] | None, Query(description="`key:value`; repeated: all of them")] = None,
    since: Annotated[Moment | None, Query(description="Created then or later")] = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> RunPage:
    """List runs, newest first."""
    query = _newest_first(caller, project, deployment_id, map(_label, label or [])).limit(limit + 1)
    if status is not None:
        query = query.where(Run.status == status)
    if since is not None:
        query = query.where(Run.created_at >= since)
    if cursor is not None:
        query = query.where(tuple_(col(Run.created_at), col(Run.id)) < decode_moment(cursor))

    def read(session: Session) -> tuple[list[RunRead], str | None]:
        _require_known(session, caller, project, deployment_id)
        rows, more = cut(session.exec(query).all(), limit)
        waiting = waiting_for(session, rows, platform.settings.run_capacity)
        last = rows[-1] if more else None
        return (
            [RunRead.of(row, waiting.get(row.id)) for row in rows],
            encode_cursor(last.created_at.isoformat(), last.id) if last is not None else None,
        )

    runs, next_cursor = await platform.transact(read)
    return RunPage(runs=runs, next_cursor=next_cursor)


def _label(pair: str) -> tuple[str, str]:
    name, colon, value = pair.partition(":")
    if not colon:
        raise InvalidRequest(f"{pair!r} is not a label", hint="write label=key:value")
    return name, value


def _newest_first(
    caller: Caller, project: str | None, deployment_id: str | None, labels: Iterable[tuple[str, str]]
) -> SelectOfScalar[Run]:
    """Runs that the caller sees and that fit, before any limit."""
    query = select(Run).order_by(col(Run.created_at).desc(), col(Run.id).desc())
    if caller.project is not None:
        query = query.where(Run.project == caller.project)
    if project is not None:
        query = query.where(Run.project == project)
    if deployment_id is not None:
        query = query.where(Run.deployment_id == deployment_id)
    for name, value in labels:
        query = query.where(
            exists().where(col(RunLabel.run_id) == Run.id, col(RunLabel.key) == name, col(RunLabel.value) == value)
        )
    return query


def _require_known(session: Session, caller: Caller, project: str | None, deployment_id: str | None) -> None:
    """Raise ``NotFound`` for a filter's name that is mistyped: it must not look like one that has no runs."""
    if project is not None:
        get_project(session, caller, project)
    if deployment_id is not None:
        get_deployment(session, caller, deployment_id)


@router.get("/{run_id}")
async def get_run_by_id(
    run_id: str,
    platform: PlatformDep,
    caller: ReadCaller,
    wait: Annotated[float, Query(ge=0, le=_MAX_WAIT_SECONDS, description="Seconds to hold until it has ended")] = 0,
) -> RunRead:
    """Get a run; with `wait`, hold the answer until it has ended."""

    def read(session: Session) -> RunRead:
        return read_run(session, get_run(session, caller, run_id), platform.settings)

    run = await platform.transact(read)
    if wait == 0 or run.status not in ACTIVE:
        return run
    try:
        async with asyncio.timeout(wait), platform.feeds.open(run_workflow_id(run_id), reading=False) as feed:
            await feed.closed()
    except TimeoutError:
        pass
    return await platform.transact(read)


@router.post("/{run_id}/cancel", status_code=202, responses={200: {"model": RunRead, "description": "It had ended"}})
async def cancel_run(
    run_id: str, platform: PlatformDep, caller: InvokeCaller, response: Response, body: CancelCreate | None = None
) -> RunRead:
    """Cancel a run; one that has ended stays as it is."""
    force = body is not None and body.force

    def read(session: Session) -> tuple[RunRead, RunInput]:
        row = get_run(session, caller, run_id)
        start = run_input(row, session.get_one(Deployment, row.deployment_id).host, platform.settings)
        return read_run(session, row, platform.settings), start

    def ask(session: Session) -> tuple[RunRead, RunInput]:
        run, start = read(session)
        if run.status in ACTIVE and (run.cancel is None or force):
            audit.record(
                session,
                caller.actor,
                "run.canceled",
                project=run.project,
                target=run_id,
                before={"status": run.status},
                after={"force": force},
            )
        return run, start

    run, start = await platform.transact(ask)
    if run.status not in ACTIVE:
        response.status_code = 200
        return run
    if not await _signal(platform, start, force):
        run, _ = await platform.transact(read)
        response.status_code = 200 if run.status not in ACTIVE else 202
        return run

    def note(session: Session) -> RunRead:
        row = get_run(session, caller, run_id)
        if row.cancel_requested_at is None and row.status in ACTIVE:
            row.cancel_requested_at = now()
            session.add(row)
        return read_run(session, row, platform.settings)

    return await platform.transact(note)


@router.post("/cancel", status_code=202)
async def cancel_runs(body: RunsCancelCreate, platform: PlatformDep, caller: InvokeCaller) -> RunsCancelRead:
    """Cancel all active runs that fit the filters; a run that has ended meanwhile stays as it is."""
    if not body.model_dump(exclude={"force"}, exclude_defaults=True):
        detail = "needs at least one of project, deployment_id, status, labels and run_ids"
        raise Unprocessable(
            f"The body {detail}",
            errors=[{"pointer": "", "detail": detail}],
            hint='{"project": "NAME"} cancels all active runs of a project',
        )
    query = _newest_first(caller, body.project, body.deployment_id, body.labels.items())
    query = query.where(col(Run.status).in_(ACTIVE if body.status is None else (body.status,)))
    if body.run_ids is not None:
        query = query.where(col(Run.id).in_(body.run_ids))
    if not body.force:
        query = query.where(col(Run.cancel_requested_at).is_(None))

    def read(session: Session) -> tuple[list[RunInput], bool]:
        _require_known(session, caller, body.project, body.deployment_id)
        for run_id in body.run_ids or ():
            get_run(session, caller, run_id)
        rows, more = cut(session.exec(query.limit(_MAX_CANCELS + 1)).all(), _MAX_CANCELS)
        hosts = {row.deployment_id: session.get_one(Deployment, row.deployment_id).host for row in rows}
        for project in sorted({row.project for row in rows}):
            audit.record(
                session,
                caller.actor,
                "runs.canceled",
                project=project,
                before={"run_ids": [row.id for row in rows if row.project == project]},
                after=body.model_dump(exclude_defaults=True, exclude={"run_ids"}),
            )
        return [run_input(row, hosts[row.deployment_id], platform.settings) for row in rows], more

    starts, more = await platform.transact(read)
    limiter = asyncio.Semaphore(_CANCELS_AT_ONCE)

    async def ask(start: RunInput) -> bool:
        async with limiter:
            return await _signal(platform, start, body.force)

    answers = await asyncio.gather(*map(ask, starts), return_exceptions=True)
    asked = [start.run_id for start, answer in zip(starts, answers, strict=True) if answer is True]

    def note(session: Session) -> None:
        session.exec(
            update(Run)
            .where(col(Run.id).in_(asked), col(Run.status).in_(ACTIVE), col(Run.cancel_requested_at).is_(None))
            .values(cancel_requested_at=now())
        )

    await platform.transact(note)  # also when the engine went away half-way: who calls again goes on from here
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return RunsCancelRead(requested=len(asked), run_ids=asked, more=more)


async def _signal(platform: Platform, start: RunInput, force: bool) -> bool:
    """Have the run's workflow cancel; False when it has ended meanwhile."""
    try:
        await platform.dispatch.cancel_run(start.run_id, force)
    except NotFound:
        # It ended just now, or an API process died before it was started: then it is started to be canceled.
        await platform.dispatch.start_run(start)
        try:
            await platform.dispatch.cancel_run(start.run_id, force)
        except NotFound:
            return False
    return True
