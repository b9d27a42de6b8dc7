"""CrewAI's own events as ours, by wrapping ``CrewAIEventsBus.emit``.

Not by subscribing: since 1.0 the bus delivers from a pool of threads, out of order, and some events only after ``kickoff`` has
returned. The wrap sees each event on the thread that emits it, before anything else happens. Full from 1.0, token counts
from 1.14.7; older ones down to 0.114 without what they do not tell. ``notes_crewai.py`` has what is a line of log.
"""

import os
import shutil
from _thread import get_ident
from time import monotonic

from .bounds import cut
from .notes_crewai import note_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]
    Note = Callable[[str, str], None]
    Handler = Callable[["_Tap", Any, Any], None]

_TASK_NAME_BYTES = 200  # a task without a name is known by its description, which may be pages


def tap(module: "ModuleType", emit: "Emit", note: "Note", app: str) -> None:
    """Wrap the bus that ``module`` defines.

    Args:
        emit: Gets events: type and data.
        note: Gets lines of log: level and text.
        app: The run's folder; output files of tasks are copied to its artifacts.
    """
    bus = module.CrewAIEventsBus
    if "_crewship" in bus.__dict__:  # 0.177–0.203 have one class under two module names
        return
    bus._crewship = True
    taker = _Tap(emit, note, app)
    for name in ("emit", "aemit"):
        if name in bus.__dict__:
            setattr(bus, name, _wrapped(bus.__dict__[name], taker))


def _wrapped(original: "Any", taker: "_Tap") -> "Any":
    def emit(self: "Any", source: "Any", event: "Any", *args: "Any", **options: "Any") -> "Any":
        try:  # now: the agent and the task that the event points at change later
            taker.take(source, event)
        except Exception:
            pass
        return original(self, source, event, *args, **options)

    return emit


