"""Telling a person what provisioning does: one step at a time, its latest detail, and how long it took.

A step is opened only when there is something to do, so a set-up that finds everything in place says nothing. Terminals get
a line that redraws itself, everything else plain lines: one at the start, one now and then, one at the end.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Protocol


class Step(Protocol):
    """A piece of work that is going on."""

    def detail(self, text: str) -> None:
        """Say what it is at; called as often as one likes."""
        ...


class Progress(Protocol):
    """Shows steps. The context ends with the step; an exception marks it as failed and goes on."""

    def step(self, name: str) -> AbstractContextManager[Step]: ...


class Silent:
    """Shows nothing: for a process that has its own log."""

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        yield self

    def detail(self, text: str) -> None:
        pass


class Lines:
    """Plain lines, for logs and pipes.

    Args:
        stream: Where they go.
        every_seconds: The longest silence within a step that has something to tell.
    """

    def __init__(self, stream: IO[str], every_seconds: float = 10.0) -> None:
        self._stream = stream
        self._every_seconds = every_seconds
        self._spoke = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        started = time.monotonic()
        self._say(f"{name} ...")
        try:
            yield self
        except BaseException:
            self._say(f"✗ {name} ({time.monotonic() - started:.1f} s)")
            raise
        self._say(f"✓ {name} ({time.monotonic() - started:.1f} s)")

    def detail(self, text: str) -> None:
        if time.monotonic() - self._spoke >= self._every_seconds:
            self._say(f"  {text}")

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(line, file=self._stream, flush=True)


class Redrawn:
    """A spinner with seconds on a terminal; each step that is done leaves its line."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console

        self._console = Console(file=stream)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        started = time.monotonic()
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        tail = TextColumn("{task.fields[detail]}", style="dim", markup=False)
        mark, style = "✗", "red"
        try:
            with Bars(*columns, tail, console=self._console, transient=True) as bars:
                yield _Bar(bars, bars.add_task(name, total=None, detail=""))
            mark, style = "✓", "green"
        finally:
            self._console.print(f"[{style}]{mark}[/{style}] ", end="")
            self._console.print(f"{name} ({time.monotonic() - started:.1f} s)", markup=False, highlight=False)


class _Bar:
    def __init__(self, bars: "object", task: int) -> None:
        self._bars = bars
        self._task = task

    def detail(self, text: str) -> None:
        self._bars.update(self._task, detail=text[:60])  # type: ignore[attr-defined]


def progress_for(stream: IO[str] = sys.stderr) -> Progress:
    """What suits ``stream``: redrawn on a terminal, lines elsewhere."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Redrawn(stream)
    return Lines(stream)
