"""Switches of a project's pointer, on both databases."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine
from sqlmodel import col, select

from crewship import db, environment
from crewship.contracts import Actor
from crewship.models import Activation, Deployment, EnvVar, Project
from crewship.projects import ActivationKind, Switch, switch
from tests.crewship.test_db import engine, migrated, url  # noqa: F401
from tests.fixtures.postgres import postgres_server, postgres_url  # noqa: F401

IDS = ("dep_1", "dep_2", "dep_3")


@pytest.fixture
def database(migrated: Engine) -> Engine:  # noqa: F811
    with db.session(migrated) as session:
        session.add(Project(name="p"))
        session.flush()
        for deployment_id in IDS:
            session.add(
                Deployment(
                    id=deployment_id, project="p", status="ready", host="here", source_key="s", source_sha256="0",
                    image="sha256:1", env_version=0,
                )
            )  # fmt: skip
    return migrated


def switched(
    database: Engine,
    deployment_id: str,
    kind: ActivationKind = "rollback",
    key: str | None = None,
    with_env: bool = False,
) -> Switch:
    with db.session(database) as session:
        return switch(session, "p", deployment_id, Actor(key_id="key_1"), kind=kind, key=key, with_env=with_env)


def history(database: Engine) -> list[Activation]:
    with db.session(database) as session:
        return list(session.exec(select(Activation).order_by(col(Activation.id))))


def set_env(database: Engine, **values: str | None) -> int:
    """As the API does it; sealed forms are the values themselves."""
    with db.session(database) as session:
        version = environment.next_version(session, "p")
        for name, row in db.env_rows(session, "p", version).items():
            if name in values:
                row.until_version = version
                session.add(row)
        for name, value in values.items():
            if value is not None:
                session.add(EnvVar(project="p", name=name, sealed=value, preview="…", since_version=version))
    return version


def env(database: Engine) -> Mapping[str, str]:
    with db.session(database) as session:
        return db.env_values(session, "p", session.get_one(Project, "p").env_version)


def test_each_switch_is_recorded_with_who_from_to_and_what_for(database: Engine) -> None:
    switched(database, "dep_1", "deploy")
    switched(database, "dep_2", "promote")
    switched(database, "dep_2", "promote")  # is current already
    switched(database, "dep_1", "rollback")
    assert [(row.kind, row.previous_deployment_id, row.deployment_id, row.actor) for row in history(database)] == [
        ("deploy", None, "dep_1", "key_1"),
        ("promote", "dep_1", "dep_2", "key_1"),
        ("rollback", "dep_2", "dep_1", "key_1"),
    ]


def test_switches_at_once_never_interleave(database: Engine) -> None:
    """Each finds current what the one before it has made current, and the last one is what the project points at."""
    threads, rounds = 6, 8
    together = threading.Barrier(threads)

    def work(number: int) -> int:
        together.wait()
        return sum(switched(database, IDS[(number + n) % len(IDS)]).changed for n in range(rounds))

    with ThreadPoolExecutor(threads) as pool:
        changed = sum(pool.map(work, range(threads)))
    rows = history(database)
    assert len(rows) == changed
    assert [row.previous_deployment_id for row in rows] == [None, *[row.deployment_id for row in rows[:-1]]]
    assert all(row.previous_deployment_id != row.deployment_id for row in rows)
    with db.session(database) as session:
        assert session.get_one(Project, "p").current_deployment_id == rows[-1].deployment_id


def test_a_call_that_is_tried_again_switches_once(database: Engine) -> None:
    switched(database, "dep_1", "deploy")
    first = switched(database, "dep_2", key="act_1")
    switched(database, "dep_3", key="act_2")
    assert switched(database, "dep_2", key="act_1") == first
    with db.session(database) as session:
        assert session.get_one(Project, "p").current_deployment_id == "dep_3"


def test_the_env_of_then_comes_back_with_the_code_when_asked_for(database: Engine) -> None:
    set_env(database, MODEL="small", OLD="1", KEPT="k")
    switched(database, "dep_1", "deploy")
    then = set_env(database, MODEL="large")  # while dep_1 is current
    switched(database, "dep_2", "deploy")
    now = set_env(database, MODEL="huge", OLD=None, NEW="2")
    with db.session(database) as session:
        deployment = session.get_one(Deployment, "dep_1")
        assert environment.version_of(session, deployment) == environment.last_version_of(session, deployment) == then
        found = environment.difference(session, "p", then, now, lambda sealed, context: sealed)
    assert found == environment.EnvDifference(added=("NEW",), removed=("OLD",), changed=("MODEL",))

    kept = switched(database, "dep_1")
    assert (kept.previous_env_version, kept.env_version) == (now, now)
    assert env(database) == {"MODEL": "huge", "NEW": "2", "KEPT": "k"}
    switched(database, "dep_2")
    set_env(database, MODEL="tiny")
    restored = switched(database, "dep_2", with_env=True)  # is current: nothing to go back to
    assert restored.changed is False
    assert env(database)["MODEL"] == "tiny"

    # dep_1 was last current with the vars of "now".
    back = switched(database, "dep_1", with_env=True)
    assert env(database) == {"MODEL": "huge", "NEW": "2", "KEPT": "k"}
    assert back.env_version == (back.previous_env_version or 0) + 1
    with db.session(database) as session:  # no version is ever changed
        assert db.env_values(session, "p", then) == {"MODEL": "large", "OLD": "1", "KEPT": "k"}
        assert db.env_values(session, "p", back.previous_env_version or 0)["MODEL"] == "tiny"
    row = history(database)[-1]
    assert (row.previous_env_version, row.env_version) == (back.previous_env_version, back.env_version)


def test_vars_that_are_the_same_make_no_version(database: Engine) -> None:
    set_env(database, A="1")
    switched(database, "dep_1", "deploy")
    switched(database, "dep_2", "deploy")
    done = switched(database, "dep_1", with_env=True)
    assert done.env_version == done.previous_env_version == 1


def test_a_value_that_was_set_again_is_no_difference(database: Engine) -> None:
    before = set_env(database, A="sealed-1:x", B="sealed-1:y")
    after = set_env(database, A="sealed-2:x", B="sealed-2:z")
    with db.session(database) as session:
        found = environment.difference(session, "p", before, after, lambda sealed, context: sealed.split(":")[1])
    assert found.changed == ("B",)
