"""The current and the oldest supported releases of the frameworks: the same crew, the same events.

Their own model classes talk to a provider within the crew's process. What an older release does not tell is written out below,
in ``untold``; all else must be there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .harness import Run, complete
from .provider import PROVIDER, WATCH
from .venvs import RELEASES, python_of

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]  # the first time their venvs are made


def releases(framework: str, *of: str) -> Any:
    return pytest.mark.parametrize("release", of or tuple(RELEASES[framework]))


def events(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, data in run.events():
        yield name, {key: value for key, value in data.items() if value is not None}


CREWAI: dict[str, str | bytes] = {
    "provider.py": PROVIDER,
    "watch.py": WATCH,
    "main.py": '''
import watch, provider
from crewai import Agent, Crew, LLM, Process, Task
from crewai.tools import tool

@tool("search_notes")
def search_notes(query: str) -> str:
    """Search the notes."""
    return f"found {query}"

def llm():
    return LLM(model="openai/gpt-4o-mini", base_url=provider.URL, api_key="sk-none")

researcher = Agent(role="Researcher", goal="find {topic}", backstory="b", llm=llm(), tools=[search_notes])
writer = Agent(role="Writer", goal="write", backstory="b", llm=llm())
research = Task(name="research", description="Research {topic}", expected_output="notes", agent=researcher)
write = Task(name="write", description="Write", expected_output="text", agent=writer, output_file="report.md")
crew = Crew(agents=[researcher, writer], tasks=[research, write], process=Process.sequential)
''',
}


@releases("crewai")
def test_crewai(tmp_path: Path, release: str) -> None:
    python = python_of(RELEASES["crewai"][release])
    run = complete(tmp_path, CREWAI, {"topic": "ships"}, python=python, entrypoint="main:crew")
    assert run.output["raw"] == "offline answer"
    assert [name for name, _ in run.events()] == [
        "task.started", "agent.started",
        "llm.called", "llm.completed", "tool.called", "tool.result", "llm.called", "llm.completed",
        "agent.completed", "task.completed",
        "task.started", "agent.started", "llm.called", "llm.completed", "agent.completed", "task.completed",
    ]  # fmt: skip
    tokens = release == "1.15.30"
    for name, data in events(run):
        if name.startswith(("agent.", "llm.", "tool.")):
            assert (data["agent"], data["task"]) in (("Researcher", "research"), ("Writer", "write")), (name, data)
        if name.startswith("llm."):
            assert "gpt-4o-mini" in data["model"]
        if name.startswith("tool."):
            assert (data["tool"], data["input"]) == ("search_notes", {"query": "ships"})
        if name == "tool.result":
            assert data["output"] == "found ships"
        if name.endswith(("completed", "result")):
            assert data["ms"] >= 0
        if name == "llm.completed" and tokens:
            assert (data["input_tokens"], data["output_tokens"]) == (11, 7)
    assert run.artifacts == {"report.md": len("offline answer")}
    assert not run.of("notice")
    assert [line for line in run.text("stderr") if "CONNECTS" in line] == []


def test_crewai_telemetry_is_the_users_to_turn_on(tmp_path: Path) -> None:
    env = {"CREWAI_DISABLE_TELEMETRY": "false", "CREWAI_DISABLE_TRACKING": "false"}
    python = python_of(RELEASES["crewai"]["1.15.30"])
    run = complete(tmp_path, CREWAI, {"topic": "ships"}, python=python, entrypoint="main:crew", env=env)
    assert "CONNECTS telemetry.crewai.com" in run.text("stderr")
    assert run.output["raw"] == "offline answer"


LANGGRAPH: dict[str, str | bytes] = {
    "watch.py": WATCH,
    "main.py": '''
import watch
from typing import Annotated, TypedDict
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

class State(TypedDict, total=False):
    topic: str
    notes: str
    text: str
    ask: bool

@tool
def search_notes(query: str) -> str:
    """Search the notes."""
    return f"found {query}"

def research(state):
    get_stream_writer()({"progress": 1})
    return {"notes": search_notes.invoke({"query": state["topic"]})}

def write(state):
    if state.get("ask"):
        interrupt("Which style?")
    usage = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    model = GenericFakeChatModel(messages=iter([AIMessage("offline answer", usage_metadata=usage)]))
    get_stream_writer()({"progress": 2})
    return {"text": model.invoke("write").content}

async def write_later(state):
    return write(state)

def build(draft):
    inner = StateGraph(State).add_node("draft", draft).add_edge(START, "draft").add_edge("draft", END).compile()
    builder = StateGraph(State).add_node("research", research).add_node("write", inner)
    builder.add_edge(START, "research").add_edge("research", "write").add_edge("write", END)
    return builder.compile(name="my-graph")

graph, later = build(write), build(write_later)
''',
}


@releases("langgraph")
@pytest.mark.parametrize("attribute", ["graph", "later"])
def test_langgraph(tmp_path: Path, release: str, attribute: str) -> None:
    python = python_of(RELEASES["langgraph"][release])
    run = complete(tmp_path, LANGGRAPH, {"topic": "ships"}, python=python, entrypoint=f"main:{attribute}")
    assert run.output == {"topic": "ships", "notes": "found ships", "text": "offline answer"}
    told = [(name, data.get("agent"), data.get("task") or data.get("tool")) for name, data in run.events()]
    assert [each for each in told if each[0] != "custom"] == [
        ("agent.started", "research", "my-graph"),
        ("tool.called", "research", "search_notes"),
        ("tool.result", "research", "search_notes"),
        ("agent.completed", "research", "my-graph"),
        ("agent.started", "write", "my-graph"),
        ("task.started", "write", "draft"),
        ("llm.called", "write", None),
        ("llm.completed", "write", None),
        ("task.completed", "write", "draft"),
        ("agent.completed", "write", "my-graph"),
    ]
    assert [data for _, data in run.events("custom")] == [
        {"value": {"progress": 1}},
        {"value": {"progress": 2}, "path": ["write"]} if release != "0.2.76" else {"value": {"progress": 2}},
    ]
    (completed,) = (data for _, data in run.events("llm.completed"))
    assert completed["model"] == "GenericFakeChatModel"
    assert (completed["input_tokens"], completed["output_tokens"]) == (11, 7)
    assert run.events("tool.called")[0][1]["input"] == {"query": "ships"}
    assert not run.of("notice")
    assert [line for line in run.text("stderr") if "CONNECTS" in line] == []


@releases("langgraph")
def test_langgraph_interrupt(tmp_path: Path, release: str) -> None:
    python = python_of(RELEASES["langgraph"][release])
    value = {"topic": "ships", "ask": True}
    run = complete(tmp_path, LANGGRAPH, value, python=python, entrypoint="main:graph")
    assert run.error["code"] == "interrupted"
    assert "Which style?" in run.error["hint"]
    assert not run.events("agent.error", "task.error")


OPENAI_AGENTS: dict[str, str | bytes] = {
    "provider.py": PROVIDER,
    "watch.py": WATCH,
    "main.py": """
