"""What a host knows about its deployments."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.deployments import DeploymentActivities
from crewship import contents
from crewship.clock import now
from crewship.contracts import CloseDeploymentInput, RecognizeInput, RunError
from crewship.db import session as transaction
from crewship.errors import Unavailable
from crewship.folder_storage import FolderStore
from crewship.models import Deployment
from crewship.system_packages import SystemPackages


@dataclass
class Builder:
    """Says what a build would begin with."""

    recipe: str = "recipe"
    bases: dict[str | None, str] = field(default_factory=lambda: {"3.12": "sha256:base"})

    def base_now(self, python: str | None) -> str | None:
        return self.bases.get(python)


class Images:
    """An engine that has images."""

    def __init__(self) -> None:
        self.there = {"sha256:image"}
        self.is_away = False

    def image_exists(self, image: str) -> bool:
        if self.is_away:
            raise Unavailable("The container engine (Docker) cannot be reached")
        return image in self.there


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def activities(database: Engine, builder: Any, images: Any) -> DeploymentActivities:
    with transaction(database) as session:
        session.add(
            Deployment(
                id="dep_2", project="crew", status="ready", host="h", source_key="s", source_sha256="0", recipe="recipe",
                image="sha256:image", base_image="sha256:base", base_python="3.12",
            )
        )  # fmt: skip
    rest: Any = None
    return DeploymentActivities(
        engine=images, builder=builder, database=database, store=rest, tail=rest, bridge=rest, sealer=rest, spares=rest,
        closed=rest,
        settings=rest,
    )  # fmt: skip


def recognized(activities: DeploymentActivities, deployment_id: str = "dep_2") -> bool:
    asked = RecognizeInput(deployment_id=deployment_id, project="crew")
    return ActivityEnvironment().run(activities.recognize, asked).same


def test_a_deployment_is_recognized_by_recipe_base_and_image(
    activities: DeploymentActivities, builder: Builder, images: Images
) -> None:
    assert recognized(activities)
    builder.recipe = "of a newer platform"
    assert not recognized(activities)
    builder.recipe = "recipe"
    builder.bases["3.12"] = "sha256:rebuilt"
    assert not recognized(activities)
    del builder.bases["3.12"]  # it would have to be made first
    assert not recognized(activities)
    builder.bases["3.12"] = "sha256:base"
    images.there.clear()
    assert not recognized(activities)
    assert not recognized(activities, "dep_gone")


def test_nothing_can_be_told_without_the_engine(activities: DeploymentActivities, images: Images) -> None:
    images.is_away = True
    with pytest.raises(ApplicationError) as caught:
        recognized(activities)
    assert caught.value.type == "Unavailable"


def test_the_lock_of_the_last_deployment_with_the_same_dependencies(
    activities: DeploymentActivities, database: Engine, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "objects")
    store.create()
    activities._store = store
    common: dict[str, Any] = {"project": "crew", "host": "h", "source_key": "s", "source_sha256": "0"}
    with transaction(database) as session:
        session.add_all(
            Deployment(id=f"dep_{name}", dependency_key=key, created_at=now() + timedelta(hours=hours), **common)
            for name, key, hours in (("old", "a", 1), ("new", "a", 2), ("other", "b", 3), ("unbuilt", "c", 4))
        )
    for name in ("old", "new", "other"):
        build = contents.Build("base", "sha256:0", "3.11.2", f"{name}==1\n", SystemPackages.parse(b"", b""))
        contents.keep_build(store, f"dep_{name}", build)
    assert activities._kept_lock("a") == "new==1\n"
    assert activities._kept_lock("b") == "other==1\n"
    assert activities._kept_lock("c") is None
    assert activities._kept_lock("d") is None


@pytest.mark.parametrize(("ready", "status"), [(False, "failed"), (True, "ready")])
def test_what_was_marked_ready_stays_so_when_its_host_is_lost(
    activities: DeploymentActivities, database: Engine, monkeypatch: pytest.MonkeyPatch, ready: bool, status: str
) -> None:
    with transaction(database) as session:
        row = session.get_one(Deployment, "dep_2")
        row.status, row.ready_at = ("ready", now()) if ready else ("building", None)
        session.add(row)
    monkeypatch.setattr("activities.deployments.archive_log", lambda *_, **__: 5)
    tail: Any = SimpleNamespace(publish=lambda *_: None)
    activities._tail = tail
    error = RunError(code="host_lost", message="The host cannot be reached any more")
    activities._close(CloseDeploymentInput(deployment_id="dep_2", error=error, at="2026-01-01T00:00:00.000Z"))
    with transaction(database) as session:
        row = session.get_one(Deployment, "dep_2")
        assert (row.status, row.last_seq) == (status, 5)
        assert (row.error or {}).get("code") == (None if ready else "host_lost")
