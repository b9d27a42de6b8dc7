"""Calls the entrypoint with the input, whatever kind of thing it is, until there is a plain value.

Synchronous crews run on the main thread, where signals arrive and ``asyncio.run`` works. Everything that is awaited runs in
one event loop, so that what a factory opened there is still open while its graph runs. A function may return a crew, a flow or a
graph: that is run in turn.
"""

from .entrypoint import arguments, is_graph, is_graph_builder, kind_of, parameters
from .failures import EntrypointError
from .graphs import drive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Emit = Callable[[dict[str, Any]], None]

_NESTING = 5  # a factory that returns a factory that returns ...


def run(found: "Any", value: "dict[str, Any]", run_id: str, emit: "Emit") -> "Any":
    """The value that the entrypoint ``found`` gives for the input.

    Args:
        emit: Called with the data of a ``custom`` event for each value that is streamed.

    Raises:
        BaseException: whatever the crew raises.
    """
    return _Caller(value, run_id, emit).resolve(found, 0)


class _Caller:
    def __init__(self, value: "dict[str, Any]", run_id: str, emit: "Emit") -> None:
        self._value = value
        self._run_id = run_id
        self._emit = emit

    def resolve(self, found: "Any", depth: int) -> "Any":
        if depth > _NESTING:
            raise EntrypointError("entrypoint_not_callable", "The entrypoint returns one crew after the other.")
        kind = kind_of(found)
        if kind == "langgraph":
            return self._in_loop(found)
        if kind == "crewbase":
            owner = found() if isinstance(found, type) else found
            return self.resolve(owner.crew(), depth + 1)
        if kind in ("crew", "flow", "class"):
            return self._settle(self._kickoff(found() if isinstance(found, type) else found), depth)
        if kind == "runnable":
            return self._settle(found.invoke(self._value), depth)
        return self._settle(self._call(found), depth)

    def _call(self, function: "Any") -> "Any":
        if _wants_config(function):
            return function({"configurable": {"thread_id": self._run_id}})
        positional, named = arguments(function, self._value)
        return function(*positional, **named)

    def _kickoff(self, owner: "Any") -> "Any":
        """CrewAI's own take ``inputs=``; somebody's class with a ``kickoff`` may call it otherwise."""
        if type(owner).__module__.startswith("crewai.") or _takes_inputs(owner.kickoff):
            return owner.kickoff(inputs=self._value)
        return self._call(owner.kickoff)

    def _settle(self, result: "Any", depth: int) -> "Any":
        """What a call returned, taken to its end."""
        if _is_async(result):
            result = self._in_loop(result)
        if hasattr(result, "send") and hasattr(result, "throw") and hasattr(result, "__next__"):
            result = self._drain(result)
        if type(result).__name__ == "CrewStreamingOutput":  # CrewAI with stream=True: the result is there at its end
            for _ in result:
                pass
            result = result.result
        if type(result).__name__ == "_GeneratorContextManager":
            with result as inner:
                return self.resolve(inner, depth + 1) if _is_runnable(inner) else inner
        return self.resolve(result, depth + 1) if _is_runnable(result) else result

    def _drain(self, generator: "Any") -> "Any":
        """The return value of a generator, or the list of what it yields when it returns nothing."""
        items: list[Any] = []
        while True:
            try:
                item = next(generator)
            except StopIteration as end:
                return items if end.value is None else end.value
            items.append(item)
            self._emit({"value": item})

    def _in_loop(self, result: "Any") -> "Any":
        import asyncio

        return asyncio.run(self._finish(result))

    async def _finish(self, result: "Any") -> "Any":
        if hasattr(result, "__await__"):
            result = await result
        if hasattr(result, "__aiter__") and hasattr(result, "asend"):
            items: list[Any] = []
            async for item in result:
                items.append(item)
                self._emit({"value": item})
            return items
        if type(result).__name__ == "_AsyncGeneratorContextManager":
            async with result as inner:
                return await self._finish(inner)
        if is_graph(result) or is_graph_builder(result):
            return await drive(result, self._value, self._run_id, self._emit)
        return result


def _is_async(result: "Any") -> bool:
    return (
        hasattr(result, "__await__")
        or (hasattr(result, "__aiter__") and hasattr(result, "asend"))
        or type(result).__name__ == "_AsyncGeneratorContextManager"
    )


def _is_runnable(result: "Any") -> bool:
    """Whether a function gave something to run rather than a value."""
    if isinstance(result, (dict, list, str, type(None))):
        return False
    return (
        is_graph(result)
        or is_graph_builder(result)
        or callable(getattr(result, "kickoff", None))
        or (callable(getattr(result, "crew", None)) and not hasattr(result, "model_dump"))
    )


def _wants_config(function: "Any") -> bool:
    """A LangGraph factory: its one required parameter is the config."""
    required = [p for p in parameters(function) or () if p.required]
    if len(required) != 1:
        return False
    annotation = required[0].annotation
    return required[0].name == "config" or getattr(annotation, "__name__", annotation) == "RunnableConfig"


def _takes_inputs(function: "Any") -> bool:
    return any(p.name == "inputs" for p in parameters(function) or ())
