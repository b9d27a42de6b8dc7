"""LangChain's and LangGraph's callbacks as our events, by one global handler.

Registered as the *default* of a context variable, so that it is there in every thread and task without the crew passing it
on. A top-level node of a graph is an agent, a nested one a task. An agent made by ``create_agent`` is one agent, and its
own ``model`` and ``tools`` nodes are not told: its llm and tool events say the same.
"""

from contextvars import ContextVar
from importlib import import_module
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]

_NOT_ERRORS = frozenset({"GraphInterrupt", "ParentCommand", "GraphBubbleUp", "NodeInterrupt"})
"""Exceptions by which LangGraph steers."""


def tap(module: "ModuleType", emit: "Emit") -> None:
    """Add a handler to every callback manager that LangChain makes from now on."""
    handler = _handler(emit)
    context = import_module("langchain_core.tracers.context")
    context.register_configure_hook(ContextVar("crewship", default=handler), inheritable=True)


class _Graph:
    """A root run; ``agent`` is its name when ``create_agent`` made it and it has been opened."""

    __slots__ = ("agent", "name", "started")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.agent: str | None = None
        self.started = monotonic()


class _Open:
    """An event that awaits its end: the prefix of its types, what its end repeats, since when."""

    __slots__ = ("data", "kind", "started")

    def __init__(self, kind: str, data: "dict[str, Any]") -> None:
        self.kind = kind
        self.data = data
        self.started = monotonic()

    @property
    def ms(self) -> int:
        return round((monotonic() - self.started) * 1000)


class _Tap:
    """What the callbacks do. LangChain calls them in the thread of what they tell, so they come in order."""

    def __init__(self, emit: "Emit") -> None:
        self._emit = emit
        self._open: dict[Any, _Open] = {}
        self._roots: dict[Any, _Graph] = {}
        self._root_of: dict[Any, _Graph] = {}  # run → the root above it

    # -- graphs and nodes

    def chain_started(self, name: str | None, run: "Any", parent: "Any", tags: "Any", metadata: "Any") -> None:
        root = self._root_of.get(parent)
        if root is None:
            self._roots[run] = self._root_of[run] = _Graph(name)
            return
        self._root_of[run] = root
        tags, metadata = tags or (), metadata or {}
        node = metadata.get("langgraph_node", name)
        if not any(tag.startswith("graph:step:") for tag in tags) or "langsmith:hidden" in tags or node == "__start__":
            return
        agent = metadata.get("lc_agent_name")
        nested = "|" in metadata.get("langgraph_checkpoint_ns", "")
        if agent is not None:
            if not nested and root.agent is None:
                root.agent, root.started = agent, monotonic()
                self._emit("agent.started", {"agent": agent, "task": root.name})
        elif nested:
            self._begin(run, "task", {"task": node, "agent": _agent(metadata), "kind": "node"})
        else:
            self._begin(run, "agent", {"agent": node, "task": root.name, "step": metadata.get("langgraph_step")})

    def chain_ended(self, run: "Any", error: BaseException | None = None) -> None:
        self._root_of.pop(run, None)
        root = self._roots.pop(run, None)
        if root is not None and root.agent is not None:
            ms = round((monotonic() - root.started) * 1000)
            self._finish("agent", {"agent": root.agent, "task": root.name}, ms, error)
        opened = self._open.pop(run, None)
        if opened is not None:
            self._finish(opened.kind, opened.data, opened.ms, error)

    def _begin(self, run: "Any", kind: str, data: "dict[str, Any]") -> None:
        self._open[run] = _Open(kind, data)
        self._emit(f"{kind}.started", data)

    def _finish(self, kind: str, data: "dict[str, Any]", ms: int, error: BaseException | None) -> None:
        if error is None or type(error).__name__ in _NOT_ERRORS:
            self._emit(f"{kind}.completed", {**data, "ms": ms})
        else:
            self._emit(f"{kind}.error", {**data, "ms": ms, "error": _told(error)})

    # -- tools

    def tool_started(self, serialized: "Any", text: str, run: "Any", metadata: "Any", options: "Any") -> None:
        name = (serialized or {}).get("name") or options.get("name")
        given = options.get("inputs")
        data = {"tool": name, "input": text if given is None else given, "agent": _agent(metadata)}
        call = options.get("tool_call_id")
        if call:
            data["tool_call_id"] = call
        self._open[run] = _Open("tool", data)
        self._emit("tool.called", data)

    def tool_ended(self, run: "Any", output: "Any" = None, error: BaseException | None = None) -> None:
        opened = self._open.pop(run, None)
        if opened is None:
            return
        if error is not None and type(error).__name__ not in _NOT_ERRORS:
            self._emit("tool.error", {**opened.data, "ms": opened.ms, "error": _told(error)})
            return
        content = getattr(output, "content", output)
        kind = "tool.error" if getattr(output, "status", None) == "error" else "tool.result"
        data = {**opened.data, "ms": opened.ms, "output": content}
        self._emit(kind, {**data, "error": content} if kind == "tool.error" else data)

    # -- models

    def llm_started(self, serialized: "Any", run: "Any", metadata: "Any", options: "Any") -> None:
        given = options.get("invocation_params") or {}
        kind = ((serialized or {}).get("id") or [None])[-1] or options.get("name")
        model = (metadata or {}).get("ls_model_name") or given.get("model") or given.get("model_name") or kind
        data = {"model": model, "agent": _agent(metadata)}
        self._open[run] = _Open("llm", data)
        self._emit("llm.called", data)

    def llm_ended(self, run: "Any", response: "Any" = None, error: BaseException | None = None) -> None:
        opened = self._open.pop(run, None)
        if opened is None:
            return
        data = {**opened.data, "ms": opened.ms}
        if error is not None:
            data["error"] = _told(error)
        else:
            data.update(_usage(response))
        self._emit("llm.completed", data)


