"""OpenTelemetry spans with the GenAI names as our events, at their start and at their end.

Needs ``opentelemetry-api`` alone. An exporter would see ended spans only, and a started tool is what people wait to see.
"""

from contextlib import contextmanager
from importlib import import_module
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]

_KINDS = {
    "invoke_agent": "agent",
    "execute_tool": "tool",
    "chat": "llm",
    "text_completion": "llm",
    "generate_content": "llm",
}
_NAMES = {
    "agent": ("started", "completed", "error"),
    "tool": ("called", "result", "error"),
    "llm": ("called", "completed", "completed"),
}


def provider(emit: "Emit") -> "Any":
    """A tracer provider whose spans become events."""
    trace: Any = import_module("opentelemetry.trace")

    class CrewshipTracerProvider(trace.TracerProvider):  # type: ignore[misc]
        def get_tracer(self, *_: "Any", **__: "Any") -> "Any":
            return tee(trace.NoOpTracer(), emit)

    return CrewshipTracerProvider()


def tee(inner: "Any", emit: "Emit") -> "Any":
    """A tracer whose spans become events, and go on to the tracer ``inner`` as they are."""
    trace: Any = import_module("opentelemetry.trace")

    class CrewshipSpan(trace.Span):  # type: ignore[misc]
        def __init__(self, inner: "Any", name: str, attributes: "Any", parent: "Any") -> None:
            self._inner = inner
            self._name = name
            self._context = inner.get_span_context()
            if not self._context.is_valid or self._context == parent.get_span_context():  # nobody else's span
                self._context = _context(trace, parent.get_span_context())
            self.attributes: dict[str, Any] = dict(attributes or {})
            self._error: str | None = None
            self._ended = False
            self._since = monotonic()
            self._kind = _kind(name, self.attributes)
            own = self.attributes.get("gen_ai.agent.name") or self.attributes.get("agent_name")
            self._agent = own or getattr(parent, "_agent", None)
            if self._kind:
                _quietly(emit, f"{self._kind}.{_NAMES[self._kind][0]}", self._data())

        def _data(self) -> "dict[str, Any]":
            given = self.attributes
            if self._kind == "agent":
                return {"agent": self._agent, "task": None}
            if self._kind == "tool":
                return {
                    "tool": given.get("gen_ai.tool.name"),
                    "input": _parsed(given.get("gen_ai.tool.call.arguments", given.get("tool_arguments"))),
                    "agent": self._agent,
                }
            model = given.get("gen_ai.response.model") or given.get("gen_ai.request.model")
            # At the start there may be the name alone, which is the operation's and the model's.
            return {"model": model or self._name.partition(" ")[2] or None, "agent": self._agent}

        def end(self, end_time: int | None = None) -> None:
            self._inner.end(end_time)
            if self._ended or not self._kind:
                return
            self._ended = True
            data = {**self._data(), "ms": round((monotonic() - self._since) * 1000)}
            if self._kind == "llm":
                data["input_tokens"] = self.attributes.get("gen_ai.usage.input_tokens")
                data["output_tokens"] = self.attributes.get("gen_ai.usage.output_tokens")
            error = self._error or self.attributes.get("error.type")
            if error:
                data["error"] = error
            elif self._kind == "tool":
                data["output"] = self.attributes.get("gen_ai.tool.call.result", self.attributes.get("tool_response"))
            _quietly(emit, f"{self._kind}.{_NAMES[self._kind][2 if error else 1]}", data)

        def get_span_context(self) -> "Any":
            return self._context

        def set_attributes(self, attributes: "Any") -> None:
            self._inner.set_attributes(attributes)
            self.attributes.update(attributes)

        def set_attribute(self, key: str, value: "Any") -> None:
            self._inner.set_attribute(key, value)
            self.attributes[key] = value

        def add_event(self, name: str, attributes: "Any" = None, timestamp: int | None = None) -> None:
            self._inner.add_event(name, attributes, timestamp)

        def add_link(self, context: "Any", attributes: "Any" = None) -> None:
            self._inner.add_link(context, attributes)

        def update_name(self, name: str) -> None:
            self._inner.update_name(name)

        def is_recording(self) -> bool:
            return not self._ended

        def set_status(self, status: "Any", description: str | None = None) -> None:
            self._inner.set_status(status, description)
            code = getattr(status, "status_code", status)
            if getattr(code, "name", "") == "ERROR" and not self._error:
                self._error = description or getattr(status, "description", None) or "error"

        def record_exception(self, exception: BaseException, *more: "Any", **options: "Any") -> None:
            self._inner.record_exception(exception, *more, **options)
            self._error = f"{type(exception).__name__}: {exception}"

    class CrewshipTracer(trace.Tracer):  # type: ignore[misc]
        def start_span(
            self,
            name: str,
            context: "Any" = None,
            kind: "Any" = None,
            attributes: "Any" = None,
            *more: "Any",
            **rest: "Any",
        ) -> "Any":
            kind = trace.SpanKind.INTERNAL if kind is None else kind
            span = inner.start_span(name, context, kind, attributes, *more, **rest)
            return CrewshipSpan(span, name, attributes, trace.get_current_span(context))

        @contextmanager
        def start_as_current_span(self, name: str, *args: "Any", **options: "Any") -> "Iterator[Any]":
            ways = {key: options.pop(key, True) for key in _WAYS}
            end = ways.pop("end_on_exit")
            span: Any = self.start_span(name, *args, **{**options, **ways})
            with trace.use_span(span, end_on_exit=end, **ways):
                yield span

    return CrewshipTracer()


_WAYS = ("record_exception", "set_status_on_exception", "end_on_exit")


def _kind(name: str, attributes: "dict[str, Any]") -> str | None:
    operation = attributes.get("gen_ai.operation.name")
    if operation is not None:
        return _KINDS.get(str(operation))
    # pydantic-ai before its data format 3
    if name == "agent run":
        return "agent"
    return "tool" if "gen_ai.tool.name" in attributes else None


def _context(trace: "Any", above: "Any") -> "Any":
    """A span context below ``above``, or of a new trace."""
    from random import getrandbits

    return trace.SpanContext(
        above.trace_id if above.is_valid else getrandbits(128) | 1,
        getrandbits(64) | 1,
        is_remote=False,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )


def _parsed(text: "Any") -> "Any":
    if not isinstance(text, str):
        return text
    from json import loads

    try:
        return loads(text)
    except ValueError:
        return text


def _quietly(emit: "Emit", name: str, data: "dict[str, Any]") -> None:
    try:
        emit(name, data)
    except Exception:
        pass
