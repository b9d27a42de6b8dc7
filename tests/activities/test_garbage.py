"""What is planned is taken, once, and never what came into use meanwhile."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine as Database
from sqlmodel import col, select
from temporalio.testing import ActivityEnvironment

from activities.garbage import GarbageActivities
from activities.spares import Spares
from crewship import archive
from crewship.clock import now
from crewship.contracts import Actor, Entry, GarbageInput, GarbageResult
from crewship.db import migrate, open_database, session
from crewship.engine import Engine, ImageState
from crewship.errors import Conflict
from crewship.events import GENESIS, Draft, render
from crewship.folder_storage import FolderStore
from crewship.models import Activation, Artifact, AuditCut, AuditEntry, Deployment, Project, Run, RunLabel, Upload
from crewship.objects import part_key
from crewship.projects import rollback_target, switch
from crewship.settings import Settings

OLD = now() - timedelta(days=40)


class Host:
    """An engine with images and nothing else."""

    def __init__(self, *images: str) -> None:
        self.left = list(images)
        self.used: set[str] = set()

    def images(self) -> list[ImageState]:
        return [ImageState(name, name, 7, OLD, name.removeprefix("image_"), frozenset()) for name in self.left]

    def images_in_use(self) -> set[str]:
        return self.used

    def dangling_volumes(self) -> set[str]:
        return set()

    def networks(self) -> set[str]:
        return {"crewship0"}

    def remove_image(self, image: str) -> None:
        self.left.remove(image)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "objects")
    made.create()
    return made


def add(database: Database, *rows: Any) -> None:
    with session(database) as opened:
        for row in rows:
            opened.add(row)
            opened.flush()


def deployment(number: int, **values: Any) -> Deployment:
    """Larger numbers are newer."""
    common: dict[str, Any] = {
        "id": f"dep_{number}", "project": "crew", "host": "here", "status": "ready", "last_seq": 3,
        "source_key": f"sources/{number}", "source_sha256": "s", "image": f"image_dep_{number}",
        "ready_at": OLD + timedelta(hours=number),
    }  # fmt: skip
    return Deployment(**{**common, **values})


class Collecting:
    def __init__(self, database: Database, store: FolderStore, host: Host, **settings: Any) -> None:
        self.activities = GarbageActivities(
            engine=cast(Engine, host),
            store=store,
            database=database,
            spares=Spares(cast(Engine, host), 0, 600, str),
            settings=Settings(host="here", **settings),
        )

    def records(self, limit: int = 100, *, dry_run: bool = False) -> GarbageResult:
        return ActivityEnvironment().run(self.activities.collect_records, GarbageInput(dry_run=dry_run, limit=limit))

    def host(self, limit: int = 100, *, dry_run: bool = False) -> GarbageResult:
        return ActivityEnvironment().run(self.activities.collect_on_host, GarbageInput(dry_run=dry_run, limit=limit))


def test_old_entries_of_the_audit_log(database: Database, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a day, in pieces, and told of by an entry that stays."""
    monkeypatch.setattr("activities.garbage._AUDIT_BATCH", 2)
    for days in (45, 40, 35, 31.5, 28, 0):
        add(database, AuditEntry(at=now() - timedelta(days=days), action="key.created", actor="a", target=str(days)))

    def left() -> list[str | None]:
        with session(database) as rows:
            return list(rows.exec(select(AuditEntry.target).where(AuditEntry.action == "key.created")))

    assert Collecting(database, store, Host()).records().removals == [], "kept for ever unless somebody says otherwise"
    collecting = Collecting(database, store, Host(), audit_retention_days=30)
    [shown] = collecting.records(dry_run=True).removals
    assert (shown.kind, shown.why) == ("audit", "4 entries are over 30 days old")
    assert datetime.fromisoformat(shown.name).time() == time(0)
    assert len(left()) == 6

    taken = collecting.activities._take_audit

    def killed(cut: str) -> None:
        raise ConnectionError("killed behind the note")

    monkeypatch.setattr(collecting.activities, "_take_audit", killed)
    with pytest.raises(ConnectionError):
        collecting.records()
    monkeypatch.setattr(collecting.activities, "_take_audit", taken)
    for _ in range(2):
        collecting.records()
        assert left() == ["28", "0"]
    with session(database) as rows:
        notes = rows.exec(select(AuditEntry.before).where(AuditEntry.action == "garbage.removed")).all()
        cuts = rows.exec(select(AuditCut)).all()
    assert [[found["why"] for found in (note or {})["removals"]] for note in notes] == [[shown.why], [shown.why]]
    assert len(cuts) == 1


