"""Tables. They never cross the wire and never enter a workflow; every change has a migration in ``crewship/migrations``.

Times are stored in UTC (SQLite gives them back naive; ``crewship.clock`` takes naive as UTC).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer
from sqlmodel import Field, SQLModel

from crewship.clock import now


class Project(SQLModel, table=True):
    name: str = Field(primary_key=True, max_length=63)
    current_deployment_id: str | None = None
    env_version: int = 0
    """Grows by one with each change of the env vars; a run keeps the one it began with."""
    deleting: bool = False
    created_at: datetime = Field(default_factory=now)


class Deployment(SQLModel, table=True):
    id: str = Field(primary_key=True)
    project: str = Field(foreign_key="project.name", index=True)
    status: str = Field(default="pending", index=True)
    config: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    """``crewship.config.DeploymentConfig`` as JSON."""
    host: str
    """Container host that builds it and has its image."""
    activate: bool = True
    source_key: str
    source_sha256: str
    image: str | None = None
    """Image id (digest) on ``host``."""
    image_removed_at: datetime | None = None
    """When retention took the image; from then on it can neither be current nor run."""
    source_removed_at: datetime | None = None
    base_image: str | None = None
    """Image id (digest) of what it is built on."""
    base_python: str | None = None
    """Version of Python that the base was asked for; None: any."""
    python: str | None = None
    """Version of its interpreter."""
    recipe: str | None = None
    """Digest of how it was built (``ImageBuilder.recipe``); None until it is."""
    dependency_key: str | None = Field(default=None, index=True)
    """Digest of all that decides its packages (``ImageBuilder``): deployments with the same key have the same ones. None until
    it is built, and of those that are older than this column."""
    env_version: int | None = None
    """Of the project when it was deployed; None: of a deployment that is older than this column."""
    created_by: str = ""
    created_at: datetime = Field(default_factory=now)
    ready_at: datetime | None = None
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """``{code, message, hint, traceback}``."""
    last_seq: int | None = None
    """Seq of the terminal event; set when the log is archived, and only then is the log closed."""


class Upload(SQLModel, table=True):
    """A source that comes in parts (``crewship.uploads``), until a deployment is made of it or nobody goes on with it.

    It references no project, because the first deployment makes that.
    """

    project: str = Field(primary_key=True, max_length=63)
    source_sha256: str = Field(primary_key=True, max_length=64)
    """Of the whole archive, as announced."""
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_by: str = ""
    created_at: datetime = Field(default_factory=now)
    touched_at: datetime = Field(default_factory=now)
    """When it was asked for or a part came last."""


class Activation(SQLModel, table=True):
    """One switch of a project's pointer. The newest row says what was current before."""

    id: int | None = Field(default=None, primary_key=True)
    project: str = Field(foreign_key="project.name", index=True)
    kind: str = Field(default="deploy", sa_column_kwargs={"server_default": "deploy"})
    """``deploy``, ``rollback`` or ``promote``."""
    key: str | None = Field(default=None, unique=True)
    """Of the call that asked for it, so that its being tried again switches nothing twice; None: of a deploy."""
    deployment_id: str
    previous_deployment_id: str | None = None
    env_version: int | None = None
    """Of the project from then on; ``previous_env_version`` up to then. They differ when the switch restored the env vars."""
    previous_env_version: int | None = None
    actor: str = ""
    at: datetime = Field(default_factory=now)


class Run(SQLModel, table=True):
    __table_args__ = (
        Index("ix_run_project_created", "project", "created_at"),
        Index("ix_run_project_status", "project", "status"),
    )

    id: str = Field(primary_key=True)
    project: str = Field(foreign_key="project.name", index=True)
    deployment_id: str = Field(foreign_key="deployment.id", index=True)
    status: str = Field(default="pending", index=True)
    input: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    output: Any = Field(default=None, sa_column=Column(JSON))
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """``{code, message, hint, traceback}``."""
    traceback: str | None = None
    """Kept from the crew's result until the run is closed, then part of ``error``."""
    labels: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    timeout_seconds: int
    priority: int = Field(default=3, sa_column_kwargs={"server_default": "3"})
    """1, the most urgent, to 5."""
    queue_timeout_seconds: int | None = None
    """How long it may wait for its start; None: of a run that is older than the limit."""
    concurrency: int | None = None
    """How many runs of its project may be at work at once; None: no limit (``crewship.admission``)."""
    admitted_at: datetime | None = None
    """When a run with such a limit was let into the queue."""
    env_version: int
    created_by: str = ""
    created_at: datetime = Field(default_factory=now, index=True)
    attempt: int = 1
    """The one that was launched last; more than 1 only with ``[run] retries``."""
    launched_at: datetime | None = None
    """Set before an attempt's container is started for the first time: the crew's code is never started twice in one."""
    started_at: datetime | None = None
    """When phase 2 of the first attempt began."""
    attempt_started_at: datetime | None = None
    """When that of the last one began."""
    completed_at: datetime | None = None
    duration_ms: int | None = None
    """Of the crew's own work: phase 2 to its end."""
    cancel_requested_at: datetime | None = None
    cancel: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """``{requested_at, sigterm_at, sigkill_at, gone_at}``, RFC 3339; only of a run that ended canceled."""
    usage: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    isolation: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    artifact_count: int = 0
    collected: str | None = None
    """``all`` of its artifacts, or ``some`` when there were more than a run may leave; set together with their rows, and
    nothing is collected any more from then on."""
    last_seq: int | None = None
    """Seq of the terminal event; set when the log is archived, and only then is the log closed."""
    log_trimmed: bool = False
    """Whether retention has cut the log down to its terminal event."""


