"""Committed histories of every workflow shape replay on today's code: what is under way survives a deploy of the platform."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.fixtures.platform import ROOT
from tests.fixtures.sandbox import sandbox_runner
from tests.workflows.record import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def recorded(path: Path) -> Any:
    return json.loads(path.read_text())


def test_every_workflow_has_some() -> None:
    sources = (ROOT / "workflows").glob("*.py")
    names = {name for path in sources for name in re.findall(r'@workflow\.defn\(name="(\w+)"\)', path.read_text())}
    started = [recorded(path)["history"]["events"][0]["workflowExecutionStartedEventAttributes"] for path in HISTORIES]
    assert {each["workflowType"]["name"] for each in started} == names


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_it_replays(path: Path) -> None:
    found = recorded(path)
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=sandbox_runner(),
        data_converter=pydantic_data_converter,
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(found["workflow_id"], found["history"]))
