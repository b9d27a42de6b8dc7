"""The OpenAI Agents SDK's spans as our events, by a trace processor of its own interface.

A tool's span is begun without its arguments, which are set a moment later: ``tool.called`` waits for them. Where the user keeps
them out of traces (``trace_include_sensitive_data=False``) it has none, and is told when the tool has ended.

As it comes, the SDK sends every trace, prompts included, to OpenAI as soon as there is a key. Here it does not, unless the
user sets ``OPENAI_AGENTS_DISABLE_TRACING`` to 0 or names processors in code. Who turns tracing off has no less in the run's
log: such a trace is made all the same, and goes to our processor alone.
"""

import os
from contextvars import ContextVar
from importlib import import_module
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]

_MODEL_SPANS = ("generation", "response")
_model: "ContextVar[str | None]" = ContextVar("crewship_model", default=None)
"""The model that is being asked: a span of the Responses API learns it with the answer only."""


def tap(module: "ModuleType", emit: "Emit") -> None:
    """Have every trace of the process's provider told to ``emit``."""
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

    _tell_of_arguments(module.FunctionSpanData, spans)
    ours = CrewshipProcessor()
    provider = module.get_trace_provider()
    if os.environ.get("OPENAI_AGENTS_DISABLE_TRACING", "").lower() in ("0", "false"):
        provider.register_processor(ours)
    else:
        provider.set_processors([ours])
    set_processors = provider.set_processors
    provider.set_processors = lambda processors: set_processors([*processors, ours])
    _tell_of_disabled_traces(provider, ours)


def tap_responses(module: "ModuleType") -> None:
    """Note which model is asked, when one of ``OpenAIResponsesModel`` is."""
    kind = module.OpenAIResponsesModel
    for name in ("get_response", "stream_response"):
        setattr(kind, name, _noting(getattr(kind, name)))


def _noting(original: "Any") -> "Any":
    def ask(self: "Any", *args: "Any", **options: "Any") -> "Any":
        _model.set(str(self.model))
        return original(self, *args, **options)

    return ask


def _tell_of_arguments(kind: "Any", spans: "_Spans") -> None:
    """Have ``spans`` told when a tool's arguments are set."""

    def set_attribute(self: "Any", name: str, value: "Any") -> None:
        object.__setattr__(self, name, value)
        if name == "input" and value is not None:
            _quietly(spans.arguments_known, self)

    kind.__setattr__ = set_attribute


def _tell_of_disabled_traces(provider: "Any", ours: "Any") -> None:
    """Make ``provider`` give real traces and spans, which only ``ours`` sees, where tracing is off."""
    traces, every_span = import_module("agents.tracing.traces"), import_module("agents.tracing.spans")
    private: set[str] = set()
    create_trace, create_span = provider.create_trace, provider.create_span

    def trace(name: str, trace_id: str | None = None, *args: "Any", **options: "Any") -> "Any":
        made = create_trace(name, trace_id, *args, **options)
        if not isinstance(made, traces.NoOpTrace):
            return made
        made = traces.TraceImpl(name=name, trace_id=trace_id, group_id=None, metadata=None, processor=ours)
        private.add(made.trace_id)
        return made

    def span(
        span_data: "Any", span_id: str | None = None, parent: "Any" = None, *args: "Any", **options: "Any"
    ) -> "Any":
        above = parent or provider.get_current_span() or provider.get_current_trace()
        if getattr(above, "trace_id", None) not in private:
            return create_span(span_data, span_id, parent, *args, **options)
        given = {
            "trace_id": above.trace_id,
            "span_id": span_id,
            "parent_id": getattr(above, "span_id", None),
            "processor": ours,
            "span_data": span_data,
        }
        return every_span.SpanImpl(**given, **_others(every_span.SpanImpl, given))

    provider.create_trace, provider.create_span = trace, span


def _others(kind: type, given: "dict[str, Any]") -> "dict[str, None]":
    """What else must be given to make a ``kind``; it differs between releases, and has nothing to say here."""
    from .entrypoint import parameters

    return {p.name: None for p in parameters(kind) or () if p.required and p.name not in given}


class _Spans:
    def __init__(self, emit: "Emit") -> None:
        self._emit = emit
        self._started: dict[str, float] = {}
        self._agents: dict[str, str] = {}  # span → the agent in whose name what is below it happens
        self._waiting: dict[int, str | None] = {}  # a tool's span data that has no arguments yet → the agent
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
            self._waiting[id(data)] = agent
            if data.input is not None:
                self.arguments_known(data)
        elif kind in _MODEL_SPANS:
            model = getattr(data, "model", None) or (_model.get() if kind == "response" else None)
            self._emit("llm.called", {"model": model, "agent": agent})

    def arguments_known(self, data: "Any") -> None:
        if id(data) in self._waiting:
            agent = self._waiting.pop(id(data))
            self._emit("tool.called", {"tool": data.name, "input": _parsed(data.input), "agent": agent})

    def ended(self, span: "Any") -> None:
        data, kind = span.span_data, span.span_data.type
        ms = round((monotonic() - self._started.pop(span.span_id, monotonic())) * 1000)
        agent = self._agents.pop(span.span_id, None)
        error = _error(span)
        if kind == "agent":
            told = {"agent": agent, "task": self.workflows.get(span.trace_id), "ms": ms}
            self._emit("agent.error" if error else "agent.completed", {**told, "error": error} if error else told)
        elif kind == "function":
            self.arguments_known(data)
            told = {"tool": data.name, "input": _parsed(data.input), "agent": agent, "ms": ms}
            self._emit(
                "tool.error" if error else "tool.result",
                {**told, "error": error} if error else {**told, "output": data.output},
            )
        elif kind in _MODEL_SPANS:
            response = getattr(data, "response", None)
            usage = getattr(data, "usage", None) or getattr(response, "usage", None)
            model = getattr(data, "model", None) or getattr(response, "model", None)
            model = model or (_model.get() if kind == "response" else None)
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
