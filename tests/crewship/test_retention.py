"""What goes and what stays, from what there is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.contracts import Removal
from crewship.retention import EndedRun, HostImage, Inventory, KnownDeployment, Policy, plan, superseded

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def policy(**changes: int) -> Policy:
    values = {
        "run_days": 0,
        "log_days": 0,
        "artifact_days": 0,
        "audit_days": 0,
        "keep_deployments": 2,
        "build_cache_days": 14,
    }
    return Policy(**{**values, **changes})


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def deployment(number: int, **changes: Any) -> KnownDeployment:
    """One that became ready ``number`` days ago."""
    values: dict[str, Any] = {
        "id": f"dep_{number}", "project": "crew", "created_at": ago(number), "ready_at": ago(number), "is_open": False,
        "is_used": False, "image": f"sha256:{number}", "source_key": f"sources/{number}",
    }  # fmt: skip
    return KnownDeployment(**{**values, **changes})


def image(number: int, **changes: Any) -> HostImage:
    values: dict[str, Any] = {
        "id": f"sha256:{number}", "size_bytes": 10, "created_at": ago(number), "deployment_id": f"dep_{number}",
        "name": f"crewship/app:dep_{number}", "is_used": False,
    }  # fmt: skip
    return HostImage(**{**values, **changes})


def dependencies(*children: int, **changes: Any) -> HostImage:
    return image(
        20, id="sha256:deps", deployment_id=None, name="crewship/deps:x",
        is_parent_of=frozenset(f"sha256:{child}" for child in children), **changes,
    )  # fmt: skip


def names(removals: list[Removal]) -> list[tuple[str, str]]:
    return [(removal.kind, removal.name) for removal in removals]


def test_nothing_goes_by_default_but_what_was_replaced() -> None:
    there = Inventory(
        deployments=tuple(deployment(number) for number in range(5)),
        runs=(EndedRun("run_1", ago(1000), has_log=True, has_artifacts=True),),
    )
    assert names(plan(there, policy(keep_deployments=10), NOW)) == []
    assert names(plan(there, policy(), NOW)) == [("source", f"sources/{number}") for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"run_days": 30}, ["run"]),
        ({"run_days": 30, "log_days": 1, "artifact_days": 1}, ["run"]),
        ({"log_days": 30, "artifact_days": 30}, ["artifacts", "log"]),
        ({"run_days": 32, "log_days": 32, "artifact_days": 32}, []),
    ],
)
def test_runs_by_age(changes: dict[str, int], kinds: list[str]) -> None:
    run = EndedRun("run_1", ago(31), has_log=True, has_artifacts=True)
    assert [removal.kind for removal in plan(Inventory(runs=(run,)), policy(**changes), NOW)] == kinds
    bare = EndedRun("run_1", ago(31), has_log=False, has_artifacts=False)
    assert [removal.kind for removal in plan(Inventory(runs=(bare,)), policy(**changes), NOW)] == [
        kind for kind in kinds if kind == "run"
    ]


def test_deployments_in_use_stay_beside_the_last_ones() -> None:
    deployments = [
        deployment(0, ready_at=None, is_open=True),
        deployment(1, ready_at=None),
        deployment(2),
        deployment(3),
        deployment(4, is_used=True),
        deployment(5),
        deployment(6, project="other"),
    ]
    assert superseded(deployments, 2) == {"dep_1": "it failed", "dep_5": "not among the last 2 of crew"}


def test_a_source_that_another_deployment_needs_stays() -> None:
    there = Inventory(deployments=(deployment(1), deployment(2), deployment(3, source_key="sources/1"), deployment(4)))
    assert names(plan(there, policy(), NOW)) == [("source", "sources/4")]
    gone = Inventory(deployments=(deployment(1), deployment(2), deployment(3, has_source=False)))
    assert names(plan(gone, policy(), NOW)) == []


def test_images_go_with_their_deployments_and_then_what_they_are_built_on() -> None:
    deployments = tuple(deployment(number, has_source=False) for number in (1, 2, 3, 4))
    images = (*(image(number) for number in (1, 2, 3, 4, 9)), dependencies(3, 4, 9))
    removals = plan(Inventory(deployments=deployments, images=images), policy(), NOW)
    assert names(removals) == [
        ("image", "sha256:3"),
        ("image", "sha256:4"),
        ("image", "sha256:9"),
        ("dependencies", "crewship/deps:x"),
    ]
    assert [removal.why for removal in removals] == [
        "of dep_3: not among the last 2 of crew",
        "of dep_4: not among the last 2 of crew",
        "its deployment is gone",
        "no deployment is built on it, and it was made over 14 days ago",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"images": (dependencies(1),)},
        {"images": (dependencies(created_at=ago(13)),)},
        {"images": (dependencies(is_used=True),)},
        {"images": (dependencies(),), "deployments": (deployment(0, ready_at=None, is_open=True),)},
        {"images": (image(3, is_used=True),)},
        {"images": (image(1),), "deployments": (deployment(1, ready_at=None, is_open=True, image=None),)},
    ],
    ids=["needed", "young", "in use", "a build may take it", "has a container", "being built"],
)
def test_images_that_stay(changes: dict[str, Any]) -> None:
    assert names(plan(Inventory(**changes), policy(), NOW)) == []


def test_an_image_that_was_built_again() -> None:
    there = Inventory(deployments=(deployment(1),), images=(image(1), image(2, deployment_id="dep_1")))
    assert names(plan(there, policy(), NOW)) == [("image", "sha256:2")]


def test_volumes_and_networks() -> None:
    there = Inventory(
        deployments=(deployment(1), deployment(15, project="idle")),
        volumes=frozenset({"cache-crew", "cache-idle", "cache-unused", "anonymous"}),
        networks=frozenset({"old0"}),
        caches={"cache-crew": "crew", "cache-idle": "idle", "cache-unused": "unused"},
    )
    assert names(plan(there, policy(), NOW)) == [
        ("volume", "anonymous"),
        ("volume", "cache-idle"),
        ("volume", "cache-unused"),
        ("network", "old0"),
    ]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.sampled_from("ab")), max_size=12),
    st.integers(1, 4),
)
def test_what_must_never_go_never_does(rows: list[tuple[bool, bool, bool, str]], keep: int) -> None:
    deployments = tuple(
        deployment(
            number, ready_at=ago(number) if is_ready else None, is_open=is_open, is_used=is_used, project=project
        )
        for number, (is_ready, is_open, is_used, project) in enumerate(rows)
    )
    images = tuple(image(number) for number in range(len(rows)))
    gone = {
        removal.name
        for removal in plan(Inventory(deployments=deployments, images=images), policy(keep_deployments=keep), NOW)
    }
    for project in "ab":
        newest = [d for d in deployments if d.project == project and d.ready_at is not None][:keep]
        used = [d for d in deployments if d.is_open or (d.is_used and d.ready_at is not None)]
        assert not {d.image for d in (*newest, *used)} & gone
        assert not {d.source_key for d in (*newest, *used)} & gone


@pytest.mark.parametrize(
    ("days", "count", "going"),
    [
        (0, 5, []),
        (30, 0, []),
        (1, 1, [("2026-05-31T00:00:00+00:00", "1 entry is over 1 day old")]),
        (30, 1234, [("2026-05-02T00:00:00+00:00", "1,234 entries are over 30 days old")]),
    ],
)
def test_the_audit_log_is_cut_at_a_midnight(days: int, count: int, going: list[tuple[str, str]]) -> None:
    there = Inventory(audit_count=count)
    for hours in (0, 23):
        removals = plan(there, policy(audit_days=days), NOW + timedelta(hours=hours))
        assert [(removal.name, removal.why) for removal in removals] == going
