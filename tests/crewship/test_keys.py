import secrets
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from crewship import db
from crewship.clock import now
from crewship.errors import Conflict
from crewship.keys import any_key, find_key, granted, make_key, new_secret, revoke, store_first_key, weakness
from crewship.models import ApiKey
from tests.fixtures.postgres import postgres_server, postgres_url  # noqa: F401


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'crewship.db'}"
    engine = db.open_database(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
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
    assert granted(["env"]) == {"read", "env"}
    assert "env" not in granted(["deploy"])
    assert granted(["admin"]) == {"read", "invoke", "deploy", "env", "admin"}
    assert granted(["unheard-of"]) == frozenset()


@pytest.mark.parametrize(
    "secret",
    ["", "admin", "change-me", "change-me-" * 4, "0" * 64, "my-password-is-long-enough-0123456789", "abcdefghi" * 4],
)
def test_a_secret_that_others_could_guess_is_told(secret: str) -> None:
    assert weakness(secret)


def test_secrets_that_are_made_are_fit() -> None:
    assert not any(weakness(new_secret()) for _ in range(1000))
    assert not any(weakness(secrets.token_hex(32)) for _ in range(1000))


def test_the_last_admin_key_stays(engine: Engine) -> None:
    first, second = make_key("a", ["admin"]), make_key("b", ["admin"])
    others = [
        make_key("c", ["deploy", "invoke"]),
        make_key("d", ["admin"], project="crew"),
        make_key("e", ["admin"], expires_at=now() + timedelta(days=1)),
    ]
    with db.session(engine) as session:
        assert not any_key(session)
        session.add_all(key.row for key in (first, second, *others))
    with db.session(engine) as session:
        assert any_key(session)
        assert revoke(session, session.get_one(ApiKey, first.row.id))
        assert not revoke(session, session.get_one(ApiKey, first.row.id))
    with pytest.raises(Conflict, match="last admin key"), db.session(engine) as session:
        revoke(session, session.get_one(ApiKey, second.row.id))
    with db.session(engine) as session:
        assert all(revoke(session, session.get_one(ApiKey, key.row.id)) for key in others)
    assert find(engine, second.secret) is not None
    assert find(engine, first.secret) is None


def test_two_that_revoke_each_other_leave_one(engine: Engine) -> None:
    keys = [make_key("a", ["admin"]), make_key("b", ["admin"])]
    with db.session(engine) as session:
        session.add_all(key.row for key in keys)
    refused: list[Conflict] = []
    together = threading.Barrier(2)

    def drop(key_id: str) -> None:
        try:
            with db.session(engine) as session:
                row = session.get_one(ApiKey, key_id)
                together.wait(10)
                revoke(session, row)
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=drop, args=(key.row.id,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert sum(find(engine, key.secret) is not None for key in keys) == 1
