"""Whoever dies between admitting a run and telling it leaves it to the next round of upkeep."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from activities import runs
from activities.runs import RunActivities
from crewship import db
from crewship.clock import now
from crewship.contracts import Head, RunInput
from crewship.models import Deployment, Project, Run
from crewship.settings import Settings


class Bridge:
    """Does at once what an activity asks of the workflow engine."""

    client = None

    def __init__(self, held: set[str]) -> None:
        self._held = held

    def head(self, workflow_id: str) -> Head:
        return Head(next_seq=1, hash="", epoch=0, acknowledged={}, held=workflow_id.removeprefix("run-") in self._held)

    def run(self, call: Any) -> None:
        with pytest.raises(StopIteration):
            call.send(None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """What was said to which workflow, and whether it is held."""
    said: list[tuple[str, str, bool]] = []

    def note(what: str) -> Any:
        async def call(client: Any, run: RunInput) -> None:
            said.append((what, run.run_id, run.held))

        return call

    monkeypatch.setattr(runs.temporal, "start_run", note("start"))
    monkeypatch.setattr(runs.temporal, "admit_run", note("admit"))
    return said


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = db.open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    db.migrate(engine)
    with db.session(engine) as session:
        session.add(Project(name="crew"))
        session.flush()
        session.add(
            Deployment(
                id="dep_1", project="crew", host="h", status="ready", source_key="k", source_sha256="s", last_seq=1
            )
        )
    yield engine
    engine.dispose()


def upkeep(database: Engine, *held: str) -> None:
    parts: Any = {"store": None, "tail": None, "bridge": Bridge(set(held))}
    RunActivities(database=database, settings=Settings(), **parts).reconcile()


def add(database: Engine, name: str, age_seconds: int, **fields: Any) -> None:
    with db.session(database) as session:
        session.add(
            Run(
                id=name, project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=0, concurrency=1,
                created_at=now() - timedelta(seconds=age_seconds), **fields,
            )
        )  # fmt: skip


def test_a_place_that_nobody_gave_is_given(database: Engine, told: list[Any]) -> None:
    add(database, "run_1", 5)
    upkeep(database)
    assert told == [("admit", "run_1", False)]


def test_who_was_admitted_and_not_told_is_told(database: Engine, told: list[Any]) -> None:
    add(database, "run_1", 60, admitted_at=now())
    add(database, "run_2", 50)
    upkeep(database, "run_1", "run_2")
    assert told == [("admit", "run_1", False), ("start", "run_2", True)]


def test_who_knows_already_is_not_told_again(database: Engine, told: list[Any]) -> None:
    add(database, "run_1", 60, admitted_at=now())
    upkeep(database)
    assert told == [("start", "run_1", False)]  # harmless: it is there
