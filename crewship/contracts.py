"""Messages between API, workflows and activities, and the names they agree on.

Frozen pydantic models, additive only: a running workflow may be older than the code that reads it. Nothing secret and no
source is ever in one of them; they carry ids, and whoever needs the content resolves them in the worker.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """Base of all messages: immutable, and unknown fields of a newer sender are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Actor(Message):
    """Who caused a change, for the audit log. The platform itself has no key."""

    key_id: str | None = None
    name: str = "platform"
    """The key's name."""
    address: str | None = None
    """Where the request came from."""


# --- names ------------------------------------------------------------------------------------------------------------

WORKFLOW_QUEUE = "crewship"
"""Workflows, and activities that touch only the database, the object store and Temporal."""


def host_queue(host: str) -> str:
    """Activities that must happen on one container host and end soon: stop, collect, sweep, switch."""
    return f"crewship-host-{host}"


def builds_queue(host: str) -> str:
    """Builds and smoke boots, which take minutes and may be many: no stop waits behind them."""
    return f"crewship-builds-{host}"


def runs_queue(host: str) -> str:
    """``run_container`` alone: its worker's slots are the host's run capacity, and the backlog waits in Temporal."""
    return f"crewship-runs-{host}"


def adoption_queue(host: str) -> str:
    """``run_container`` once more, for containers that go on and have nobody who follows them: they have their slot."""
    return f"crewship-adopt-{host}"


LET_GO = "LetGo"
"""Type of ``run_container``'s failure when the container goes on without it."""


def run_workflow_id(run_id: str) -> str:
    return f"run-{run_id}"


def deploy_workflow_id(deployment_id: str) -> str:
    return f"deploy-{deployment_id}"


def container_name(run_id: str, attempt: int = 1) -> str:
    """Name of the one container of a run's attempt: what a retried activity adopts."""
    return f"crewship-{run_id.replace('_', '-')}-{attempt}"


EPOCHS = 100_000
"""Fences that the log writers of one attempt of a run have."""


def epoch_before(attempt: int) -> int:
    """The last fence that is no writer's of this attempt or a later one."""
    return (attempt - 1) * EPOCHS


RunStatus = Literal["pending", "running", "succeeded", "failed", "canceled"]
DeploymentStatus = Literal["pending", "building", "ready", "failed"]


# --- the log (see crewship.log) ---------------------------------------------------------------------------------------


class Segment(Message):
    """Where events are that are too many for a signal: zstd NDJSON in the object store."""

    key: str
    sha256: str
    size_bytes: int


class Entry(Message):
    """A piece of a log: events ``first`` to ``last``, in line (NDJSON) or in a segment."""

    first: int
    last: int
    lines: str | None = None
    segment: Segment | None = None


class EndFacts(Message):
    """What the supervisor's ``end`` frame and its ``result`` said (the output itself is in the database)."""

    exit_code: int | None = None
    signal: int | None = None
    ok: bool | None = None
    """The crew's result: True, False, or None when there was none."""
    error_code: str | None = None
    error_message: str | None = None
    error_hint: str | None = None
    result_at_ms: int | None = None
    sigterm_at_ms: int | None = None
    oom_kills: int | None = None
    pids_max_events: int | None = None
    memory_peak_bytes: int | None = None
    cpu_ms: int | None = None
    disk_bytes: int | None = None
    """What was in ``/app`` at the end."""
    artifacts: int | None = None
    """How many files were under ``/app/artifacts`` when nothing of the crew ran any more."""


class ResultFacts(Message):
    """What the crew's ``result`` frame said; the output and the traceback are in the database."""

    ok: bool
    code: str | None = None
    message: str | None = None
    hint: str | None = None


