from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from crewship import db
from crewship.clock import now
from crewship.keys import find_key, granted, make_key, store_first_key
from crewship.models import ApiKey


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = db.open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    db.migrate(engine)
    yield engine
    engine.dispose()


def find(engine: Engine, secret: str) -> str | None:
    with db.session(engine) as session:
        row = find_key(session, secret)
        return None if row is None else row.id


def test_a_key_is_found_by_its_secret_alone(engine: Engine) -> None:
    key = make_key("ci", ["invoke"])
    with db.session(engine) as session:
        session.add(key.row)
    assert find(engine, key.secret) == key.row.id
    for wrong in ("", "x", key.secret[:-1], key.secret + "x", key.secret[:12], key.row.hash, "ü\udcff"):
        assert find(engine, wrong) is None


def test_the_secret_is_not_in_the_row(engine: Engine) -> None:
    key = make_key("ci", ["invoke"])
    assert key.secret not in key.row.model_dump_json()
    assert len(key.secret) > 40


def test_revoked_and_expired_keys_are_not_found(engine: Engine) -> None:
    revoked, expired = make_key("a", ["read"]), make_key("b", ["read"], expires_at=now())
    valid = make_key("c", ["read"], expires_at=now() + timedelta(hours=1))
    revoked.row.revoked_at = now()
    with db.session(engine) as session:
        session.add_all([revoked.row, expired.row, valid.row])
    assert find(engine, revoked.secret) is None
    assert find(engine, expired.secret) is None
    assert find(engine, valid.secret) == valid.row.id


def test_use_is_noted_to_the_minute(engine: Engine) -> None:
    key = make_key("ci", ["read"])
    with db.session(engine) as session:
        session.add(key.row)

    def used() -> object:
        find(engine, key.secret)
        with db.session(engine) as session:
            return session.exec(select(ApiKey.last_used_at)).one()

    first = used()
    assert first is not None
    assert used() == first


def test_the_first_key_is_stored_once(engine: Engine) -> None:
    with db.session(engine) as session:
        assert store_first_key(session, "first-secret-of-all")
    with db.session(engine) as session:
        assert not store_first_key(session, "another")
    assert find(engine, "first-secret-of-all") is not None
    assert find(engine, "another") is None


def test_scopes_contain_reading() -> None:
    assert granted(["invoke"]) == {"read", "invoke"}
    assert granted(["invoke", "deploy"]) == {"read", "invoke", "deploy"}
    assert granted(["admin"]) == {"read", "invoke", "deploy", "admin"}
    assert granted(["unheard-of"]) == frozenset()
