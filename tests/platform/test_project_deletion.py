"""Deleting a project takes everything it had, and nothing else."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from temporalio.client import Client

from tests.fixtures.platform import CrewshipDev, until

pytestmark = pytest.mark.platform

FILES = {
    "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
    "crew.py": "import time\n\n\ndef kickoff(inputs):\n    open('artifacts/a.txt', 'w').write('a')\n"
    "    print('here', flush=True)\n    time.sleep(inputs.get('seconds', 0))\n",
}


def traces(platform: CrewshipDev, *needles: str) -> list[str]:
    """Where one of ``needles`` still stands: rows and objects. The audit log is kept; it has names and no content."""
    found = []
    with closing(sqlite3.connect(f"file:{platform.data}/crewship.db?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables.remove("audit")
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                if any(needle in str(value) for needle in needles for value in row):
                    found.append(f"{table}: {row}")
    for path in (platform.data / "objects").rglob("*"):
        if any(needle in str(path) for needle in needles):
            found.append(str(path))
    return found


def histories(platform: CrewshipDev, *ids: str) -> list[str]:
    """The workflows that have to do with one of ``ids`` and that the workflow engine still knows."""

    async def known() -> list[str]:
        client = await Client.connect(platform.temporal_address)
        return [found.id async for found in client.list_workflows() if any(name in found.id for name in ids)]

    return asyncio.run(known())


def test_everything_goes(platform: CrewshipDev) -> None:
    project, kept = "short-lived", "long-lived"
    platform.http.patch(f"/projects/{project}/env", json={"set": {"KEY": "value"}})
    deployments = [platform.deploy(project, FILES)["id"] for _ in range(2)]
    other = platform.deploy(kept, FILES)["id"]  # the same source, which must stay
    run = platform.run(project, labels={"a": "b"})
    assert run["artifact_count"] == 1
    source = platform.get(f"/deployments/{other}")["source_sha256"]
    busy = platform.start_run(project, {"seconds": 600})
    platform.logged(busy, "here")
    assert platform.images(deployments[0])
    assert len(traces(platform, project, run["id"])) > 5
    assert platform.http.post(f"/projects/{project}/rollback").status_code == 200
    until(lambda: len(histories(platform, project, run["id"], busy, *deployments)) == 5)

    refused = platform.http.delete(f"/projects/{project}")
    assert (refused.status_code, refused.json()["code"]) == (409, "project_has_active_runs")
    assert "force" in refused.json()["hint"]
    assert platform.get(f"/projects/{project}")["status"] == "active"

    accepted = platform.http.delete(f"/projects/{project}", params={"force": "true"})
    assert (accepted.status_code, accepted.json()["status"]) == (202, "deleting")
    late = platform.http.post("/runs", json={"project": project})
    assert (late.status_code, late.json()["code"]) in ((409, "project_deleting"), (404, "project_not_found"))
    until(lambda: platform.http.get(f"/projects/{project}").status_code == 404, 60)

    for path in (
        f"/projects/{project}/env", f"/projects/{project}/deployments", f"/deployments/{deployments[0]}",
        f"/deployments/{deployments[0]}/events", f"/runs/{run['id']}", f"/runs/{run['id']}/events",
        f"/runs/{run['id']}/artifacts", f"/runs/{run['id']}/artifacts/a.txt", f"/runs/{busy}",
    ):  # fmt: skip
        assert platform.http.get(path).status_code == 404, path
    assert traces(platform, project, run["id"], busy, *deployments) == []
    assert [image.tags for deployment in deployments for image in platform.images(deployment)] == []
    assert platform.containers(busy.replace("_", "-")) == []
    assert traces(platform, source) != []
    until(
        lambda: histories(platform, run["id"], busy, *deployments, f"rollback-{project}") == [], 90
    )  # it takes Temporal 20 s
    assert platform.run(kept)["status"] == "succeeded"
    again = platform.deploy(project, FILES)  # the name is free
    assert again["status"] == "ready"
    assert platform.get(f"/projects/{project}/env")["env"] == []


def test_no_such_project(platform: CrewshipDev) -> None:
    answer = platform.http.delete("/projects/never-was")
    assert (answer.status_code, answer.json()["code"]) == (404, "project_not_found")
