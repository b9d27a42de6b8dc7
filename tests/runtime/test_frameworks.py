"""Real CrewAI and LangGraph under the supervisor, each kind of entrypoint, with models that need no network.

``test_releases.py`` has the other frameworks and older releases. The venvs are made once and kept in the user's cache.
"""

from pathlib import Path

import pytest

from .harness import Run, complete
from .venvs import FRAMEWORKS, python_of

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]  # the first test of a fresh machine installs them


@pytest.fixture(scope="module")
def frameworks() -> Path:
    return python_of(FRAMEWORKS)


OFFLINE = """
from crewai import BaseLLM
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context

class OfflineLLM(BaseLLM):
    def supports_function_calling(self):
        return True

    def get_context_window_size(self):
        return 128_000

    def call(self, messages, tools=None, callbacks=None, available_functions=None,
             from_task=None, from_agent=None, response_model=None):
        with llm_call_context():
            self._emit_call_started_event(messages=messages, tools=tools, from_task=from_task, from_agent=from_agent)
            seen = any(m.get("role") == "tool" for m in messages)
            if tools and not seen:
                name = tools[0]["function"]["name"]
                out = [{"id": "c1", "type": "function", "function": {"name": name, "arguments": '{"query": "ships"}'}}]
            else:
                out = "offline answer"
            kind = LLMCallType.TOOL_CALL if isinstance(out, list) else LLMCallType.LLM_CALL
            use = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
            self._track_token_usage_internal(use)
            self._emit_call_completed_event(response=out, call_type=kind, from_task=from_task, from_agent=from_agent,
                                            messages=messages, usage=use)
            return out
"""
CREW = '''
from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import tool
from offline import OfflineLLM

@tool("search_notes")
def search_notes(query: str) -> str:
    """Search the notes."""
    print("searching", query)
    if query == "storm":
        raise ValueError("the notes are wet")
    return f"found {query}"

@CrewBase
class MyCrew:
    agents_config = None
    tasks_config = None

    @agent
    def researcher(self) -> Agent:
        return Agent(role="Researcher", goal="find {topic}", backstory="b", llm=OfflineLLM(model="offline"),
                     tools=[search_notes])

    @agent
    def writer(self) -> Agent:
        return Agent(role="Writer", goal="write", backstory="b", llm=OfflineLLM(model="offline"))

    @task
    def research(self) -> Task:
        return Task(name="research", description="Research {topic}", expected_output="notes", agent=self.researcher())

    @task
    def write(self) -> Task:
        return Task(name="write", description="Write about {topic}", expected_output="text", agent=self.writer(),
                    output_file="report.md")

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)
'''
CREW_PROJECT: dict[str, str | bytes] = {
    "offline.py": OFFLINE,
    "src/my_crew/__init__.py": "",
    "src/my_crew/crew.py": CREW,
    "instance.py": "from my_crew.crew import MyCrew\ncrew = MyCrew().crew()\n",
}


def types(run: Run, *wanted: str) -> list[str]:
    return [name for name, _ in run.events(*wanted)]


@pytest.mark.parametrize(
    ("entrypoint", "kind"),
    [
        ("src.my_crew.crew:MyCrew", "crewbase"),
        ("my_crew.crew:MyCrew", "crewbase"),
        ("instance:crew", "crew"),
    ],
)
def test_crewai(tmp_path: Path, frameworks: Path, entrypoint: str, kind: str) -> None:
    run = complete(tmp_path, CREW_PROJECT, {"topic": "ships"}, python=frameworks, entrypoint=entrypoint)
    assert run.of("loaded")[0]["kind"] == kind
    assert types(run) == [
        "task.started", "agent.started",
        "llm.called", "llm.completed", "tool.called", "tool.result", "llm.called", "llm.completed",
        "agent.completed", "task.completed",
        "task.started", "agent.started", "llm.called", "llm.completed", "agent.completed", "task.completed",
    ]  # fmt: skip
    assert run.events("agent.started")[0][1] == {"agent": "Researcher", "task": "research"}
    called = run.events("tool.called")[0][1]
    assert called == {"tool": "search_notes", "input": {"query": "ships"}, "agent": "Researcher", "task": "research"}
    completed = run.events("llm.completed")[0][1]
    assert completed["model"] == "offline"
    assert (completed["input_tokens"], completed["output_tokens"]) == (11, 7)
    assert completed["ms"] >= 0
    assert run.output["raw"] == "offline answer"
    assert [task["agent"] for task in run.output["tasks"]] == ["Researcher", "Writer"]
    assert "messages" not in str(run.output)
    assert run.artifacts == {"report.md": len("offline answer")}
    assert not run.of("notice")
    _in_between(run, "tool.called", "searching ships", "tool.result")


