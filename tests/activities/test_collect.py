"""A run's files are collected once: whichever of two collections ends first counts, and none is undone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine as Database
from sqlmodel import select

from activities.collect import collect_artifacts
from crewship.db import session
from crewship.engine import ArchiveFile, Engine
from crewship.folder_storage import FolderStore
from crewship.models import Artifact, Run
from crewship.storage import read


class Container:
    """An engine's view of one container's files; ``files`` may change while it is read."""

    def __init__(self, **files: bytes) -> None:
        self.files = files

    def archive(self, container: str, path: str) -> Iterator[ArchiveFile]:
        for name, content in self.files.items():
            yield ArchiveFile(name, len(content), iter([content]))


def collect(container: Any, database: Database, store: FolderStore, limit_bytes: int = 1000) -> list[str]:
    """What was announced."""
    announced: list[str] = []
    collect_artifacts(
        "run_1",
        "crewship-run-1-1",
        engine=cast(Engine, container),
        store=store,
        database=database,
        limit_bytes=limit_bytes,
        announce=lambda artifacts: announced.extend(artifact.name for artifact in artifacts),
    )
    return announced


def kept(database: Database) -> tuple[str | None, int, list[str]]:
    with session(database) as rows:
        run = rows.get_one(Run, "run_1")
        return run.collected, run.artifact_count, sorted(rows.exec(select(Artifact.name)).all())


def test_a_second_collection_tells_the_same_and_changes_nothing(database: Database, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "objects")
    store.create()
    assert collect(Container(a=b"1", b=b"22"), database, store) == ["a", "b"]
    assert collect(Container(), database, store) == ["a", "b"]
    assert kept(database) == ("all", 2, ["a", "b"])
    with session(database) as rows:
        assert read(store, rows.get_one(Artifact, ("run_1", "b")).key) == b"22"


def test_a_slow_collection_does_not_undo_a_fast_one(database: Database, tmp_path: Path) -> None:
    """The slow one finds the container half removed: it sees nothing in it."""
    store = FolderStore(tmp_path / "objects")
    store.create()

    class HalfRemoved(Container):
        def archive(self, container: str, path: str) -> Iterator[ArchiveFile]:
            collect(Container(a=b"1"), database, store)
            yield from ()

    assert collect(HalfRemoved(), database, store) == ["a"]
    assert kept(database) == ("all", 1, ["a"])


def test_what_is_over_the_limit_is_remembered(database: Database, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "objects")
    store.create()
    assert collect(Container(a=b"1", b=b"22"), database, store, limit_bytes=2) == ["a"]
    assert kept(database) == ("some", 1, ["a"])
