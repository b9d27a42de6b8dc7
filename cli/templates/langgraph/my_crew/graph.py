"""An agent as a LangGraph graph: the model asks for a tool, the tool answers, the model has the last word.

::

    model ──► tools
      ▲         │
      └─────────┘   until the model asks for nothing more
"""

from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from my_crew.model import chosen

ARTIFACTS = Path("artifacts")
QUESTION = "How many words has this question?"


@tool
def count_words(text: str) -> str:
    """Count the words of a text."""
    return str(len(text.split()))


class State(TypedDict):
    question: NotRequired[str]
    messages: Annotated[list[AnyMessage], add_messages]
    answer: NotRequired[str]


def model(state: State) -> dict[str, Any]:
    """Let the model read the conversation, which begins with the question."""
    asked = [] if state["messages"] else [HumanMessage(state.get("question") or QUESTION)]
    answer = chosen([count_words]).invoke([*state["messages"], *asked])
    return {"messages": [*asked, answer], "answer": answer.text}


def tools(state: State) -> dict[str, Any]:
    """Do what the model's last message asks for."""
    request = state["messages"][-1]
    assert isinstance(request, AIMessage)
    results = [count_words.invoke(call) for call in request.tool_calls]
    return {"messages": [result for result in results if isinstance(result, ToolMessage)]}


def write(state: State) -> dict[str, Any]:
    """Write the answer where artifacts are collected."""
    ARTIFACTS.mkdir(exist_ok=True)
    answer = state.get("answer", "")
    (ARTIFACTS / "answer.md").write_text(f"# {state['messages'][0].text}\n\n{answer}\n", encoding="utf-8")
    print(answer)
    return {}


def after_model(state: State) -> str:
    """To the tools while the model asks for them."""
    last = state["messages"][-1]
    return "tools" if isinstance(last, AIMessage) and last.tool_calls else "write"


builder = StateGraph(State)
builder.add_node("model", model)
builder.add_node("tools", tools)
builder.add_node("write", write)
builder.add_edge(START, "model")
builder.add_conditional_edges("model", after_model, ["tools", "write"])
builder.add_edge("tools", "model")
builder.add_edge("write", END)
graph = builder.compile(name="my-crew")