def test_runs_logs_and_artifacts(database: Database, store: FolderStore) -> None:
    run: dict[str, Any] = {"project": "crew", "deployment_id": "dep_1", "timeout_seconds": 60, "env_version": 0}
    add(database, Project(name="crew", current_deployment_id="dep_1"), deployment(1))
    for name, days in (("run_oldest", 35), ("run_old", 15), ("run_new", 1)):
        drafts = [Draft("2026-01-01T00:00:00.000Z", "log", {"message": str(number)}) for number in range(9)]
        lines, last, _ = render(drafts, 1, GENESIS)
        archive.write(store, f"run-{name}", [Entry(first=1, last=last, lines=lines.decode())])
        store.put(f"runs/{name}/artifacts/a", b"12345")
        add(
            database,
            Run(id=name, status="succeeded", last_seq=last, completed_at=now() - timedelta(days=days), artifact_count=1, **run),
            RunLabel(run_id=name, key="k", value="v"),
            Artifact(run_id=name, name="a", size_bytes=5, content_type="t", sha256="s", key=f"runs/{name}/artifacts/a"),
        )  # fmt: skip
    add(database, Run(id="run_open", launched_at=OLD, created_at=OLD, **run))
    collecting = Collecting(
        database, store, Host(), run_retention_days=30, artifact_retention_days=10, log_retention_days=10
    )

    shown = collecting.records(dry_run=True)
    assert [(r.kind, r.name) for r in shown.removals] == [
        ("run", "run_oldest"), ("artifacts", "run_old"), ("log", "run_old"),
    ]  # fmt: skip
    assert [r.bytes is not None and r.bytes > 4 for r in shown.removals] == [True] * 3
    assert (shown.more, shown.hosts) == (False, ["here"])
    assert collecting.records(1).more
    assert collecting.records().removals == shown.removals[1:]
    assert collecting.records().removals == []
    with session(database) as rows:
        assert sorted(rows.exec(select(Run.id, Run.artifact_count, Run.log_trimmed)).all()) == [
            ("run_new", 1, False), ("run_old", 0, True), ("run_open", 0, False),
        ]  # fmt: skip
        assert list(rows.exec(select(Artifact.run_id))) == ["run_new"]
        assert sorted(rows.exec(select(RunLabel.run_id))) == ["run_new", "run_old"]
    assert {found.key.split("/")[1] for found in store.list("runs/")} == {"run_new", "run_old"}
    assert archive.Archive.open(store, "run-run_old").last_seq == 9
    assert [found.key for found in store.list("runs/run_old/artifacts/")] == []


