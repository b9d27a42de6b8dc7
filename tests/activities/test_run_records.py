"""A run's row, as its attempts write it: each is launched once, and none touches what is another's."""

import pytest
from sqlalchemy import Engine as Database
from sqlmodel import Session

from activities.run_records import LaunchedElsewhere, RunRecords
from crewship.db import session
from crewship.models import Run


def row(database: Database) -> Run:
    with Session(database) as rows:
        return rows.get_one(Run, "run_1")


def test_of_two_workers_that_found_nothing_launched_one_goes_on(database: Database) -> None:
    first, second = RunRecords(database, "run_1", 1), RunRecords(database, "run_1", 1)
    first.launch().result()
    launched_at = row(database).launched_at
    with pytest.raises(LaunchedElsewhere):
        second.launch().result()
    assert row(database).launched_at == launched_at


def test_an_attempt_begins_with_nothing_of_the_last_one(database: Database) -> None:
    first, second = RunRecords(database, "run_1", 1), RunRecords(database, "run_1", 2)
    first.launch().result()
    first.started(1_700_000_000_000).result()
    first.result(None, "Traceback of the first")
    assert not second.was_started()

    second.launch().result()
    assert (row(database).attempt, row(database).traceback) == (2, None)
    assert not second.was_started()
    second.started(1_700_000_100_000).result()
    assert second.started_at_ms() == 1_700_000_100_000
    begun = row(database).started_at
    assert begun is not None
    assert RunRecords.to_ms(begun) == 1_700_000_000_000  # the run's own start stays
    assert not first.was_started()


def test_a_worker_of_an_earlier_attempt_changes_nothing(database: Database) -> None:
    first, second = RunRecords(database, "run_1", 1), RunRecords(database, "run_1", 2)
    first.launch().result()
    second.launch().result()
    first.result("late", None)
    first.started(1).result()
    with pytest.raises(LaunchedElsewhere):
        first.launch().result()
    found = row(database)
    assert (found.output, found.started_at, found.attempt) == (None, None, 2)


def test_a_run_that_is_closed_is_not_launched(database: Database) -> None:
    with session(database) as rows:
        found = rows.get_one(Run, "run_1")
        found.last_seq = 1
        rows.add(found)
    with pytest.raises(LaunchedElsewhere):
        RunRecords(database, "run_1", 1).launch().result()


def test_a_traceback_is_a_text_that_every_database_takes(database: Database) -> None:
    records = RunRecords(database, "run_1", 1)
    records.launch().result()
    records.result(None, "ValueError: bad answer: a\0b")
    assert row(database).traceback == "ValueError: bad answer: a\\x00b"
