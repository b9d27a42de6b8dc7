"""What a person finds in the workflow engine: runs by project, deployment and status, what each step does, and no secret."""

import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToJson
from temporalio.client import Client, WorkflowExecutionStatus

from tests.fixtures.platform import CREWS, CrewshipDev

pytestmark = pytest.mark.platform

PROJECT = "watched"
SECRET = "sk-8Qw2-swept-by-the-temporal-test"
INPUT = "input-marker-2d9f41"
SOURCE = "def unspeakable"


@pytest_asyncio.fixture
async def client(platform: CrewshipDev) -> AsyncIterator[Client]:
    yield await Client.connect(platform.temporal_address)


@pytest.fixture(scope="module")
def watched(platform: CrewshipDev) -> dict[str, str]:
    """A project with a secret, a deployment, a rollback, and runs of each status; ids by what they are."""
    platform.http.patch(f"/projects/{PROJECT}/env", json={"set": {"TOKEN": SECRET}})
    ids = {name: platform.deploy(PROJECT, CREWS / "probe", name="probe")["id"] for name in ("first", "current")}
    given = {"marker": INPUT}
    ids["succeeded"] = platform.run(PROJECT, {"do": "environment", "names": ["TOKEN"], **given})["id"]
    ids["failed"] = platform.run(PROJECT, {"do": "crash", **given})["id"]
    waiting = platform.start_run(PROJECT, {"do": "wait", **given})
    platform.logged(waiting, "waiting")
    platform.http.post(f"/runs/{waiting}/cancel", json={"force": True})
    ids["canceled"] = platform.ended(waiting)["id"]
    assert platform.http.post(f"/projects/{PROJECT}/rollback").status_code == 200
    return ids


async def test_runs_are_found_by_what_they_are(client: Client, watched: dict[str, str]) -> None:
    async def found(query: str) -> set[str]:
        return {execution.id async for execution in client.list_workflows(query)}

    runs = {f"run-{watched[status]}" for status in ("succeeded", "failed", "canceled")}
    deploys = {f"deploy-{watched[name]}" for name in ("first", "current")}
    here = f"CrewshipProject = '{PROJECT}'"
    everything = await found(here)
    assert {name for name in everything if not name.startswith("rollback-")} == runs | deploys
    assert len(everything) == len(runs | deploys) + 1
    assert await found(f"{here} AND WorkflowType = 'Run'") == runs
    assert await found(f"WorkflowType = 'Run' AND CrewshipDeployment = '{watched['current']}'") == runs
    for status in ("succeeded", "failed", "canceled"):
        assert await found(f"{here} AND CrewshipStatus = '{status}'") == {f"run-{watched[status]}"}
    assert await found(f"{here} AND CrewshipStatus = 'ready'") == deploys


async def test_each_tells_what_it_is_and_does(client: Client, watched: dict[str, str]) -> None:
    for workflow_id in (f"run-{watched['succeeded']}", f"deploy-{watched['current']}"):
        handle = client.get_workflow_handle(workflow_id)
        description = await handle.describe()
        assert description.status is WorkflowExecutionStatus.COMPLETED
        assert PROJECT in str(await description.static_summary())
        assert workflow_id.partition("-")[2] in str(await description.static_details())
        history = await handle.fetch_history()
        scheduled = [e for e in history.events if e.HasField("activity_task_scheduled_event_attributes")]
        assert scheduled
        for event in scheduled:
            assert event.user_metadata.HasField("summary"), event


async def test_no_secret_no_input_and_no_source_is_in_any_history(
    client: Client, platform: CrewshipDev, watched: dict[str, str]
) -> None:
    needles = {"a secret": SECRET, "an input": INPUT, "source": SOURCE, "a key": platform.key}
    count = 0
    async for execution in client.list_workflows():
        history = await client.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
        for event in history.events:
            text = _readable(MessageToJson(event))
            count += 1
            for name, needle in needles.items():
                assert needle not in text, f"{name} is in {execution.id}: {text[:500]}"
    assert count > 50
    # Whatever else the engine keeps: memos, search attributes, heartbeats.
    with closing(sqlite3.connect(f"file:{platform.data}/temporal.db?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    data = value if isinstance(value, bytes) else str(value).encode()
                    for name, needle in needles.items():
                        assert needle.encode() not in data, f"{name} is in {table}"


def _readable(text: str) -> str:
    """JSON with the base64 payloads in it decoded."""
    parts = [text]
    for piece in text.split('"'):
        try:
            parts.append(base64.b64decode(piece, validate=True).decode())
        except ValueError:
            continue
    return "\n".join(parts)
