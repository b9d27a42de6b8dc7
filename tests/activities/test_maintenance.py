"""Which containers belong to nothing any more."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from activities.maintenance import MaintenanceActivities, owner, strays
from activities.spares import Spares, Warmth
from crewship.contracts import container_name
from crewship.db import migrate, open_database, session
from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec, ContainerState, Engine, Limits
from crewship.errors import Unavailable
from crewship.models import Deployment, Project, Run


@pytest.mark.parametrize(
    ("name", "id"),
    [
        (container_name("run_0abc"), "run_0abc"),
        (container_name("run_0abc", 2), "run_0abc"),
        ("crewship-smoke-dep-0abc", "dep_0abc"),
        ("crewship-build-dep-0abc", "dep_0abc"),
        ("crewship-build-dep-0abc-deps", "dep_0abc"),
        ("crewship-spare-dep-0abc-1234", None),
        ("crewship-bench-0a1b2c", None),
        ("renamed", None),
    ],
)
def test_a_name_tells_what_it_was_made_for(name: str, id: str | None) -> None:
    assert owner(name) == id


def test_what_is_at_work_and_what_is_in_hand_stays() -> None:
    names = ["crewship-run-a-1", "crewship-run-b-1", "crewship-spare-dep-c-1", "crewship-spare-dep-c-2", "renamed"]
    assert strays(names, at_work={"run_a"}, in_hand={"crewship-spare-dep-c-1"}) == [
        "crewship-run-b-1",
        "crewship-spare-dep-c-2",
        "renamed",
    ]


class Containers:
    """An engine that has containers and nothing else."""

    def __init__(self, *names: str) -> None:
        self.left = set(names)

    def names(self) -> set[str]:
        return set(self.left)

    def remove(self, name: str) -> None:
        self.left.discard(name)


def test_a_container_goes_once_its_row_is_closed_or_gone(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(database)
    common: dict[str, Any] = {"project": "crew", "host": "h", "source_key": "k", "source_sha256": "s"}
    run: dict[str, Any] = {"project": "crew", "deployment_id": "dep_open", "timeout_seconds": 60, "env_version": 0}
    with session(database) as rows:
        for row in (
            Project(name="crew"),
            Deployment(id="dep_open", status="building", **common),
            Deployment(id="dep_done", status="ready", last_seq=9, **common),
            Run(id="run_open", **run),
            Run(id="run_done", last_seq=3, **run),
        ):
            rows.add(row)
            rows.flush()
    engine = Containers(
        *(f"crewship-run-{name}-1" for name in ("open", "done", "unknown")),
        *(f"crewship-{kind}-dep-{name}" for kind in ("smoke", "build") for name in ("open", "done", "unknown")),
        "crewship-build-dep-open-deps",
        "crewship-spare-dep-open-1",
    )
    spares = Spares(cast(Engine, engine), 0, 600, str)
    sweep = MaintenanceActivities(engine=cast(Engine, engine), database=database, in_hand=spares.names).sweep_containers
    assert sweep() == 7
    assert engine.left == {
        "crewship-run-open-1",
        "crewship-smoke-dep-open",
        "crewship-build-dep-open",
        "crewship-build-dep-open-deps",
    }
    assert sweep() == 0
    spares.close()
    database.dispose()


def test_a_spare_is_no_stray_while_it_is_being_renamed() -> None:
    """It has its old name still, and is in the hand no more."""

    class Renaming(Containers):
        def create(self, spec: ContainerSpec) -> str:
            self.left.add(spec.name)
            assert made.names() == {spec.name}
            created.set()
            return "id"

        def start(self, container: str) -> None:
            assert len(made.names()) == 1

        def inspect(self, container: str) -> ContainerState:
            return ContainerState("id", "", "running", None, False, {}, "")

        def rename(self, container: str, name: str) -> None:
            (old,) = self.left
            assert made.names() == {old}
            self.left = {name}

    created = threading.Event()
    made = Spares(cast(Engine, Renaming()), 1, 600, str)
    spec = ContainerSpec("", "image", Limits(1, 1.0, 1), "run", None, {LABEL_DEPLOYMENT: "dep_1"})
    made.replenish(spec, Warmth(0, 1, lambda nonce: b"", 1.0))
    assert created.wait(10)
    made._makers.shutdown(wait=True)
    assert len(made.names()) == 1
    taken = made.take(replace(spec, name="crewship-run-1-1"), 1)
    assert taken is not None
    assert taken.container == "id"
    assert made.names() == set()


def test_one_that_cannot_be_removed_keeps_none_of_the_others(tmp_path: Path) -> None:
    class Stuck(Containers):
        def names(self) -> list[str]:  # type: ignore[override]
            return sorted(self.left)

        def remove(self, name: str) -> None:
            if name == "crewship-run-a-1":
                raise Unavailable("The container engine refused a request: device or resource busy")
            super().remove(name)

    database = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(database)
    engine, forgotten = Stuck("crewship-run-a-1", "crewship-run-b-1"), []
    spares = Spares(cast(Engine, engine), 0, 600, str)
    maintenance = MaintenanceActivities(
        engine=cast(Engine, engine), database=database, in_hand=spares.names, forget_ended=lambda: forgotten.append(1)
    )
    with pytest.raises(Unavailable, match="busy"):
        maintenance.sweep_containers()
    assert engine.left == {"crewship-run-a-1"}
    assert forgotten == [1]
    spares.close()
    database.dispose()