class _Tap:
    def __init__(self, emit: "Emit", note: "Note", app: str) -> None:
        self.emit = emit
        self.note = note
        self.app = app
        self._started: dict[object, float] = {}
        self._failed_calls: set[str] = set()
        self._attempts: dict[object, int] = {}
        self._open_tools: list[str] = []
        self._open_agents: dict[object, tuple[int, dict[str, Any]]] = {}  # key → thread, agent and task

    def take(self, source: "Any", event: "Any") -> None:
        handler = _HANDLERS.get(event.type)
        if handler is not None:
            handler(self, source, event)
            return
        line = note_of(event)
        if line is not None:
            self.note(*line)

    def start(self, key: object) -> None:
        self._started[key] = monotonic()

    def ms(self, key: object) -> int | None:
        started = self._started.pop(key, None)
        return None if started is None else round((monotonic() - started) * 1000)

    # -- tasks

    def task_started(self, source: "Any", event: "Any") -> None:
        task = _task_of(source, event)
        self.start(("task", _task_id(task, event)))
        self.emit(
            "task.started",
            {
                "task": _task_name(task, event),
                "task_id": _task_id(task, event),
                "agent": _role(getattr(task, "agent", None)),
                "async": bool(getattr(task, "async_execution", False)),
            },
        )

    def task_completed(self, source: "Any", event: "Any") -> None:
        task = _task_of(source, event)
        self.emit(
            "task.completed",
            {
                "task": _task_name(task, event),
                "task_id": _task_id(task, event),
                "agent": _role(getattr(task, "agent", None)),
                "ms": self.ms(("task", _task_id(task, event))),
                "output": getattr(event.output, "raw", None),
            },
        )
        keep_output_file(getattr(task, "output_file", None), self.app)

    def task_failed(self, source: "Any", event: "Any") -> None:
        task = _task_of(source, event)
        self.emit(
            "task.error",
            {
                "task": _task_name(task, event),
                "task_id": _task_id(task, event),
                "ms": self.ms(("task", _task_id(task, event))),
                "error": str(event.error),
            },
        )

    # -- agents

    def agent_started(self, source: "Any", event: "Any") -> None:
        key = _agent_key(event)
        self.start(key)
        data = _agent(event)
        self._open_agents[key] = (get_ident(), dict(data))
        if key in self._attempts:  # CrewAI begins an agent anew that ended with an error
            data["attempt"] = self._attempts[key] + 1
        self.emit("agent.started", data)

    def agent_completed(self, source: "Any", event: "Any") -> None:
        key = _agent_key(event)
        self._attempts.pop(key, None)
        self._open_agents.pop(key, None)
        self.emit("agent.completed", {**_agent(event), "ms": self.ms(key), "output": event.output})

    def agent_failed(self, source: "Any", event: "Any") -> None:
        key = _agent_key(event)
        self._attempts[key] = self._attempts.get(key, 0) + 1
        self._open_agents.pop(key, None)
        self.emit("agent.error", {**_agent(event), "ms": self.ms(key), "error": str(event.error)})

    # -- tools

    def named(self, event: "Any") -> "dict[str, Any]":
        """The agent and the task in whose name something happens.

        Where the event does not say (model calls before 0.165): those at work on its thread, or the only ones at work.
        """
        name = getattr(event, "task_name", None)
        role = getattr(event, "agent_role", None) or _role(getattr(event, "agent", None))
        told = {
            "agent": role.strip() if isinstance(role, str) else None,
            "task": cut(name.strip(), _TASK_NAME_BYTES) if isinstance(name, str) else None,
        }
        if told["agent"] is not None and told["task"] is not None:
            return told
        at_work = list(self._open_agents.values())
        here = [data for thread, data in at_work if thread == get_ident()]
        if not here and len(at_work) == 1:
            here = [at_work[0][1]]
        here = [data for data in here if told["agent"] in (None, data["agent"])]
        if not here:
            return told
        return {key: here[-1][key] if value is None else value for key, value in told.items()}

    def tool_called(self, source: "Any", event: "Any") -> None:
        self._open_tools.append(str(getattr(event, "tool_name", None)))
        self.emit("tool.called", _tool(self, event))

    def tool_result(self, source: "Any", event: "Any") -> None:
        self._close_tool(event)
        data = {**_tool(self, event), "ms": _milliseconds(event.started_at, event.finished_at), "output": event.output}
        failure = getattr(event, "failure", None)
        if getattr(event, "from_cache", False):
            data["from_cache"] = True
        if failure is not None:
            self.emit("tool.error", {**data, "error": str(getattr(failure, "message", failure))})
        else:
            self.emit("tool.result", data)

    def tool_failed(self, source: "Any", event: "Any") -> None:
        self._close_tool(event)
        self.emit("tool.error", {**_tool(self, event), "error": str(event.error)})

    def _close_tool(self, event: "Any") -> None:
        name = str(getattr(event, "tool_name", None))
        if name in self._open_tools:
            self._open_tools.remove(name)

    def mcp_called(self, source: "Any", event: "Any") -> None:
        if not self._is_told(event):
            self.emit("tool.called", {**_tool(self, event), "server": event.server_name})

    def mcp_result(self, source: "Any", event: "Any") -> None:
        if not self._is_told(event):
            ms = getattr(event, "execution_duration_ms", None)
            told = {"ms": None if ms is None else round(ms), "output": event.result}
            self.emit("tool.result", {**_tool(self, event), "server": event.server_name, **told})

    def mcp_failed(self, source: "Any", event: "Any") -> None:
        if not self._is_told(event):
            self.emit("tool.error", {**_tool(self, event), "server": event.server_name, "error": str(event.error)})

    def _is_told(self, event: "Any") -> bool:
        """Whether a server's tool is called by an agent, whose own tool events say the same (the server's name before it)."""
        return any(name.endswith(event.tool_name) for name in list(self._open_tools))

    # -- models

    def llm_called(self, source: "Any", event: "Any") -> None:
        self.start(("llm", _call_id(event)))
        self.emit("llm.called", {**_llm(self, source, event), "stream": getattr(event, "stream", None)})

    def llm_completed(self, source: "Any", event: "Any") -> None:
        usage = getattr(event, "usage", None) or {}
        data = {
            **_llm(self, source, event),
            "input_tokens": _count(usage, "prompt_tokens", "input_tokens"),
            "output_tokens": _count(usage, "completion_tokens", "output_tokens"),
            "ms": self.ms(("llm", _call_id(event))),
        }
        cached = _count(usage, "cached_prompt_tokens", "cached_tokens")
        if cached:
            data["cached_tokens"] = cached
        if getattr(event, "finish_reason", None):
            data["finish_reason"] = event.finish_reason
        self.emit("llm.completed", data)

    def llm_failed(self, source: "Any", event: "Any") -> None:
        call = _call_id(event)
        if call in self._failed_calls:  # a provider tells it twice
            return
        if getattr(event, "call_id", None):
            self._failed_calls.add(call)
        self.emit(
            "llm.completed", {**_llm(self, source, event), "ms": self.ms(("llm", call)), "error": str(event.error)}
        )

    # -- flows

    def method_started(self, source: "Any", event: "Any") -> None:
        if _is_users_flow(source):
            self.start(("method", id(source), event.method_name))
            self.emit("task.started", _method(event))

    def method_finished(self, source: "Any", event: "Any") -> None:
        if _is_users_flow(source):
            self.emit("task.completed", {**_method(event), "ms": self.ms(("method", id(source), event.method_name))})

    def method_failed(self, source: "Any", event: "Any") -> None:
        if _is_users_flow(source):
            self.emit(
                "task.error",
                {
                    **_method(event),
                    "ms": self.ms(("method", id(source), event.method_name)),
                    "error": f"{type(event.error).__name__}: {event.error}",
                },
            )