import watch, provider
from agents import (Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool,
                    set_tracing_disabled)
from openai import AsyncOpenAI

@function_tool
def search_notes(query: str) -> str:
    print("searching")
    return f"found {query}"

async def kickoff(inputs):
    if inputs["tracing"] == "off":
        set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=provider.URL, api_key="sk-none")
    kind = OpenAIResponsesModel if inputs.get("api") == "responses" else OpenAIChatCompletionsModel
    model = kind("gpt-4o-mini", openai_client=client)
    agent = Agent(name="Researcher", instructions="find", model=model, tools=[search_notes])
    config = RunConfig(tracing_disabled=inputs["tracing"] == "off for this run")
    return (await Runner.run(agent, inputs["topic"], run_config=config)).final_output
""",
}
AGENT_EVENTS = [
    "agent.started", "llm.called", "llm.completed", "tool.called", "tool.result", "llm.called", "llm.completed",
    "agent.completed",
]  # fmt: skip


@releases("openai-agents")
@pytest.mark.parametrize(
    ("tracing", "api"),
    [("as it comes", "chat"), ("as it comes", "responses"), ("off", "responses"), ("off for this run", "chat")],
)
def test_openai_agents(tmp_path: Path, release: str, tracing: str, api: str) -> None:
    python = python_of(RELEASES["openai-agents"][release])
    run = complete(tmp_path, OPENAI_AGENTS, {"topic": "ships", "tracing": tracing, "api": api}, python=python)
    assert run.output == "offline answer"
    assert [name for name, _ in run.events()] == AGENT_EVENTS
    for name, data in events(run):
        assert data["agent"] == "Researcher"
        if name.startswith("agent."):
            assert data["task"] == "Agent workflow"
        if name.startswith("llm."):
            assert data["model"] == "gpt-4o-mini"
        if name == "llm.completed":
            assert (data["input_tokens"], data["output_tokens"]) == (11, 7)
        if name.startswith("tool."):
            assert (data["tool"], data["input"]) == ("search_notes", {"query": "ships"})
        if name == "tool.result":
            assert data["output"] == "found ships"
    n = {frame["type"]: frame["n"] for frame in run.of("event")}
    assert n["tool.called"] < run.until_line("searching")["n"] < n["tool.result"]
    assert not run.of("notice")
    assert [line for line in run.text("stderr") if "CONNECTS" in line] == []


def test_openai_agents_traces_are_sent_when_the_user_says_so(tmp_path: Path) -> None:
    python = python_of(RELEASES["openai-agents"]["0.24.0"])
    env = {"OPENAI_AGENTS_DISABLE_TRACING": "0", "OPENAI_API_KEY": "sk-none"}
    value = {"topic": "ships", "tracing": "as it comes"}
    run = complete(tmp_path, OPENAI_AGENTS, value, python=python, env=env)
    assert [name for name, _ in run.events()] == AGENT_EVENTS
    assert "CONNECTS api.openai.com" in run.text("stderr")


PYDANTIC_AI: dict[str, str | bytes] = {
    "watch.py": WATCH,
    "main.py": """
