"""Whose host is gone is told so, and nobody else."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from activities.abandoned import AbandonedActivities
from crewship.clock import now
from crewship.db import session as transaction
from crewship.errors import NotFound
from crewship.models import Deployment, Host, Run
from crewship.settings import Settings


class Bridge:
    """Notes what is signaled; has no workflow of ``deploy-dep_gone``."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str, str]] = []

    def signal(self, workflow_id: str, name: str, argument: str) -> None:
        if workflow_id == "deploy-dep_gone":
            raise NotFound("No such workflow")
        self.signals.append((workflow_id, name, argument))


def test_runs_and_builds_on_lost_hosts(database: Engine) -> None:
    bridge = Bridge()
    unseen = now() - timedelta(seconds=301)
    with transaction(database) as session:
        session.add_all([Host(name="h", checked_at=unseen), Host(name="alive")])
        run = session.get_one(Run, "run_1")
        run.launched_at = unseen
        session.add(run)
        common: dict[str, Any] = {"project": "crew", "source_key": "k", "source_sha256": "s"}
        session.add_all(
            Deployment(id=f"dep_{name}", host=host, last_seq=last_seq, **common)
            for name, host, last_seq in (
                ("gone", "h", None), ("waits", "h", None), ("ended", "h", 7), ("elsewhere", "alive", None),
            )
        )  # fmt: skip
    given: Any = bridge
    nothing: Any = None
    activities = AbandonedActivities(
        store=nothing, database=database, tail=nothing, bridge=given, settings=Settings(host_lost_seconds=300)
    )
    activities._tell_of_lost_hosts()
    assert sorted(bridge.signals) == [
        ("deploy-dep_1", "host_lost", "h"), ("deploy-dep_waits", "host_lost", "h"), ("run-run_1", "host_lost", "h"),
    ]  # fmt: skip


def test_a_row_that_cannot_be_closed_keeps_none_of_the_others(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def close(self: AbandonedActivities, row_id: str, workflow_id: str) -> int:
        if row_id == "run_1":
            raise ValueError("a segment is not what it was")
        closed.append(row_id)
        return 1

    monkeypatch.setattr(AbandonedActivities, "_close", close)
    nothing: Any = None
    activities = AbandonedActivities(
        store=nothing, database=database, tail=nothing, bridge=nothing, settings=Settings()
    )
    assert [activities._closed(row, f"run-{row}") for row in ("run_1", "run_2")] == [0, 1]
    assert closed == ["run_2"]
