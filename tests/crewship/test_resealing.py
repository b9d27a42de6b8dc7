"""Putting a new key in the old one's place: every value opens at every moment, wherever it is interrupted."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine
from sqlmodel import Session, col, select

from crewship import resealing
from crewship.build_secrets import context
from crewship.db import migrate, open_database, session
from crewship.models import BuildSecret, EnvVar, Project
from crewship.resealing import reseal, values_by_key
from crewship.sealing import Sealer, key_id

OLD, NEW = bytes(range(100, 132)), bytes(range(32, 64))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(engine)
    yield engine
    engine.dispose()


def fill(database: Engine, sealer: Sealer, count: int) -> None:
    with session(database) as opened:
        opened.add(Project(name="crew"))
        opened.flush()
        for number in range(count):
            opened.add(
                EnvVar(
                    project="crew", name=f"N{number}", sealed=sealer.seal(f"value {number}", f"crew/N{number}"), preview="…",
                    since_version=number, until_version=number + 1 if number % 3 else None,
                )
            )  # fmt: skip


def opened_values(database: Engine, sealer: Sealer) -> list[str]:
    with session(database) as opened:
        rows = opened.exec(select(EnvVar).order_by(col(EnvVar.id))).all()
    return [sealer.open(row.sealed, f"{row.project}/{row.name}") for row in rows]


def test_the_secrets_of_builds_get_their_new_seal(database: Engine) -> None:
    place = context("crew", "TOKEN")
    with session(database) as opened:
        opened.add(Project(name="crew"))
        opened.flush()
        opened.add(BuildSecret(project="crew", name="TOKEN", sealed=Sealer(OLD).seal("value", place)))
    assert reseal(database, Sealer(NEW, OLD)).count == 1
    assert values_by_key(database) == {key_id(NEW): 1}
    with session(database) as opened:
        assert Sealer(NEW).open(opened.exec(select(BuildSecret)).one().sealed, place) == "value"


def test_all_values_of_all_versions_get_their_new_seal(database: Engine) -> None:
    fill(database, Sealer(OLD), 450)
    seen: list[int] = []
    done = reseal(database, Sealer(NEW, OLD), seen.append)
    assert (done.count, done.damaged) == (450, [])
    assert seen == [200, 400, 450]
    assert values_by_key(database) == {key_id(NEW): 450}
    assert opened_values(database, Sealer(NEW)) == [f"value {number}" for number in range(450)]
    assert reseal(database, Sealer(NEW, OLD)).count == 0


def test_a_value_that_no_key_opens_is_named_and_left(database: Engine) -> None:
    fill(database, Sealer(OLD), 3)
    with session(database) as opened:
        opened.add(
            EnvVar(
                project="crew",
                name="LOST",
                sealed=Sealer(bytes(32)).seal("x", "crew/LOST"),
                preview="…",
                since_version=9,
            )
        )
        opened.add(EnvVar(project="crew", name="ODD", sealed="never sealed", preview="…", since_version=9))
    done = reseal(database, Sealer(NEW, OLD))
    assert (done.count, done.damaged) == (3, ["crew/LOST", "crew/ODD"])
    assert values_by_key(database) == {key_id(NEW): 3, key_id(bytes(32)): 1, "": 1}


def test_a_value_that_is_set_meanwhile_is_not_overwritten(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database, Sealer(OLD), 2)
    real = Sealer.open

    def open_and_set(sealer: Sealer, sealed: str, context: str) -> str:
        value = real(sealer, sealed, context)
        if context == "crew/N0":  # between the read and the write another process changes the row
            with session(database) as opened:
                row = opened.exec(select(EnvVar).where(EnvVar.name == "N0")).one()
                row.sealed = Sealer(OLD).seal("newer", "crew/N0")
        return value

    monkeypatch.setattr(Sealer, "open", open_and_set)
    assert reseal(database, Sealer(NEW, OLD)).count == 1
    monkeypatch.undo()
    assert opened_values(database, Sealer(NEW, OLD)) == ["newer", "value 1"]
    assert reseal(database, Sealer(NEW, OLD)).count == 1
    assert opened_values(database, Sealer(NEW)) == ["newer", "value 1"]


class _Killed(BaseException):
    pass


def test_stopped_before_or_after_any_transaction_it_goes_on_where_it_was(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, Sealer(OLD), 40)
    monkeypatch.setattr(resealing, "_BATCH", 7)
    stops = 0
    for moment in range(1, 100):
        steps = 0

        def step(moment: int = moment) -> None:
            nonlocal steps
            steps += 1
            if steps == moment % 6 + 1:
                raise _Killed

        @contextmanager
        def stopping(engine: Engine, step: Callable[[], None] = step) -> Iterator[Session]:
            step()
            with session(engine) as opened:
                yield opened
                step()  # rolled back
            step()  # committed

        monkeypatch.setattr(resealing, "session", stopping)
        try:
            reseal(database, Sealer(NEW, OLD))
        except _Killed:
            stops += 1
        else:
            break
        finally:
            monkeypatch.setattr(resealing, "session", session)
        assert opened_values(database, Sealer(NEW, OLD)) == [f"value {number}" for number in range(40)]
    assert stops > 6
    assert opened_values(database, Sealer(NEW)) == [f"value {number}" for number in range(40)]


_SUICIDE = """
import os, signal, sys
from crewship import resealing
from crewship.db import open_database
from crewship.sealing import Sealer

resealing._BATCH = 20
def look(count):
    if count == 60:
        os.kill(os.getpid(), signal.SIGKILL)
resealing.reseal(open_database(sys.argv[1]), Sealer(bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])), look)
"""


def test_killed_it_goes_on_where_it_was(database: Engine) -> None:
    fill(database, Sealer(OLD), 100)
    ended = subprocess.run([sys.executable, "-c", _SUICIDE, str(database.url), NEW.hex(), OLD.hex()], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert values_by_key(database) == {key_id(NEW): 60, key_id(OLD): 40}
    assert opened_values(database, Sealer(NEW, OLD)) == [f"value {number}" for number in range(100)]
    assert reseal(database, Sealer(NEW, OLD)).count == 40
    assert opened_values(database, Sealer(NEW)) == [f"value {number}" for number in range(100)]
