"""Drives a LangGraph graph: its ``custom`` stream becomes events, its last root state is the output.

Always ``astream``: nodes that are async only refuse ``stream``, and sync nodes run in threads under either. Never the
``messages`` mode, which makes models stream that were written to be invoked.
"""

from .bounds import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Interrupted(Exception):
    """The graph asks a person something; a run is used once, so there is nobody to answer.

    Attributes:
        question: What it asks.
    """

    def __init__(self, question: str) -> None:
        super().__init__("The graph stopped at an interrupt.")
        self.question = question


class _Stream:
    """What has come out of the graph so far."""

    def __init__(self, emit: "Callable[[dict[str, Any]], None]") -> None:
        self._emit = emit
        self.seen = False
        self.output: Any = None
        self.interrupts: Any = ()

    def take(self, chunk: "Any") -> None:
        self.seen = True
        namespace, mode, data = chunk
        if mode == "custom":
            path = [str(part).partition(":")[0] for part in namespace]
            self._emit({"value": data, "path": path} if path else {"value": data})
        elif not namespace:
            if mode == "values":
                self.output = data
            if isinstance(data, dict) and "__interrupt__" in data:
                self.interrupts = data["__interrupt__"]


async def drive(graph: "Any", value: "dict[str, Any]", run_id: str, emit: "Callable[[dict[str, Any]], None]") -> "Any":
    """The graph's last state.

    Raises:
        Interrupted: a node asked for human input.
    """
    if hasattr(graph, "add_node") and hasattr(graph, "compile"):
        graph = graph.compile()
    options = {
        "config": {"configurable": {"thread_id": run_id}},
        "stream_mode": ["custom", "values", "updates"],  # before 0.4 an interrupt is told in the updates alone
        "subgraphs": True,
    }
    stream = _Stream(emit)
    _take_at_once(stream)
    try:
        async for chunk in graph.astream(value, **options):
            stream.take(chunk)
    except NotImplementedError:
        if stream.seen:
            raise
        # A checkpointer that is sync only (SqliteSaver): the sync way, off the loop's thread.
        import asyncio

        def sync() -> None:
            for chunk in graph.stream(value, **options):
                stream.take(chunk)

        await asyncio.to_thread(sync)
    if stream.interrupts:  # at the end, so that what runs beside the node that asks is not cut off
        raise Interrupted(_question(stream.interrupts))
    return stream.output


def _take_at_once(stream: _Stream) -> None:
    """Have what nodes write taken in their own thread, at the moment of the call.

    LangGraph gives it to the loop, from where it would come out after what the node printed, or did, next. Should LangGraph
    do so in another way one day, it comes out then.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon_threadsafe

    def call_soon_threadsafe(callback: "Any", *args: "Any", **options: "Any") -> "Any":
        chunk = args[0] if len(args) == 1 else None
        if type(chunk) is tuple and len(chunk) == 3 and chunk[1] == "custom" and callback.__name__ == "put_nowait":
            stream.take(chunk)
            return call_soon(_nothing)
        return call_soon(callback, *args, **options)

    try:
        loop.call_soon_threadsafe = call_soon_threadsafe  # type: ignore[assignment, method-assign]
    except AttributeError:  # a loop that is not Python's own
        pass


def _nothing() -> None:
    pass


def _question(interrupts: "Any") -> str:
    values = [getattr(interrupt, "value", interrupt) for interrupt in (interrupts or ())]
    return cut("; ".join(value if isinstance(value, str) else repr(value) for value in values), 2000)