class Batch(Message):
    """What a log writer signals: the next entry, and how far its source is durable with it.

    ``first == last + 1`` is a batch without events: it only moves ``n``.
    """

    source: str
    """Who writes: ``container/<attempt>``, ``artifacts``, ``build``."""
    epoch: int
    """The writer's fence; batches under the log's fence are dropped."""
    n: int
    """The last frame of the source that is contained."""
    first: int
    last: int
    hash: str
    """Hash of event ``last``."""
    lines: str | None = None
    segment: Segment | None = None
    result: ResultFacts | None = None
    end: EndFacts | None = None


class Head(Message):
    """Where a log stands; all that a writer needs to go on."""

    next_seq: int
    hash: str
    epoch: int
    acknowledged: dict[str, int]
    """Source → last ``n``."""
    result: ResultFacts | None = None
    end: EndFacts | None = None
    """The facts of the ``result`` and the ``end`` frame, when the container in hand has sent them: neither is sent again."""
    cancel_requested: bool = False
    held: bool = False
    """Whether the run waits to be admitted."""
    signals: int = 0
    """How many batches the log has taken, and how many bytes in line: a writer goes on with its predecessors' budget."""
    inline_bytes: int = 0


class EventsQuery(Message):
    """Argument of the query ``events``. ``after`` is the last seq known (0: none)."""

    after: int = 0
    max_bytes: int = 1_000_000
    include_terminal: bool = False
    """The terminal event is shown to readers from the archive only; who writes the archive asks for it."""


class EventsPage(Message):
    """Entries with events after ``after``, in order; ``more`` when ``max_bytes`` cut the page."""

    entries: list[Entry]
    more: bool


# --- runs -------------------------------------------------------------------------------------------------------------


class RunInput(Message):
    run_id: str
    project: str
    deployment_id: str
    host: str
    timeout_seconds: int
    grace_seconds: float
    priority: int = 3
    """1, the most urgent, to 5."""
    queue_timeout_seconds: int | None = None
    held: bool = False
    """Its project has no place for it yet: wait for the signal ``admit``."""


class CancelInput(Message):
    """Signal ``cancel``."""

    force: bool = False


class RunContainerInput(Message):
    run_id: str
    attempt: int
    timeout_seconds: int
    grace_seconds: float
    epoch: int = 0
    """The log's fence when this was scheduled; an attempt writes under its own number beyond it."""
    takes_last: bool = False
    """Whether the workflow takes the end of the log with the facts (``ContainerFacts.last``); an older one does not."""


class Limit(Message):
    """One limit of a run: bytes, a number, or seconds."""

    value: int
    most: int
    """What the platform would allow if the project asked for it."""


class RunLimits(Message):
    """The limits that are in force (``crewship.limits``)."""

    memory: Limit
    cpus: float
    pids: Limit
    disk: Limit
    log: Limit
    artifacts: Limit
    timeout: Limit


class ContainerFacts(Message):
    """How a container ended, from the engine and the supervisor; see ``crewship.outcome``."""

    started: bool
    """Whether the crew's code was ever called."""
    end: EndFacts | None
    exit_code: int | None = None
    oom_killed: bool = False
    timed_out: bool = False
    canceled_before_start: bool = False
    image_missing: bool = False
    engine_restarted: bool = False
    log_limit: bool = False
    artifact_limit: bool = False
    sigterm_at_ms: int | None = None
    """When the platform itself sent SIGTERM (timeout or limit)."""
    sigkill_at_ms: int | None = None
    started_at_ms: int | None = None
    """When phase 2 began, and when the crew ended; the supervisor's clock, which is the host's."""
    ended_at_ms: int | None = None
    gone_at_ms: int | None = None
    """When the container was removed, or handed over to be; None: it is still to be finished (``FinishInput``)."""
    memory: str = ""
    """Of runs from before ``limits``; and ``pids``."""
    pids: int = 0
    limits: RunLimits | None = None
    """For what is told when a run meets one."""
    retries: int = 0
    """How many more attempts the project asks for when one fails."""
    last: Batch | None = None
    """The end of the log, where it comes along with the facts in place of a signal (``RunContainerInput.takes_last``)."""


