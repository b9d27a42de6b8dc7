"""What ``crewship init --template`` makes deploys and runs as it stands, without a model provider's key."""

import json
from pathlib import Path

import pytest

from tests.fixtures.platform import CrewshipDev

pytestmark = pytest.mark.platform


@pytest.mark.parametrize(
    ("template", "given", "artifact", "content", "events"),
    [
        ("python", {"text": "one two two"}, "summary.md", "3 words", set()),
        (
            "langgraph",
            {"question": "a b c"},
            "answer.md",
            "The tool says: 3",
            {"agent.started", "agent.completed", "tool.called", "llm.completed"},
        ),
        (
            "crewai",
            {"topic": "tides"},
            "report.md",
            "# Tides",
            {"agent.started", "agent.completed", "task.completed", "llm.completed"},
        ),
    ],
)
def test_a_new_project(
    platform: CrewshipDev,
    tmp_path: Path,
    template: str,
    given: dict[str, str],
    artifact: str,
    content: str,
    events: set[str],
) -> None:
    name = f"fresh-{template}"
    made = platform.crewship("init", "--template", template, name, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    deployed = platform.crewship("deploy", name, cwd=tmp_path)
    assert deployed.returncode == 0, deployed.stderr
    ran = platform.crewship("invoke", "--json", "-i", json.dumps(given), cwd=tmp_path / name)
    assert ran.returncode == 0, ran.stderr
    run = json.loads(ran.stdout)
    assert run["output"], run
    fetched = platform.crewship("runs", "download", run["id"], artifact, "-o", "-")
    assert content in fetched.stdout
    told = platform.events(run["id"])
    assert events <= {event["type"] for event in told}
    assert [event["data"] for event in told if event["data"].get("source") == "crewship"] == []
