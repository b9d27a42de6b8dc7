"""What is left behind goes by itself, and what is somebody else's stays."""

import asyncio
import sqlite3
from contextlib import closing

import docker
import pytest
from temporalio.client import Client

from crewship.engine import LABEL_INSTANCE, LABEL_KIND
from crewship.events import verify
from tests.fixtures.platform import CrewshipDev, until

pytestmark = pytest.mark.platform


def test_containers_that_belong_to_nothing(platform: CrewshipDev, probe: str) -> None:
    """As a killed worker leaves them: of a run and a build whose rows are gone, of a smoke boot, and a spare."""
    image = platform.run(probe, {"do": "tick", "count": 1})["deployment_id"]
    image = platform.get(f"/deployments/{image}")["image"]
    running = platform.start_run(probe, {"do": "catch"})
    platform.logged(running, "waiting")
    with closing(docker.from_env()) as engine:
        made = {
            kind: engine.containers.create(
                image, name=f"crewship-{name}", labels={LABEL_INSTANCE: platform.instance, LABEL_KIND: kind}
            )
            for kind, name in {
                "run": "run-0gone-1", "build": "build-dep-0gone-deps", "smoke": "smoke-dep-0gone", "spare": "spare-dep-0gone-1",
            }.items()
        }  # fmt: skip
        others = engine.containers.create(
            image, name="crewship-run-0others-1", labels={LABEL_INSTANCE: "reaper-test-others", LABEL_KIND: "run"}
        )
        inherits = engine.containers.create(image, name="crewship-reaper-test")  # the image's labels alone
        try:
            until(lambda: not {c.id for c in made.values()} & {c.id for c in platform.containers()})
            for container in (others, inherits):
                container.reload()
            assert platform.get(f"/runs/{running}")["status"] == "running"
            assert platform.containers(running.replace("_", "-"))
        finally:
            others.remove()
            inherits.remove()
    platform.http.post(f"/runs/{running}/cancel", json={"force": True})
    platform.ended(running)


def test_a_workflow_that_was_terminated(platform: CrewshipDev, probe: str) -> None:
    """Nobody is left to end the run; it ends all the same, with a whole log, and its container goes."""
    run_id = platform.start_run(probe, {"do": "catch"})
    platform.logged(run_id, "waiting")
    with (
        closing(sqlite3.connect(platform.data / "crewship.db", timeout=10)) as rows,
        rows,
    ):  # old enough to be looked at
        rows.execute("UPDATE run SET created_at = datetime(created_at, '-1 minute') WHERE id = ?", [run_id])

    async def terminate() -> None:
        client = await Client.connect(platform.temporal_address)
        await client.get_workflow_handle(f"run-{run_id}").terminate("by a test")

    asyncio.run(terminate())
    run = platform.ended(run_id)
    assert (run["status"], run["error"]["code"]) == ("failed", "infrastructure")
    lines = platform.read(f"/runs/{run_id}/events").splitlines()
    assert verify(lines)[0] == run["events"]["last_seq"]
    assert platform.events(run_id)[-1]["type"] == "run.failed"
    until(lambda: not platform.containers(run_id.replace("_", "-")))