_HANDLERS: "dict[str, Handler]" = {
    "task_started": _Tap.task_started,
    "task_completed": _Tap.task_completed,
    "task_failed": _Tap.task_failed,
    "agent_execution_started": _Tap.agent_started,
    "agent_execution_completed": _Tap.agent_completed,
    "agent_execution_error": _Tap.agent_failed,
    "lite_agent_execution_started": _Tap.agent_started,
    "lite_agent_execution_completed": _Tap.agent_completed,
    "lite_agent_execution_error": _Tap.agent_failed,
    "tool_usage_started": _Tap.tool_called,
    "tool_usage_finished": _Tap.tool_result,
    "tool_usage_error": _Tap.tool_failed,
    "tool_validate_input_error": _Tap.tool_failed,
    "tool_selection_error": _Tap.tool_failed,
    "mcp_tool_execution_started": _Tap.mcp_called,
    "mcp_tool_execution_completed": _Tap.mcp_result,
    "mcp_tool_execution_failed": _Tap.mcp_failed,
    "llm_call_started": _Tap.llm_called,
    "llm_call_completed": _Tap.llm_completed,
    "llm_call_failed": _Tap.llm_failed,
    "method_execution_started": _Tap.method_started,
    "method_execution_finished": _Tap.method_finished,
    "method_execution_failed": _Tap.method_failed,
}


def keep_output_file(output_file: "Any", app: str) -> None:
    """Copy a task's ``output_file`` to the artifacts, under its path in the project, wherever it points.

    CrewAI takes the leading slash away, so that ``/app/artifacts/x.md`` is written to ``app/artifacts/x.md`` below the
    project: it is kept as ``x.md``.
    """
    if not isinstance(output_file, str) or not output_file:
        return
    artifacts = os.path.join(app, "artifacts")
    path = os.path.abspath(output_file)
    if path.startswith(artifacts + os.sep) or not os.path.isfile(path):
        return
    name = os.path.relpath(path, app) if path.startswith(app + os.sep) else os.path.basename(path)
    target = os.path.join(artifacts, name.removeprefix(os.path.join("app", "artifacts") + os.sep))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(path, target)


def _task_of(source: "Any", event: "Any") -> "Any":
    return getattr(event, "task", None) or source


def _task_id(task: "Any", event: "Any") -> str | None:
    known = getattr(task, "id", None) or getattr(event, "task_id", None)
    return None if known is None else str(known)


def _task_name(task: "Any", event: "Any" = None) -> str | None:
    name = getattr(task, "name", None) or getattr(task, "description", None) or getattr(event, "task_name", None)
    return cut(name.strip(), _TASK_NAME_BYTES) if isinstance(name, str) else None


def _role(agent: "Any") -> str | None:
    role = getattr(agent, "role", None)
    return cut(role.strip(), _TASK_NAME_BYTES) if isinstance(role, str) else None


def _agent(event: "Any") -> "dict[str, Any]":
    info = getattr(event, "agent_info", None)
    if isinstance(info, dict):  # an agent that was called without a crew
        return {"agent": info.get("role"), "task": None}
    return {"agent": _role(event.agent), "task": _task_name(event.task, event)}


def _agent_key(event: "Any") -> object:
    info = getattr(event, "agent_info", None)
    if isinstance(info, dict):
        return ("agent", info.get("id") or info.get("role"))
    return ("agent", str(getattr(event.agent, "id", "")), _task_id(event.task, event))


def _tool(tap: _Tap, event: "Any") -> "dict[str, Any]":
    given = getattr(event, "tool_args", None)
    if isinstance(given, str):  # 0.203 and 1.0 give JSON text
        from json import loads

        try:
            given = loads(given)
        except ValueError:
            pass
    return {"tool": getattr(event, "tool_name", None), "input": given, **tap.named(event)}


def _llm(tap: _Tap, source: "Any", event: "Any") -> "dict[str, Any]":
    model = getattr(event, "model", None) or getattr(source, "model", None)
    return {"model": model if isinstance(model, str) else None, **tap.named(event)}


def _call_id(event: "Any") -> str:
    """Before 1.10 a call has no id: a thread makes one at a time."""
    return str(getattr(event, "call_id", None) or get_ident())


def _method(event: "Any") -> "dict[str, Any]":
    return {"task": str(event.method_name), "kind": "flow", "flow": event.flow_name}


def _is_users_flow(source: "Any") -> bool:
    """CrewAI's agent executor and memory are flows too."""
    return not type(source).__module__.startswith("crewai.")


def _milliseconds(start: "Any", end: "Any") -> int | None:
    try:
        return int((end - start).total_seconds() * 1000)
    except (TypeError, AttributeError):
        return None


def _count(usage: "Any", *names: str) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
        if isinstance(value, int):
            return value
    return None
