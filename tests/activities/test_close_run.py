"""A run is closed once: what readers may have seen of its end is not written again."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.testing import ActivityEnvironment

from activities.runs import RunActivities
from crewship import archive
from crewship.contracts import CloseRunInput, Entry, run_workflow_id
from crewship.db import session as transaction
from crewship.folder_storage import FolderStore
from crewship.models import Run
from crewship.settings import Settings


class Tail:
    def publish(self, topic: str, message: bytes) -> None: ...


def closing(second: int) -> CloseRunInput:
    at = f"2026-01-31T09:05:0{second}.000Z"
    return CloseRunInput(
        run_id="run_1", status="succeeded", error=None, cancel=None, completed_at=at, duration_ms=1,
        log=[Entry(first=1, last=1, lines=f'{{"seq":1,"at":"{at}"}}\n')],
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "objects")
    made.create()
    return made


def close(database: Engine, store: FolderStore, second: int) -> None:
    nothing: Any = None
    tail: Any = Tail()
    runs = RunActivities(store=store, database=database, tail=tail, bridge=nothing, settings=Settings())
    ActivityEnvironment().run(runs.close_run, closing(second))


def archived(store: FolderStore) -> bytes:
    found = archive.Archive.open(store, run_workflow_id("run_1"))
    return b"".join(found.read(entry) for entry in found.entries)


def test_a_log_that_is_closed_is_not_archived_again(database: Engine, store: FolderStore) -> None:
    close(database, store, 1)
    seen = archived(store)
    close(database, store, 2)
    assert archived(store) == seen
    with transaction(database) as session:
        run = session.get_one(Run, "run_1")
    assert run.completed_at is not None
    assert (run.completed_at.second, run.last_seq) == (1, 1)


def test_a_deleted_run_leaves_no_log(database: Engine, store: FolderStore) -> None:
    with transaction(database) as session:
        session.delete(session.get_one(Run, "run_1"))
    close(database, store, 1)
    assert not archive.is_archived(store, run_workflow_id("run_1"))
