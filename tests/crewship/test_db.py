"""Both databases pass the same tests."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, select

from crewship import db
from crewship.contracts import Actor
from crewship.errors import Unavailable
from crewship.models import ApiKey, Deployment, EnvVar, Project, Run
from tests.fixtures.postgres import postgres_server, postgres_url  # noqa: F401


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'crewship.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = db.open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def migrated(engine: Engine) -> Engine:
    db.migrate(engine)
    return engine


def test_migrations_lead_from_empty_to_exactly_the_models(engine: Engine) -> None:
    db.migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []


def test_migrating_again_changes_nothing(migrated: Engine) -> None:
    with db.session(migrated) as session:
        session.add(Project(name="p"))
    db.migrate(migrated)
    with db.session(migrated) as session:
        assert session.get(Project, "p") is not None


@pytest.mark.server
def test_processes_that_start_at_once_migrate_once(url: str, engine: Engine) -> None:
    script = "import sys; from crewship import db; db.migrate(db.open_database(sys.argv[1]))"
    processes = [subprocess.Popen([sys.executable, "-c", script, url], cwd=Path(__file__).parents[2]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert inspect(engine).has_table("run")


def test_a_failed_block_leaves_nothing(migrated: Engine) -> None:
    def fail() -> None:
        with db.session(migrated) as session:
            session.add(Project(name="p"))
            session.flush()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with db.session(migrated) as session:
        assert session.get(Project, "p") is None


def test_rows_can_be_read_after_their_session(migrated: Engine) -> None:
    with db.session(migrated) as session:
        session.add(row := Project(name="p"))
    assert row.name == "p"


def test_times_are_the_same_moment_whatever_zone_they_came_in(migrated: Engine) -> None:
    moment = datetime(2026, 1, 31, 9, 5, 0, 123000, UTC)
    with db.session(migrated) as session:
        session.add(Project(name="p", created_at=moment.astimezone(timezone(timedelta(hours=5, minutes=45)))))
    with db.session(migrated) as session:
        assert session.exec(select(Project.created_at).where(Project.created_at == moment)).one() == moment


def test_json_holds_anything_json_can(migrated: Engine) -> None:
    output = {"nul": "a\x00b", "emoji": "🚢", "big": 2**60, "none": None, "list": [1.5, True]}
    with db.session(migrated) as session:
        session.add(Project(name="p"))
        session.flush()
        session.add(Deployment(id="dep_1", project="p", host="h", source_key="k", source_sha256="s"))
        session.flush()
        session.add(
            Run(id="run_1", project="p", deployment_id="dep_1", output=output, timeout_seconds=1, env_version=0)
        )
    with db.session(migrated) as session:
        run = session.get_one(Run, "run_1")
        assert (run.output, run.error) == (output, None)


def test_references_are_held(migrated: Engine) -> None:
    with pytest.raises(IntegrityError), db.session(migrated) as session:
        session.add(Deployment(id="dep_1", project="nobody", host="h", source_key="k", source_sha256="s"))


def test_env_values_of_any_version_can_be_read_back(migrated: Engine) -> None:
    def var(name: str, sealed: str, since: int, until: int | None) -> EnvVar:
        return EnvVar(project="p", name=name, sealed=sealed, preview="", since_version=since, until_version=until)

    with db.session(migrated) as session:
        session.add(Project(name="p"))
        session.flush()
        session.add_all([var("A", "a1", 1, 3), var("A", "a3", 3, None), var("B", "b2", 2, 4)])
    with db.session(migrated) as session:
        assert [db.env_values(session, "p", version) for version in range(5)] == [
            {}, {"A": "a1"}, {"A": "a1", "B": "b2"}, {"A": "a3", "B": "b2"}, {"A": "a3"},
        ]  # fmt: skip
        assert db.env_values(session, "other", 4) == {}


def test_a_project_is_made_once_by_many(migrated: Engine) -> None:
    made: list[Project] = []

    def make() -> None:
        with db.session(migrated) as session:
            made.append(db.ensure_project(session, "p", Actor()))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [project.name for project in made] == ["p"] * 8


def test_check_wants_a_migrated_database(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        with pytest.raises(Unavailable):
            db.check(engine)
    db.migrate(engine)
    db.check(engine)


def test_a_database_that_is_down_is_unavailable(tmp_path: Path) -> None:
    for url in (f"postgresql://postgres@/x?host={tmp_path}", f"sqlite:///{tmp_path}"):
        engine = db.open_database(url)
        for call in (db.check, db.migrate):
            with pytest.raises(Unavailable) as caught:
                call(engine)
            assert caught.value.hint == "crewship doctor"
        engine.dispose()


@pytest.mark.parametrize("url", ["mysql://root@localhost/x", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Unavailable):
        db.open_database(url)


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    engine = db.open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        read = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert read == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 10_000}


def test_writers_wait_for_each_other(migrated: Engine) -> None:
    with db.session(migrated) as session:
        session.add(ApiKey(id="key_1", name="0", prefix="p", hash="h"))

    def count() -> None:
        for _ in range(20):
            with db.session(migrated) as session:
                session.execute(ApiKey.__table__.update().values(name=ApiKey.__table__.c.name))  # type: ignore[attr-defined]
                row = session.get_one(ApiKey, "key_1")
                row.name = str(int(row.name) + 1)
                session.add(row)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.session(migrated) as session:
        assert session.get_one(ApiKey, "key_1").name == "80"


def test_a_pool_that_is_used_up_is_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    """Each connection waits for a server that does not answer."""
    engine = create_engine(f"sqlite:///{tmp_path / 'crewship.db'}", pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(Unavailable), db.session(engine) as session:
        session.exec(select(Project)).first()
    engine.dispose()


@pytest.mark.server
def test_a_server_that_is_a_standby_for_now(postgres_url: str) -> None:  # noqa: F811
    engine = db.open_database(postgres_url)
    db.migrate(engine)

    def write() -> None:
        with db.session(engine) as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            session.add(Project(name="crew"))

    with pytest.raises(Unavailable):
        write()
    engine.dispose()
