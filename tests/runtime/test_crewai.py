"""What CrewAI projects do beside one crew's ``kickoff``: flows of crews, their own ``await``, folders, questions, retries."""

from pathlib import Path
from typing import Any

import pytest

from .harness import Run, complete
from .provider import PROVIDER, WATCH
from .venvs import FRAMEWORKS, python_of

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]

CREWS = """
import watch, provider
from crewai import Agent, Crew, LLM, Task
from crewai.tools import tool

def llm():
    return LLM(model="openai/gpt-4o-mini", base_url=provider.URL, api_key="sk-none")

def crew(name, agent_options=None, task_options=None, **options):
    agent = Agent(role=name.title(), goal="g {topic}", backstory="b", llm=llm(), **(agent_options or {}))
    task = Task(name=name, description=f"{name} {{topic}}", expected_output="text", agent=agent, **(task_options or {}))
    return Crew(name=name, agents=[agent], tasks=[task], **options)
"""


def ran(
    folder: Path, code: str, value: dict[str, Any] | None = None, entrypoint: str = "main:kickoff", **files: str
) -> Run:
    project: dict[str, str | bytes] = {"provider.py": PROVIDER, "watch.py": WATCH, "crews.py": CREWS, "main.py": code}
    project.update({name.replace("__", "/").replace("_md", ".md"): text for name, text in files.items()})
    run = complete(folder, project, value or {"topic": "ships"}, python=python_of(FRAMEWORKS), entrypoint=entrypoint)
    assert [line for line in run.text("stderr") if "CONNECTS" in line] == []
    return run


def told(run: Run, *types: str) -> list[tuple[str, Any, Any]]:
    return [(name, data.get("agent"), data.get("task")) for name, data in run.events(*types)]


def test_a_flow_of_crews(tmp_path: Path) -> None:
    code = """
from crewai.flow.flow import Flow, listen, start
from crews import crew

class Book(Flow):
    @start()
    def outline(self):
        return crew("outliner").kickoff(inputs=dict(self.state)).raw

    @listen(outline)
    async def chapters(self, outline):
        result = await crew("author").kickoff_async(inputs=dict(self.state))
        return {"outline": outline, "text": result.raw}
"""
    run = ran(tmp_path, code, entrypoint="main:Book")
    assert run.output == {"outline": "offline answer", "text": "offline answer"}
    assert told(run, "task.started", "task.completed", "agent.started", "agent.completed") == [
        ("task.started", None, "outline"),
        ("task.started", "Outliner", "outliner"),
        ("agent.started", "Outliner", "outliner"),
        ("agent.completed", "Outliner", "outliner"),
        ("task.completed", "Outliner", "outliner"),
        ("task.completed", None, "outline"),
        ("task.started", None, "chapters"),
        ("task.started", "Author", "author"),
        ("agent.started", "Author", "author"),
        ("agent.completed", "Author", "author"),
        ("task.completed", "Author", "author"),
        ("task.completed", None, "chapters"),
    ]
    flow = [data for name, data in run.events("task.started") if data.get("kind") == "flow"]
    assert {data["flow"] for data in flow} == {"Book"}


@pytest.mark.parametrize("way", ["kickoff_async", "akickoff"])
def test_crews_that_are_awaited_side_by_side(tmp_path: Path, way: str) -> None:
    code = f"""
import asyncio
from crews import crew

async def kickoff(inputs):
    both = await asyncio.gather(*(crew(name).{way}(inputs=inputs) for name in ("left", "right")))
    return [each.raw for each in both]
"""
    run = ran(tmp_path, code)
    assert run.output == ["offline answer", "offline answer"]
    assert sorted(told(run, "agent.started", "agent.completed")) == [
        ("agent.completed", "Left", "left"),
        ("agent.completed", "Right", "right"),
        ("agent.started", "Left", "left"),
        ("agent.started", "Right", "right"),
    ]
    for name, data in run.events("llm.called", "llm.completed"):
        assert (data["agent"], data["task"]) in (("Left", "left"), ("Right", "right")), (name, data)


def test_a_crew_for_each_of_several_inputs(tmp_path: Path) -> None:
    code = """
from crews import crew
def kickoff(inputs):
    return crew("writer").kickoff_for_each(inputs=[{"topic": topic} for topic in inputs["topics"]])
"""
    run = ran(tmp_path, code, {"topics": ["ships", "tides"]})
    assert [each["raw"] for each in run.output] == ["offline answer", "offline answer"]
    assert len(run.events("task.completed")) == 2


