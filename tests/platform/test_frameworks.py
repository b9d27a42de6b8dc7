"""The examples with a framework, as they stand: what their agents do is told, complete and in order."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures.platform import CrewshipDev

pytestmark = [pytest.mark.platform, pytest.mark.timeout(900)]


def only(events: list[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] in types]


def paired(events: list[dict[str, Any]], begun: str, ended: str) -> int:
    """How many pairs there are; each end has its beginning before it, and none is left open."""
    open_, pairs = 0, 0
    for event in only(events, begun, ended):
        open_ += 1 if event["type"] == begun else -1
        assert open_ >= 0, f"{ended} before {begun}"
        pairs += event["type"] == ended
    assert open_ == 0, f"{open_} {begun} without {ended}"
    return pairs


def test_crewai(platform: CrewshipDev, deployed: Callable[[str], str]) -> None:
    run = platform.run(deployed("research-crew"), {"topic": "durable execution"})
    assert run["status"] == "succeeded", run
    events = platform.events(run["id"])
    assert events[0]["type"] == "run.started"
    assert events[-1]["type"] == "run.completed"
    agents = [event["data"]["agent"] for event in only(events, "agent.started")]
    assert len(agents) == 2
    assert len(set(agents)) == 2
    assert agents == [event["data"]["agent"] for event in only(events, "agent.completed")]
    assert paired(events, "agent.started", "agent.completed") == 2
    assert paired(events, "task.started", "task.completed") == 2
    assert paired(events, "tool.called", "tool.result") >= 1
    assert paired(events, "llm.called", "llm.completed") >= 2
    assert only(events, "agent.error", "task.error", "tool.error") == []
    assert all(event["data"]["task"] for event in only(events, "agent.started"))
    assert all(event["data"]["tool"] and event["data"]["input"] for event in only(events, "tool.called"))
    first = only(events, "agent.started", "tool.called", "agent.completed")
    assert [event["type"] for event in first[:2]] == ["agent.started", "tool.called"]
    report = platform.http.get(f"/runs/{run['id']}/artifacts/report.md")
    assert report.status_code == 200
    assert "durable" in report.text.lower()
    assert [event["data"]["name"] for event in only(events, "artifact")] == ["report.md"]
    assert run["output"]


def test_langgraph(platform: CrewshipDev, deployed: Callable[[str], str]) -> None:
    run = platform.run(deployed("graph-agent"), {"question": "What is 12% of 480, and (3 + 4) * 12 / 7?"})
    assert run["status"] == "succeeded", run
    assert "57.6" in str(run["output"])
    assert "12" in str(run["output"])
    events = platform.events(run["id"])
    agents = [event["data"]["agent"] for event in only(events, "agent.started")]
    assert agents[0] == "model"
    assert agents[-1] == "report"
    assert set(agents) == {"model", "tools", "report"}
    assert paired(events, "agent.started", "agent.completed") == len(agents)
    assert paired(events, "tool.called", "tool.result") == 2
    assert {event["data"]["tool"] for event in only(events, "tool.called")} == {"calculate"}
    assert paired(events, "llm.called", "llm.completed") >= 2
    assert len(only(events, "custom")) == 2
    answer = platform.http.get(f"/runs/{run['id']}/artifacts/answer.md")
    assert "57.6" in answer.text


AGENT = """
from pathlib import Path

import crewship_runtime as crewship
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage


def answer(messages, info):
    usage = RequestUsage(input_tokens=11, output_tokens=7)
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("search_notes", {"query": "ships"})], usage=usage)
    return ModelResponse(parts=[TextPart("offline answer")], usage=usage)


agent = Agent(FunctionModel(answer, model_name="offline"), name="Researcher")


@agent.tool_plain
def search_notes(query: str) -> str:
    return f"found {query}"


def kickoff(inputs):
    crewship.progress(1, 2)
    Path("notes").mkdir()
    Path("notes/draft.md").write_text("relative")
    Path("kept.md").write_text("kept")
    crewship.artifact("kept.md")
    return {"text": agent.run_sync(inputs["topic"]).output, "score": float("nan")}
"""


def test_pydantic_ai_and_what_a_run_is_told_at_its_end(platform: CrewshipDev) -> None:
    files = {
        "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
        "requirements.txt": "pydantic-ai-slim==2.68.0\n",
        "crew.py": AGENT,
    }
    assert platform.deploy("agent", files)["status"] == "ready"
    run = platform.run("agent", {"topic": "ships"})
    assert run["status"] == "succeeded", run
    assert run["output"] == {"text": "offline answer", "score": None}
    events = platform.events(run["id"])
    told = only(events, "agent.started", "tool.called", "tool.result", "agent.completed")
    assert [event["type"] for event in told] == ["agent.started", "tool.called", "tool.result", "agent.completed"]
    assert {event["data"]["agent"] for event in told} == {"Researcher"}
    assert told[1]["data"]["input"] == {"query": "ships"}
    models = [event["data"] for event in only(events, "llm.completed")]
    assert [(data["model"], data["input_tokens"], data["output_tokens"]) for data in models] == [("offline", 11, 7)] * 2
    assert only(events, "custom")[0]["data"]["value"] == {"done": 1, "total": 2}
    assert [event["data"]["name"] for event in only(events, "artifact")] == ["kept.md"]
    warnings = [event["data"]["message"] for event in only(events, "log") if event["data"]["level"] == "warning"]
    assert any(line.startswith('output["score"] is NaN or infinite') for line in warnings)
    assert any("not kept: notes/draft.md." in line for line in warnings)