import watch
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.usage import RequestUsage

def answer(messages, info):
    usage = RequestUsage(input_tokens=11, output_tokens=7)
    if len(messages) == 1:
        return ModelResponse(parts=[ToolCallPart("search_notes", {"query": "ships"})], usage=usage)
    return ModelResponse(parts=[TextPart("offline answer")], usage=usage)

def agent():
    made = Agent(FunctionModel(answer, model_name="offline"), name="Researcher")

    @made.tool_plain
    def search_notes(query: str) -> str:
        return f"found {query}"

    return made

class Report(BaseModel):
    text: str

def kickoff(inputs):
    return Report(text=agent().run_sync(inputs["topic"]).output)

def instrumented(inputs):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
    agent().run_sync(inputs["topic"])
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    above = {span.name: spans[span.parent.span_id].name if span.parent else None for span in spans.values()}
    return {"above": above, "ended": all(span.end_time for span in spans.values()),
            "tokens": sorted(span.attributes.get("gen_ai.usage.input_tokens", 0) for span in spans.values())}
""",
}


@releases("pydantic-ai")
def test_pydantic_ai(tmp_path: Path, release: str) -> None:
    python = python_of(RELEASES["pydantic-ai"][release])
    run = complete(tmp_path, PYDANTIC_AI, {"topic": "ships"}, python=python)
    assert run.output == {"text": "offline answer"}
    _check_pydantic_ai(run)
    assert not run.of("notice")
    assert [line for line in run.text("stderr") if "CONNECTS" in line] == []


def test_pydantic_ai_instrumented_by_its_user(tmp_path: Path) -> None:
    python = python_of((*RELEASES["pydantic-ai"]["2.68.0"], "opentelemetry-sdk"))
    run = complete(tmp_path, PYDANTIC_AI, {"topic": "ships"}, python=python, entrypoint="main:instrumented")
    _check_pydantic_ai(run)
    assert run.output["ended"]
    assert run.output["above"]["chat offline"] == "invoke_agent Researcher"
    assert [name for name, parent in run.output["above"].items() if parent is None] == ["invoke_agent Researcher"]
    assert run.output["tokens"].count(11) == 2


def _check_pydantic_ai(run: Run) -> None:
    assert [name for name, _ in run.events()] == AGENT_EVENTS
    for name, data in events(run):
        assert data["agent"] == "Researcher"
        if name.startswith("llm."):
            assert data["model"] == "offline"
        if name == "llm.completed":
            assert (data["input_tokens"], data["output_tokens"]) == (11, 7)
        if name.startswith("tool."):
            assert (data["tool"], data["input"]) == ("search_notes", {"query": "ships"})
        if name == "tool.result":
            assert data["output"] == "found ships"
