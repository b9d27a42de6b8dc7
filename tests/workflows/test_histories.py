"""Committed histories of every workflow shape replay on today's code: what is under way survives a deploy of the platform."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.fixtures.sandbox import sandbox_runner
from tests.workflows.record import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_are_histories() -> None:
    assert {path.stem.partition("-")[0] for path in HISTORIES} == {"run", "deploy", "maintenance", "garbage"}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_it_replays(path: Path) -> None:
    recorded = json.loads(path.read_text())
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=sandbox_runner(),
        data_converter=pydantic_data_converter,
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(recorded["workflow_id"], recorded["history"]))