def _in_between(run: Run, before: str, line: str, after: str) -> None:
    """The line stands between the two events, exactly where it was printed."""
    n = run.until_line(line)["n"]
    first = next(frame["n"] for frame in run.of("event") if frame["type"] == before)
    last = next(frame["n"] for frame in run.of("event") if frame["type"] == after)
    assert first < n < last


def test_crewai_output_file_with_the_slash_that_crewai_takes_away(tmp_path: Path, frameworks: Path) -> None:
    files = dict(CREW_PROJECT)
    files["src/my_crew/crew.py"] = CREW.replace('"report.md"', '"/app/artifacts/final/report.md"')
    run = complete(tmp_path, files, {"topic": "ships"}, python=frameworks, entrypoint="my_crew.crew:MyCrew")
    assert run.artifacts == {"final/report.md": len("offline answer")}
    assert not run.of("notice")


def test_a_failing_crewai_crew(tmp_path: Path, frameworks: Path) -> None:
    files = dict(CREW_PROJECT)
    files["offline.py"] = OFFLINE.replace('out = "offline answer"', 'raise RuntimeError("no such model")')
    run = complete(tmp_path, files, {"topic": "ships"}, python=frameworks, entrypoint="my_crew.crew:MyCrew")
    assert run.error["code"] == "user_error"
    assert "no such model" in run.error["message"]
    assert "offline.py" in run.error["traceback"]
    assert "agent.error" in types(run)
    assert run.of("end")[0]["exit_code"] == 1


def test_crewai_flow(tmp_path: Path, frameworks: Path) -> None:
    flow = """
from crewai.flow.flow import Flow, listen, start

class MyFlow(Flow):
    @start()
    def outline(self):
        return f"outline of {self.state['topic']}"

    @listen(outline)
    def draft(self, outline):
        print("drafting")
        return {"draft": outline, "topic": self.state["topic"]}
"""
    run = complete(tmp_path, {"main.py": flow}, {"topic": "ships"}, python=frameworks, entrypoint="main:MyFlow")
    assert run.of("loaded")[0]["kind"] == "flow"
    assert run.output == {"draft": "outline of ships", "topic": "ships"}
    assert [(name, data["task"], data["kind"]) for name, data in run.events()] == [
        ("task.started", "outline", "flow"),
        ("task.completed", "outline", "flow"),
        ("task.started", "draft", "flow"),
        ("task.completed", "draft", "flow"),
    ]


def test_a_function_that_returns_a_crew_and_one_that_uses_it_inside(tmp_path: Path, frameworks: Path) -> None:
    files = {
        **CREW_PROJECT,
        "main.py": """
from my_crew.crew import MyCrew

def make(inputs):
    return MyCrew().crew()

async def inside(inputs):
    result = await MyCrew().crew().kickoff_async(inputs=inputs)
    return {"text": result.raw}
""",
    }
    made = complete(tmp_path / "1", files, {"topic": "ships"}, python=frameworks, entrypoint="main:make")
    assert made.output["raw"] == "offline answer"
    inside = complete(tmp_path / "2", files, {"topic": "ships"}, python=frameworks, entrypoint="main:inside")
    assert inside.output == {"text": "offline answer"}
    assert types(made) == types(inside)


GRAPH = '''
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
    fail: bool

@tool
def search_notes(query: str) -> str:
    """Search the notes."""
    return f"found {query}"

def research(state):
    get_stream_writer()({"progress": 1})
    print("researching")
    if state.get("fail"):
        raise ValueError("the library is closed")
    return {"notes": search_notes.invoke({"query": state["topic"]})}

async def write(state):
    if state.get("ask"):
        interrupt("Which style?")
    usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
    model = GenericFakeChatModel(messages=iter([AIMessage("offline answer", usage_metadata=usage)]))
    answer = await model.ainvoke("write")
    return {"text": answer.content}

inner = StateGraph(State).add_node("draft", write).add_edge(START, "draft").add_edge("draft", END).compile()

builder = StateGraph(State)
builder.add_node("research", research)
builder.add_node("write", inner)
builder.add_edge(START, "research")
builder.add_edge("research", "write")
builder.add_edge("write", END)
graph = builder.compile(name="my-graph")

def make():
    return builder

def make_with_config(config):
    assert config["configurable"]["thread_id"] == "run_test"
    return graph

async def make_later():
    return graph

from contextlib import asynccontextmanager

@asynccontextmanager
async def make_within():
    print("opened")
    yield graph
    print("closed")
'''


