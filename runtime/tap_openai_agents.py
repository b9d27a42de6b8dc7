"""The OpenAI Agents SDK's spans as our events, by a trace processor of its own interface.

A tool's arguments are only known when it has ended: ``tool.called`` may have no input there, ``tool.result`` has it.
"""

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]

_MODEL_SPANS = ("generation", "response")


def tap(module: "ModuleType", emit: "Emit") -> None:
    """Add a processor beside those that are there."""
    spans = _Spans(emit)

    class CrewshipProcessor(module.TracingProcessor):  # type: ignore[misc,name-defined]
        def on_trace_start(self, trace: "Any") -> None:
            spans.workflows[trace.trace_id] = trace.name

        def on_trace_end(self, trace: "Any") -> None:
            spans.workflows.pop(trace.trace_id, None)

        def on_span_start(self, span: "Any") -> None:
            _quietly(spans.started, span)

        def on_span_end(self, span: "Any") -> None:
            _quietly(spans.ended, span)

        def shutdown(self) -> None:
            pass

        def force_flush(self) -> None:
            pass

    module.add_trace_processor(CrewshipProcessor())


class _Spans:
    def __init__(self, emit: "Emit") -> None:
        self._emit = emit
        self._started: dict[str, float] = {}
        self._agents: dict[str, str] = {}  # span → the agent in whose name what is below it happens
        self.workflows: dict[str, str] = {}

    def started(self, span: "Any") -> None:
        data, kind = span.span_data, span.span_data.type
        self._started[span.span_id] = monotonic()
        agent = data.name if kind == "agent" else self._agents.get(span.parent_id or "")
        if agent:
            self._agents[span.span_id] = agent
        if kind == "agent":
            self._emit("agent.started", {"agent": agent, "task": self.workflows.get(span.trace_id)})
        elif kind == "function":
            self._emit("tool.called", {"tool": data.name, "input": _parsed(data.input), "agent": agent})
        elif kind in _MODEL_SPANS:
            self._emit("llm.called", {"model": getattr(data, "model", None), "agent": agent})

    def ended(self, span: "Any") -> None:
        data, kind = span.span_data, span.span_data.type
        ms = round((monotonic() - self._started.pop(span.span_id, monotonic())) * 1000)
        agent = self._agents.pop(span.span_id, None)
        error = _error(span)
        if kind == "agent":
            told = {"agent": agent, "task": self.workflows.get(span.trace_id), "ms": ms}
            self._emit("agent.error" if error else "agent.completed", {**told, "error": error} if error else told)
        elif kind == "function":
            told = {"tool": data.name, "input": _parsed(data.input), "agent": agent, "ms": ms}
            self._emit(
                "tool.error" if error else "tool.result",
                {**told, "error": error} if error else {**told, "output": data.output},
            )
        elif kind in _MODEL_SPANS:
            response = getattr(data, "response", None)
            usage = getattr(data, "usage", None) or getattr(response, "usage", None)
            model = getattr(data, "model", None) or getattr(response, "model", None)
            told = {
                "model": model,
                "agent": agent,
                "input_tokens": _count(usage, "input_tokens"),
                "output_tokens": _count(usage, "output_tokens"),
                "ms": ms,
            }
            self._emit("llm.completed", {**told, "error": error} if error else told)


def _error(span: "Any") -> str | None:
    error = getattr(span, "error", None)
    if not error:
        return None
    message, details = error.get("message"), error.get("data")
    return f"{message}: {details}" if details else str(message)


def _parsed(text: "Any") -> "Any":
    if not isinstance(text, str):
        return text
    from json import loads

    try:
        return loads(text)
    except ValueError:
        return text


def _count(usage: "Any", name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else getattr(usage, name, None)
    return value if isinstance(value, int) else None


def _quietly(function: "Callable[[Any], None]", span: "Any") -> None:
    try:
        function(span)
    except Exception:
        pass