def test_an_output_file_below_the_project_and_one_that_the_crew_writes_itself(tmp_path: Path) -> None:
    code = """
from crews import crew
def kickoff(inputs):
    open("notes.txt", "w").write("mine")
    return crew("writer", task_options={"output_file": "out/{topic}/report.md", "create_directory": True}).kickoff(inputs)
"""
    run = ran(tmp_path, code)
    assert run.artifacts == {"out/ships/report.md": len("offline answer")}
    (notice,) = (frame for frame in run.of("notice") if frame["level"] == "warning")
    assert "notes.txt" in notice["message"]
    assert "report.md" not in notice["message"].partition("To collect")[0]


def test_knowledge_and_memory(tmp_path: Path) -> None:
    code = """
import os
from crews import crew
import provider
from crewai.knowledge.source.text_file_knowledge_source import TextFileKnowledgeSource

EMBEDDER = {"provider": "openai", "config": {"model_name": "text-embedding-3-small", "api_key": "sk-none",
                                             "api_base": provider.URL}}
def kickoff(inputs):
    knows = TextFileKnowledgeSource(file_paths=["ships.md"])
    result = crew("writer", knowledge_sources=[knows], memory=True, embedder=EMBEDDER).kickoff(inputs)
    return result.raw
"""
    run = ran(tmp_path, code, knowledge__ships_md="Ships float because they displace water.\n" * 20)
    assert run.output == "offline answer"
    lines = [frame["message"] for frame in run.of("notice") if frame["level"] == "debug"]
    assert any(line.startswith("Knowledge") for line in lines)
    assert any(line.startswith("Memory") for line in lines)
    # What CrewAI keeps lies under HOME, which is the run's own and goes with it.
    assert [frame["message"] for frame in run.of("notice") if frame["level"] != "debug"] == []


def test_a_crew_that_asks_a_person(tmp_path: Path) -> None:
    code = """
from crews import crew
def kickoff(inputs):
    return crew("writer", task_options={"human_input": True}).kickoff(inputs)
"""
    run = ran(tmp_path, code)
    assert run.error["code"] == "user_error"
    assert "keyboard" in run.error["hint"]


def test_an_agent_that_is_tried_again(tmp_path: Path) -> None:
    code = """
from crews import crew
from crewai import BaseLLM

calls = []

class Flaky(BaseLLM):
    def call(self, messages, *args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("busy")
        return "Thought: done\\\\nFinal Answer: offline answer"

def kickoff(inputs):
    made = crew("writer")
    made.agents[0].llm = made.tasks[0].agent.llm = Flaky(model="offline")
    return made.kickoff(inputs).raw
"""
    run = ran(tmp_path, code)
    assert "offline answer" in run.output
    attempts = [
        (name, data.get("attempt")) for name, data in run.events("agent.started", "agent.error", "agent.completed")
    ]
    assert attempts == [("agent.started", None), ("agent.error", None), ("agent.started", 2), ("agent.completed", None)]


def test_a_guardrail_that_refuses(tmp_path: Path) -> None:
    code = """
from crews import crew
seen = []
def guard(output):
    seen.append(output)
    return (len(seen) > 1, output.raw if len(seen) > 1 else "too short")
def kickoff(inputs):
    return crew("writer", task_options={"guardrail": guard}).kickoff(inputs).raw
"""
    run = ran(tmp_path, code)
    assert run.output == "offline answer"
    (warning,) = (frame["message"] for frame in run.of("notice") if frame["level"] == "warning")
    assert warning == "Guardrail of Writer: refused (too short)"


def test_a_tool_that_fails(tmp_path: Path) -> None:
    code = '''
from crews import crew
from crewai.tools import tool

@tool("search_notes")
def search_notes(query: str) -> str:
    """Search the notes."""
    raise ValueError("the notes are wet")

def kickoff(inputs):
    return crew("writer", agent_options={"tools": [search_notes], "max_iter": 3}).kickoff(inputs).raw
'''
    run = ran(tmp_path, code)
    called, failed = run.events("tool.called"), run.events("tool.error")
    assert len(called) == len(failed) >= 1
    assert failed[0][1]["tool"] == "search_notes"
    assert "the notes are wet" in failed[0][1]["error"]
    assert (failed[0][1]["agent"], failed[0][1]["task"]) == ("Writer", "writer")