@pytest.mark.parametrize("attribute", ["graph", "builder", "make", "make_with_config", "make_later", "make_within"])
def test_langgraph(tmp_path: Path, frameworks: Path, attribute: str) -> None:
    run = complete(
        tmp_path, {"main.py": GRAPH}, {"topic": "ships"}, python=frameworks, entrypoint=f"main:{attribute}",
        framework="langgraph",
    )  # fmt: skip
    assert run.output == {"topic": "ships", "notes": "found ships", "text": "offline answer"}
    told = [(name, data.get("agent"), data.get("task") or data.get("tool")) for name, data in run.events()]
    root = "LangGraph" if attribute in ("builder", "make") else "my-graph"
    without_custom = [each for each in told if each[0] != "custom"]
    assert without_custom == [
        ("agent.started", "research", root),
        ("tool.called", "research", "search_notes"),
        ("tool.result", "research", "search_notes"),
        ("agent.completed", "research", root),
        ("agent.started", "write", root),
        ("task.started", "write", "draft"),
        ("llm.called", "write", None),
        ("llm.completed", "write", None),
        ("task.completed", "write", "draft"),
        ("agent.completed", "write", root),
    ]
    assert run.events("custom") == [("custom", {"value": {"progress": 1}})]
    assert run.events("tool.called")[0][1]["input"] == {"query": "ships"}
    completed = run.events("llm.completed")[0][1]
    assert (completed["input_tokens"], completed["output_tokens"]) == (3, 5)
    if attribute == "make_within":
        assert run.text() == ["opened", "researching", "closed"]


@pytest.mark.parametrize("kind", ["", "async "])
def test_what_a_node_writes_comes_where_it_was_written(tmp_path: Path, frameworks: Path, kind: str) -> None:
    code = f"""
from typing import TypedDict
from langgraph.graph import START, StateGraph
from langgraph.config import get_stream_writer
class State(TypedDict, total=False):
    done: bool
{kind}def node(state):
    write = get_stream_writer()
    for turn in range(5):
        print("printed", turn)
        write(turn)
    return {{"done": True}}
graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile()
"""
    run = complete(tmp_path, {"main.py": code}, {}, python=frameworks, entrypoint="main:graph", framework="langgraph")
    told: list[str] = []
    for frame in run.frames:
        if frame["t"] == "log":
            told += frame["text"].split("\n")
        elif frame["t"] == "event":
            told.append(f"wrote {frame['data']['value']}" if frame["type"] == "custom" else frame["type"])
    wanted = [line for turn in range(5) for line in (f"printed {turn}", f"wrote {turn}")]
    assert told == ["agent.started", *wanted, "agent.completed"]


def test_langgraph_interrupt(tmp_path: Path, frameworks: Path) -> None:
    run = complete(
        tmp_path, {"main.py": GRAPH}, {"topic": "ships", "ask": True}, python=frameworks, entrypoint="main:graph"
    )
    assert run.error["code"] == "interrupted"
    assert "Which style?" in run.error["hint"]
    assert "agent.error" not in types(run)


def test_langgraph_error(tmp_path: Path, frameworks: Path) -> None:
    run = complete(
        tmp_path, {"main.py": GRAPH}, {"topic": "ships", "fail": True}, python=frameworks, entrypoint="main:graph"
    )
    assert run.error["code"] == "user_error"
    assert "ValueError: the library is closed" in run.error["message"]
    assert run.error["traceback"].splitlines()[1].strip().startswith(f'File "{run.app}/main.py"')
    assert run.events("agent.error")[0][1]["error"] == "ValueError: the library is closed"


def test_langgraph_messages_in_the_output(tmp_path: Path, frameworks: Path) -> None:
    code = """
from langgraph.graph import START, MessagesState, StateGraph

def answer(state):
    return {"messages": [("ai", "ahoy")]}

graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
"""
    value = {"messages": [{"role": "user", "content": "hello"}]}
    run = complete(tmp_path, {"main.py": code}, value, python=frameworks, entrypoint="main:graph")
    messages = run.output["messages"]
    assert [(message["type"], message["content"]) for message in messages] == [("human", "hello"), ("ai", "ahoy")]