def test_images_and_sources_of_what_was_replaced(database: Database, store: FolderStore) -> None:
    """Five deployments of which one is kept; 5 is current, a rollback goes to 2, and 3 has a run."""
    add(
        database,
        Project(name="crew", current_deployment_id="dep_5"),
        *(deployment(number) for number in range(1, 6)),
        deployment(6, status="failed", ready_at=None),
        Activation(project="crew", deployment_id="dep_2", previous_deployment_id="dep_1"),
        Activation(project="crew", deployment_id="dep_5", previous_deployment_id="dep_2"),
        Run(id="run_1", project="crew", deployment_id="dep_3", timeout_seconds=60, env_version=0),
    )
    for number in range(1, 7):
        store.put(f"sources/{number}", b"source")
    host = Host(*(f"image_dep_{number}" for number in range(1, 7)))
    collecting = Collecting(database, store, host, keep_deployments=1)

    assert [r.name for r in collecting.host(dry_run=True).removals] == ["image_dep_1", "image_dep_4", "image_dep_6"]
    assert len(host.left) == 6
    host.used = {"image_dep_1"}  # by a container of somebody's
    assert [(r.name, r.bytes, r.host) for r in collecting.host().removals] == [
        ("image_dep_4", 7, "here"), ("image_dep_6", 7, "here"),
    ]  # fmt: skip
    host.used = set()
    assert [r.name for r in collecting.host().removals] == ["image_dep_1"]
    assert collecting.host().removals == []
    assert host.left == ["image_dep_2", "image_dep_3", "image_dep_5"]
    assert sorted(r.name for r in collecting.records().removals) == ["sources/1", "sources/4", "sources/6"]
    assert collecting.records().removals == []
    assert [found.key for found in store.list("sources/")] == ["sources/2", "sources/3", "sources/5"]

    with session(database) as rows:
        told = [(entry.actor, entry.before) for entry in rows.exec(select(AuditEntry).order_by(col(AuditEntry.id)))]
    assert {actor for actor, _ in told} == {"platform"}
    names = [[item["name"] for item in before["removals"]] for _, before in told if before is not None]
    assert names[:2] == [["image_dep_4", "image_dep_6"], ["image_dep_1"]]
    assert sorted(names[2]) == ["sources/1", "sources/4", "sources/6"]
    assert len(names) == 3  # a dry run, and one that finds nothing, is no change

    with session(database) as rows:
        assert rollback_target(rows, "crew", None).id == "dep_2"
        with pytest.raises(Conflict) as refused:
            rollback_target(rows, "crew", "dep_4")
    assert refused.value.code == "image_missing"
    assert "crewship deploy" in str(refused.value.hint)


def test_what_became_current_after_the_plan_stays(database: Database, store: FolderStore) -> None:
    add(database, Project(name="crew", current_deployment_id="dep_2"), deployment(1), deployment(2), deployment(3))
    host = Host("image_dep_1", "image_dep_2", "image_dep_3")
    activities = Collecting(database, store, host, keep_deployments=1).activities
    with session(database) as rows:
        switch(rows, "crew", "dep_1", Actor(key_id="key_1"), kind="rollback")
    assert not activities._give_up_image("dep_1", "image_dep_1")
    assert not activities._give_up_image("dep_2", "image_dep_2")  # what a rollback goes to
    assert activities._give_up_image("dep_3", "image_dep_3")
    with pytest.raises(Conflict), session(database) as rows:
        switch(rows, "crew", "dep_3", Actor(key_id="key_1"), kind="rollback")
    with session(database) as rows:
        assert rows.get_one(Project, "crew").current_deployment_id == "dep_1"


def test_uploads_that_nobody_goes_on_with(database: Database, store: FolderStore) -> None:
    abandoned, fresh, stray = ("a" * 64, "b" * 64, "c" * 64)
    for digest in (abandoned, fresh, stray):
        for number in range(2):
            store.put(part_key("crew", digest, number), b"12345")
    two_days_ago = now() - timedelta(days=2)
    add(
        database,
        Upload(project="crew", source_sha256=abandoned, size_bytes=10, touched_at=two_days_ago),
        Upload(project="crew", source_sha256=fresh, size_bytes=10, created_at=two_days_ago),
    )
    collecting = Collecting(database, store, Host())
    shown = collecting.records(dry_run=True)
    assert [(r.kind, r.name, r.bytes) for r in shown.removals] == [
        ("upload", f"crew/{abandoned}", 10), ("upload", f"crew/{stray}", 10),
    ]  # fmt: skip
    assert len(list(store.list("uploads/"))) == 6
    assert collecting.records().removals == shown.removals
    assert collecting.records().removals == []
    assert {found.key for found in store.list("")} == {part_key("crew", fresh, number) for number in range(2)}
    with session(database) as rows:
        assert list(rows.exec(select(Upload.source_sha256))) == [fresh]


def test_an_upload_that_went_on_after_the_plan_stays(database: Database, store: FolderStore) -> None:
    add(database, Upload(project="crew", source_sha256="a" * 64, size_bytes=5))
    store.put(part_key("crew", "a" * 64, 0), b"12345")
    Collecting(database, store, Host()).activities._take_upload(f"crew/{'a' * 64}")
    assert len(list(store.list("uploads/"))) == 1