def _usage(response: "Any") -> "dict[str, Any]":
    message = None
    generations = getattr(response, "generations", None)
    if generations and generations[0]:
        message = getattr(generations[0][0], "message", None)
    usage = getattr(message, "usage_metadata", None) or {}
    told = getattr(message, "response_metadata", None) or {}
    older = (getattr(response, "llm_output", None) or {}).get("token_usage") or {}
    data = {
        "input_tokens": usage.get("input_tokens", older.get("prompt_tokens")),
        "output_tokens": usage.get("output_tokens", older.get("completion_tokens")),
    }
    if told.get("model_name"):
        data["model"] = told["model_name"]
    if told.get("finish_reason"):
        data["finish_reason"] = told["finish_reason"]
    return data


def _agent(metadata: "Any") -> str | None:
    """In whose name something happens: the agent's, else the top-level node's."""
    metadata = metadata or {}
    namespace = metadata.get("langgraph_checkpoint_ns") or ""
    found = metadata.get("lc_agent_name") or namespace.partition(":")[0] or metadata.get("langgraph_node")
    return str(found) if found else None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _handler(emit: "Emit") -> "Any":
    """A LangChain callback handler around a :class:`_Tap`; made here since its base class is the crew's."""
    tap = _Tap(emit)
    base = import_module("langchain_core.callbacks.base")

    class CrewshipHandler(base.BaseCallbackHandler):  # type: ignore[misc,name-defined]
        run_inline = True  # under astream too: same thread, in order
        raise_error = False

        def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, tags=None, metadata=None, **more):  # type: ignore[no-untyped-def]
            name = more.get("name") or (serialized or {}).get("name")
            _quietly(tap.chain_started, name, run_id, parent_run_id, tags, metadata)

        def on_chain_end(self, outputs, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.chain_ended, run_id)

        def on_chain_error(self, error, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.chain_ended, run_id, error)

        def on_tool_start(self, serialized, input_str, *, run_id, metadata=None, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.tool_started, serialized, input_str, run_id, metadata, more)

        def on_tool_end(self, output, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.tool_ended, run_id, output)

        def on_tool_error(self, error, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.tool_ended, run_id, None, error)

        def on_chat_model_start(self, serialized, messages, *, run_id, metadata=None, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.llm_started, serialized, run_id, metadata, more)

        def on_llm_start(self, serialized, prompts, *, run_id, metadata=None, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.llm_started, serialized, run_id, metadata, more)

        def on_llm_end(self, response, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.llm_ended, run_id, response)

        def on_llm_error(self, error, *, run_id, **more):  # type: ignore[no-untyped-def]
            _quietly(tap.llm_ended, run_id, None, error)

    return CrewshipHandler()


def _quietly(function: "Callable[..., None]", *arguments: "Any") -> None:
    try:
        function(*arguments)
    except Exception:  # LangChain would write a warning to the crew's log for each
        pass
