"""The database: opening it, sessions, migrations, and the few queries that several processes share.

SQLite (embedded) and PostgreSQL (production) behave alike for callers: times come back aware and in UTC, one commit at the
end of a session's block, and a database that cannot be reached is ``Unavailable``. Two rules keep SQLite's one writer out
of trouble: a transaction that reads in order to write begins with its write, and no transaction waits for anything else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy import create_engine as _create_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session, col, or_, select

from crewship import audit
from crewship.contracts import Actor
from crewship.errors import Unavailable
from crewship.models import EnvVar, Project

_SQLITE_BUSY_MS = 10_000
"""How long a writer waits for another one; a transaction here takes milliseconds, a migration up to seconds."""
_CONNECT_SECONDS = 5
_READ_ONLY = "25006"
"""PostgreSQL's code for a write to a server that is a standby for now: in the middle of a failover."""
_MIGRATION_LOCK = 0x63726577
"""Key of the PostgreSQL advisory lock that lets one process migrate at a time ("crew")."""


def open_database(url: str) -> Engine:
    """An engine for ``url``, which is opened at its first use; a SQLite file's folder is made.

    Args:
        url: ``sqlite:///<file>`` or ``postgresql://user:password@host/name``.

    Raises:
        Unavailable: the URL is not one of a database that is supported.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Unavailable("CREWSHIP_DATABASE_URL is not a database URL") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = _create_engine(parsed, connect_args={"check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    if backend in ("postgresql", "postgres"):
        return _create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=10,
            connect_args={"connect_timeout": _CONNECT_SECONDS},
        )
    raise Unavailable(f"Databases of kind {backend} are not supported", hint="use sqlite:/// or postgresql://")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # With WAL, NORMAL cannot corrupt; a power cut may undo the last commits, of which Temporal has its own record.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


@contextmanager
def session(engine: Engine) -> Iterator[Session]:
    """A session that commits when its block ends and rolls back when it raises; objects stay readable after it.

    Raises:
        Unavailable: the database cannot be reached, or is locked for too long.
    """
    try:
        with Session(engine, expire_on_commit=False) as opened:
            yield opened
            opened.commit()
    except (OperationalError, InterfaceError) as error:
        raise _unavailable() from error
    except PoolTimeout as error:  # each connection waits for a database that does not answer
        raise _unavailable() from error
    except DBAPIError as error:
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
            raise _unavailable() from error
        raise


def check(engine: Engine) -> None:
    """Raise ``Unavailable`` unless the database answers a query on a migrated table."""
    with session(engine) as opened:
        opened.exec(select(Project.name).limit(1)).first()


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest version. Two processes may do this at the same time: one waits for the other.

    Raises:
        Unavailable: the database cannot be reached.
    """
    try:
        with engine.connect() as connection:
            _lock(connection)
            command.upgrade(alembic_config(connection), "head")
            connection.commit()
    except (OperationalError, InterfaceError) as error:
        raise _unavailable() from error


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; the migrations are found by the package, wherever it is installed."""
    config = Config()
    config.set_main_option("script_location", "crewship:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _lock(connection: Connection) -> None:
    """Take the right to migrate, held until the transaction's end."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _unavailable() -> Unavailable:
    return Unavailable("The database cannot be reached", hint="crewship doctor")


def env_rows(session: Session, project: str, version: int) -> dict[str, EnvVar]:
    """Name → row of a project's env vars as they were at ``version``."""
    rows = session.exec(
        select(EnvVar).where(
            EnvVar.project == project,
            EnvVar.since_version <= version,
            or_(col(EnvVar.until_version).is_(None), col(EnvVar.until_version) > version),
        )
    )
    return {row.name: row for row in rows}


def env_values(session: Session, project: str, version: int) -> dict[str, str]:
    """Name → sealed value of a project's env vars as they were at ``version``."""
    return {name: row.sealed for name, row in env_rows(session, project, version).items()}


def ensure_project(session: Session, name: str, actor: Actor) -> Project:
    """The project, made (and put into the audit log) when it is missing; two callers at once get the same one."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = Project(name=name)
    made = session.execute(
        insert(Project).values(**row.model_dump()).on_conflict_do_nothing().returning(col(Project.name))
    )
    if made.first() is not None:
        audit.record(session, actor, "project.created", project=name, target=name)
    return session.exec(select(Project).where(Project.name == name)).one()