class StopInput(Message):
    run_id: str
    attempt: int
    grace_seconds: float
    force: bool


class StopResult(Message):
    found: bool
    sigterm_at_ms: int | None = None
    sigkill_at_ms: int | None = None


class FinishInput(Message):
    run_id: str
    attempt: int
    collect: bool = True
    """False for an attempt that is followed by another one: its files go with its container."""


class FinishResult(Message):
    artifact_count: int
    gone_at_ms: int
    limit_exceeded: bool = False


class RunError(Message):
    code: str
    message: str
    hint: str | None = None


class CancelFacts(Message):
    """RFC 3339 times."""

    requested_at: str
    sigterm_at: str | None
    sigkill_at: str | None
    gone_at: str


class CloseRunInput(Message):
    run_id: str
    status: RunStatus
    error: RunError | None
    cancel: CancelFacts | None
    completed_at: str
    duration_ms: int
    usage: dict[str, float | int | None] = {}
    log: list[Entry] | None = None
    """The whole log where it is short; a long one is asked for (``EventsQuery``)."""


class RunResult(Message):
    status: RunStatus
    error_code: str | None = None


# --- deployments ------------------------------------------------------------------------------------------------------


class DeployInput(Message):
    deployment_id: str
    project: str
    host: str
    activate: bool
    actor: str


class DeploymentRef(Message):
    deployment_id: str


class StepResult(Message):
    """Result of a build step: fine, or why not. A project that cannot be built is no activity failure."""

    error: RunError | None = None


class ActivateInput(Message):
    deployment_id: str
    actor: str


class CloseDeploymentInput(Message):
    deployment_id: str
    error: RunError | None
    at: str


class DeployResult(Message):
    status: DeploymentStatus
    error_code: str | None = None


class RollbackInput(Message):
    project: str
    deployment_id: str | None
    """None: the deployment that was current before the last switch."""
    actor: str
    kind: Literal["rollback", "promote"] = "rollback"
    """What the switch was asked for as."""
    key: str | None = None
    """Of the call; what was carried out under it is not carried out again."""
    with_env: bool = False
    """Whether the env vars become those that the deployment last ran with."""
    by: Actor | None = None
    """``actor`` with name and address; None in requests of older versions."""


class RollbackResult(Message):
    """Outcome of a switch; ``error_*`` set instead of raising, so that the API can answer in its own shape."""

    deployment_id: str = ""
    previous_deployment_id: str | None = None
    changed: bool = False
    env_version: int | None = None
    """Of the project from then on; ``previous_env_version`` up to then. None: nothing was switched."""
    previous_env_version: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    error_hint: str | None = None


class RecognizeInput(Message):
    """Whether a deployment is what another one would be whose source and config are the same."""

    deployment_id: str
    project: str


class RecognizeResult(Message):
    same: bool


class ProjectRef(Message):
    project: str


# --- garbage ----------------------------------------------------------------------------------------------------------


class Removal(Message):
    """Something that retention takes, or has taken; see ``crewship.retention``."""

    kind: Literal["run", "artifacts", "log", "source", "upload", "image", "dependencies", "volume", "network", "audit"]
    name: str
    """Of ``audit`` the time (ISO 8601) before which entries go."""
    why: str
    bytes: int | None = None
    """None: not known."""
    host: str | None = None


class GarbageInput(Message):
    dry_run: bool
    limit: int = 200
    """At most so many of the records, and of each host; what is left is for the next round."""
    by: Actor = Actor()
    """Who asked; the platform when retention runs by itself."""


class GarbageResult(Message):
    removals: list[Removal]
    more: bool
    """There was more than the limit."""
    hosts: list[str] = []
    """Where images may be."""
    unreachable_hosts: list[str] = []


# --- frames and tail --------------------------------------------------------------------------------------------------

TailMessage = dict[str, Any]
"""``{"batch": Batch}`` as JSON, or ``{"closed": true}``; topic is the workflow's id."""
