"""A tool-calling agent as a LangGraph graph: the model asks for calculations, the tool does them, a node writes them up.

::

    model ──► tools
      ▲         │
      └─────────┘   until the model asks for nothing more
    model ──► report ──► end

Input ``{"question": "What is 12% of 480, and 2 ** 10?"}``; the answer is in the output's ``answer`` and in
``artifacts/answer.md``.
"""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from graph_agent.calculate import calculate
from graph_agent.offline import OfflineChatModel

ARTIFACTS = Path("artifacts")
QUESTION = "What is 12% of 480, and 2 ** 10?"

# Any chat model of LangChain fits here; this one needs neither a key nor a network.
chat_model = OfflineChatModel().bind_tools([calculate])


class State(TypedDict):
    question: NotRequired[str]
    messages: Annotated[list[AnyMessage], add_messages]
    answer: NotRequired[str]


def model(state: State) -> dict[str, Any]:
    """Let the model read the conversation, which begins with the question."""
    asked = [] if state["messages"] else [HumanMessage(state.get("question") or QUESTION)]
    return {"messages": [*asked, chat_model.invoke([*state["messages"], *asked])]}


def tools(state: State) -> dict[str, Any]:
    """Do what the model's last message asks for, and tell of each result on the stream."""
    write = get_stream_writer()
    request = state["messages"][-1]
    assert isinstance(request, AIMessage)
    results = []
    for done, call in enumerate(request.tool_calls, start=1):
        result = calculate.invoke(call)
        assert isinstance(result, ToolMessage)
        write({"name": "calculation", "done": done, "of": len(request.tool_calls), "result": result.content})
        results.append(result)
    return {"messages": results}


def report(state: State) -> dict[str, Any]:
    """Write the answer where artifacts are collected."""
    answer = str(state["messages"][-1].content)
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / "answer.md").write_text(f"# {state['messages'][0].content}\n\n{answer}\n", encoding="utf-8")
    print(answer)
    return {"answer": answer}


def after_model(state: State) -> str:
    """To the tools while the model asks for them."""
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "report"


builder = StateGraph(State)
builder.add_node("model", model)
builder.add_node("tools", tools)
builder.add_node("report", report)
builder.add_edge(START, "model")
builder.add_conditional_edges("model", after_model, ["tools", "report"])
builder.add_edge("tools", "model")
builder.add_edge("report", END)
graph = builder.compile(name="calculator")