class RunLabel(SQLModel, table=True):
    """Labels once more, as rows, for ``GET /v1/runs?label=k:v``."""

    run_id: str = Field(foreign_key="run.id", primary_key=True)
    key: str = Field(primary_key=True, max_length=63)
    value: str = Field(max_length=255)


class Artifact(SQLModel, table=True):
    run_id: str = Field(foreign_key="run.id", primary_key=True)
    name: str = Field(primary_key=True)
    """Path under /app/artifacts, ``/``-separated."""
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    content_type: str
    sha256: str
    key: str
    """Object that holds the bytes."""
    created_at: datetime = Field(default_factory=now)


class EnvVar(SQLModel, table=True):
    """A value from one env version up to, not including, another: any version can be read back."""

    id: int | None = Field(default=None, primary_key=True)
    project: str = Field(foreign_key="project.name", index=True)
    name: str
    sealed: str
    """``crewship.sealing``; never the value."""
    preview: str
    since_version: int
    until_version: int | None = None
    """None: still valid."""
    updated_at: datetime = Field(default_factory=now)


class BuildSecret(SQLModel, table=True):
    """A value that the project's builds get and its runs never do (``crewship.build_secrets``)."""

    project: str = Field(foreign_key="project.name", primary_key=True, max_length=63)
    name: str = Field(primary_key=True, max_length=128)
    sealed: str
    """``crewship.sealing``; never the value."""
    updated_at: datetime = Field(default_factory=now)


class ApiKey(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str
    prefix: str = Field(index=True)
    """First characters of the secret, for looking it up."""
    hash: str
    """SHA-256 of the whole secret (256 bits of chance, so no slow hash is needed)."""
    scopes: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    project: str | None = None
    created_at: datetime = Field(default_factory=now)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class AuditEntry(SQLModel, table=True):
    """One change, who made it and from where; see ``crewship.audit``.

    Rows are only ever added: triggers of the migrations refuse every update, and every delete of one that is not older than an
    ``AuditCut``. Nothing references anything, so that entries outlast what they tell of.
    """

    __tablename__ = "audit"

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    at: datetime = Field(default_factory=now, index=True)
    action: str = Field(max_length=63)
    """``<noun>.<past participle>``."""
    key_id: str | None = Field(default=None, index=True)
    """API key; None: the platform itself."""
    actor: str
    """The key's name when it happened."""
    address: str | None = None
    project: str | None = Field(default=None, index=True)
    target: str | None = Field(default=None, index=True)
    """Id or name of what was changed."""
    before: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """What mattered of it before, never a secret's value; None: it was not there."""
    after: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """The same after; None: it is gone."""


class AuditCut(SQLModel, table=True):
    """From where on the audit log is kept: what is older may go (``CREWSHIP_AUDIT_RETENTION_DAYS``).

    Triggers refuse a cut that is not a day old at least, and every update and delete of one.
    """

    __tablename__ = "audit_cut"

    before: datetime = Field(primary_key=True)
    at: datetime = Field(default_factory=now)
    """When it was made."""


class Idempotency(SQLModel, table=True):
    """An ``Idempotency-Key`` and what it made; kept 24 hours."""

    scope: str = Field(primary_key=True)
    """Call and API key id, so that keys of two callers do not meet."""
    key: str = Field(primary_key=True, max_length=255)
    body_sha256: str
    resource_id: str
    created_at: datetime = Field(default_factory=now, index=True)


class Host(SQLModel, table=True):
    """A container host, as its worker last saw it."""

    name: str = Field(primary_key=True)
    engine_problem: str | None = None
    """Why its container engine cannot be reached; None: it can."""
    network: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    """``crewship.hosts.HostNetwork``; None: not looked at yet."""
    checked_at: datetime = Field(default_factory=now)
