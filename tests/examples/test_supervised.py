"""The examples under the supervisor: what a reader of their events sees on the platform."""

from pathlib import Path

import pytest

from tests.examples.projects import copy
from tests.examples.supervised import supervise


def test_report_crew(tmp_path: Path) -> None:
    run = supervise(copy("report-crew", tmp_path), {"topic": "Harbour log", "rows": "port,calls\nOslo,41\nBergen,\n"})
    assert run.result["ok"]
    assert run.result["output"]["version"] == "1.0"
    assert run.artifacts == {"report.md", "data.json"}
    assert ("info", "rows: 2 with 2 columns") in run.lines
    assert ("warning", "report_crew: column 'calls': 1 of 2 values are missing") in run.lines
    assert [data["value"] for type_, data in run.events if type_ == "custom"] == [
        {"done": 1, "total": 2},
        {"done": 2, "total": 2},
    ]


def test_a_wrong_input_is_an_error_with_the_crews_traceback(tmp_path: Path) -> None:
    run = supervise(copy("report-crew", tmp_path), {"rows": 7})
    error = run.result["error"]
    assert error["code"] == "user_error"
    assert "input 'rows' must be CSV text with a header, or a list of objects" in error["message"]
    assert "report_crew/tables.py" in error["traceback"]


@pytest.mark.frameworks
def test_research_crew(tmp_path: Path) -> None:
    run = supervise(copy("research-crew", tmp_path), {"topic": "event streams"})
    assert run.result["ok"], run.result
    assert run.result["output"]["raw"].startswith("# Event streams")
    assert "report.md" in run.artifacts
    steps = [type_ for type_, _ in run.events if type_.startswith(("agent.", "tool."))]
    assert steps == [
        "agent.started",
        "tool.called",
        "tool.result",
        "agent.completed",
        "agent.started",
        "agent.completed",
    ]
    assert [data["agent"] for type_, data in run.events if type_ == "agent.started"] == ["Researcher", "Writer"]
    (call,) = [data for type_, data in run.events if type_ == "tool.called"]
    assert (call["tool"], call["input"]) == ("search_notes", {"query": "event streams"})
    models = [data for type_, data in run.events if type_ == "llm.completed"]
    assert len(models) == 3
    assert all(data["model"] == "offline" and data["output_tokens"] > 0 for data in models)


@pytest.mark.frameworks
def test_graph_agent(tmp_path: Path) -> None:
    run = supervise(copy("graph-agent", tmp_path), {"question": "What is 12% of 480?"})
    assert run.result["ok"], run.result
    assert run.result["output"]["answer"] == "- `12 / 100 * 480`: **57.6**"
    assert run.artifacts == {"answer.md"}
    nodes = [data["agent"] for type_, data in run.events if type_ == "agent.started"]
    assert nodes == ["model", "tools", "model", "report"]
    (call,) = [data for type_, data in run.events if type_ == "tool.called"]
    assert (call["tool"], call["input"]) == ("calculate", {"expression": "12 / 100 * 480"})
    (update,) = [data for type_, data in run.events if type_ == "custom"]
    assert update["value"] == {"name": "calculation", "done": 1, "of": 1, "result": "57.6"}
