"""Who of a project's held runs gets a place, and that no more than the limit ever have one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from crewship import db
from crewship.admission import admit, is_held
from crewship.models import Deployment, Project, Run

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = db.open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    db.migrate(engine)
    with db.session(engine) as session:
        session.add_all([Project(name="crew"), Project(name="other")])
        session.flush()
        session.add(Deployment(id="dep_1", project="crew", host="h", source_key="k", source_sha256="s"))
    yield engine
    engine.dispose()


def add(database: Engine, *names: str, concurrency: int | None = 2, status: str = "pending", priority: int = 3) -> None:
    with db.session(database) as session:
        for name in names:
            session.add(
                Run(
                    id=name, project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=0, status=status,
                    concurrency=concurrency, priority=priority, created_at=MOMENT + timedelta(seconds=ord(name[-1])),
                )
            )  # fmt: skip


def admitted(database: Engine) -> list[str]:
    with db.session(database) as session:
        return [run.id for run in admit(session, "crew")]


def test_the_oldest_get_the_places_and_a_second_look_finds_none(database: Engine) -> None:
    add(database, "c", "a", "b")
    assert admitted(database) == ["a", "b"]
    assert admitted(database) == []


def test_the_most_urgent_comes_first(database: Engine) -> None:
    add(database, "a", "b")
    add(database, "z", priority=1)
    assert admitted(database) == ["z", "a"]


def test_an_end_makes_a_place(database: Engine) -> None:
    add(database, "a", "b", "c", "d")
    admitted(database)
    with db.session(database) as session:
        session.get_one(Run, "a").status = "failed"
    assert admitted(database) == ["c"]


def test_runs_without_a_limit_take_places_and_are_never_held(database: Engine) -> None:
    add(database, "a", concurrency=None, status="running")
    add(database, "b", "c")
    assert admitted(database) == ["b"]
    with db.session(database) as session:
        assert [is_held(session.get_one(Run, name)) for name in ("a", "b", "c")] == [False, False, True]


def test_a_raised_limit_lets_the_rest_in(database: Engine) -> None:
    add(database, "a", "b", concurrency=1)
    assert admitted(database) == ["a"]
    with db.session(database) as session:
        for run in session.exec(select(Run)):
            run.concurrency = 3
    assert admitted(database) == ["b"]


def test_those_who_look_at_once_do_not_give_a_place_twice(database: Engine) -> None:
    add(database, *"abcdefghij", concurrency=3)
    with ThreadPoolExecutor(8) as pool:
        given = [name for names in pool.map(lambda _: admitted(database), range(8)) for name in names]
    assert sorted(given) == ["a", "b", "c"]
