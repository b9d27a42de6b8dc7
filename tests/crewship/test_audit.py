"""The audit log on both databases: what is in it stays as it is."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from crewship import audit, db
from crewship.clock import now
from crewship.contracts import Actor
from crewship.errors import Unavailable
from crewship.models import ApiKey, AuditCut, AuditEntry, Deployment, Project
from crewship.projects import switch
from tests.fixtures.postgres import postgres_server, postgres_url  # noqa: F401

ALICE = Actor(key_id="key_1", name="alice", address="192.0.2.1")


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'crewship.db'}"
    engine = db.open_database(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    db.migrate(engine)
    yield engine
    engine.dispose()


def entries(engine: Engine) -> list[AuditEntry]:
    with db.session(engine) as session:
        return list(session.exec(select(AuditEntry)))


def test_an_entry_is_there_with_its_change_or_not_at_all(engine: Engine) -> None:
    def fail() -> None:
        with db.session(engine) as session:
            db.ensure_project(session, "lost", ALICE)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert entries(engine) == []
    for _ in range(2):  # the second finds it made
        with db.session(engine) as session:
            db.ensure_project(session, "crew", ALICE)
    [entry] = entries(engine)
    assert (entry.action, entry.target, entry.key_id, entry.actor, entry.address) == (
        "project.created", "crew", "key_1", "alice", "192.0.2.1",
    )  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'bob'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
        "INSERT INTO audit (id, at, action, actor) VALUES (1, '2026-01-01', 'x', 'bob') "
        "ON CONFLICT (id) DO UPDATE SET actor = 'bob'",
        "TRUNCATE audit",
    ],
)
def test_the_database_refuses_to_change_it(engine: Engine, statement: str) -> None:
    refusal: tuple[type[Exception], str] = (IntegrityError, "append-only")
    if statement.startswith("TRUNCATE") and engine.dialect.name == "sqlite":
        refusal = (Unavailable, "database")  # it has no such statement
    with db.session(engine) as session:
        audit.record(session, ALICE, "key.created", target="key_2", after={"scopes": ["read"]})
    with pytest.raises(refusal[0], match=refusal[1]), db.session(engine) as session:
        session.execute(text(statement))
    [entry] = entries(engine)
    assert (entry.actor, entry.after) == ("alice", {"scopes": ["read"]})


def cut(engine: Engine, days: float) -> None:
    with db.session(engine) as session:
        session.add(AuditCut(before=now() - timedelta(days=days)))


def test_what_is_older_than_a_cut_may_go_and_nothing_else(engine: Engine) -> None:
    with db.session(engine) as session:
        for days in (40, 20, 0):
            entry = AuditEntry(at=now() - timedelta(days=days), action="key.created", actor="alice", target=str(days))
            session.add(entry)
    cut(engine, 30)
    for condition in ("1 = 1", "target = '20'"):
        with pytest.raises(IntegrityError, match="append-only"), db.session(engine) as session:
            session.execute(text(f"DELETE FROM audit WHERE {condition}"))
    assert {entry.target for entry in entries(engine)} == {"40", "20", "0"}
    with db.session(engine) as session:
        session.execute(text("DELETE FROM audit WHERE target = '40'"))
    with pytest.raises(IntegrityError, match="append-only"), db.session(engine) as session:
        session.execute(text("UPDATE audit SET at = '2020-01-01'"))  # to make it old enough
    assert {entry.target for entry in entries(engine)} == {"20", "0"}


@pytest.mark.parametrize("statement", ["UPDATE audit_cut SET before = at", "DELETE FROM audit_cut"])
def test_a_cut_stays_as_it_is_and_spares_a_day(engine: Engine, statement: str) -> None:
    cut(engine, 1.01)
    with pytest.raises(IntegrityError, match="append-only"), db.session(engine) as session:
        session.execute(text(statement))
    for days in (0.99, 0, -1):
        with pytest.raises(IntegrityError, match="a day ago"):
            cut(engine, days)


def test_it_outlasts_what_it_tells_of(engine: Engine) -> None:
    with db.session(engine) as session:
        session.add(ApiKey(id="key_1", name="alice", prefix="p", hash="h"))
        session.add(Project(name="crew"))
        session.flush()
        audit.record(session, ALICE, "project.deleted", project="crew", target="crew")
    with db.session(engine) as session:
        session.delete(session.get_one(Project, "crew"))
        session.delete(session.get_one(ApiKey, "key_1"))
    assert [entry.actor for entry in entries(engine)] == ["alice"]


def test_a_switch_is_by_who_deployed(engine: Engine) -> None:
    with db.session(engine) as session:
        session.add(Project(name="crew"))
        session.flush()
        for name in ("dep_1", "dep_2"):
            session.add(Deployment(id=name, project="crew", host="h", source_key="k", source_sha256="s"))
        audit.record(session, ALICE, "deployment.created", project="crew", target="dep_1")
    with db.session(engine) as session:
        assert audit.maker_of(session, "dep_2") is None
        who = audit.maker_of(session, "dep_1")
        assert who == ALICE
        switch(session, "crew", "dep_1", who, kind="deploy")
        switch(session, "crew", "dep_1", who, kind="deploy")  # is current already
        switch(session, "crew", "dep_2", Actor(), kind="rollback")
    told = [(e.action, e.actor, e.before, e.after) for e in entries(engine)[1:]]
    first, second = {"current_deployment_id": "dep_1"}, {"current_deployment_id": "dep_2"}
    assert told == [
        ("deployment.activated", "alice", {"current_deployment_id": None}, first),
        ("deployment.rolled_back", "platform", first, second),
    ]
