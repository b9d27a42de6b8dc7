"""Where a stream of lines is shown: above a live status line on a terminal, plainly everywhere else."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

from cli.human import clock
from cli.output import is_terminal, paint_for

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live


class Screen:
    """Lines above, and a spinner with the elapsed time below while it is entered; without a terminal only the lines.

    Args:
        caption: What goes on; asked each time that the status line is drawn.
        stream: Where to; the default is stderr.
        quiet: Show nothing but the status line's absence: lines still come out, the spinner does not.
    """

    def __init__(self, caption: Callable[[], str], stream: IO[str] | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stderr
        self.paint = paint_for(self.stream)
        self.live = is_terminal(self.stream) and not quiet
        self.width = 120
        self._caption = caption
        self._started = time.monotonic()
        self._display: Live | None = None
        if self.live:
            from rich.console import Console

            self._console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
            self.width = self._console.width

    def __enter__(self) -> Self:
        if self.live:
            from rich.live import Live
            from rich.spinner import Spinner

            self._spinner = Spinner("dots", style="cyan" if self.paint.enabled else None)
            self._display = Live(
                console=self._console, get_renderable=self._status, refresh_per_second=8, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def show(self, lines: Iterable[str]) -> None:
        """Print ``lines`` (with their colours) in one go."""
        text = "".join(f"{line}\n" for line in lines)
        if not text:
            return
        if self._display is not None:
            self._console.print(_Raw(text), soft_wrap=True, end="")
        else:
            self.stream.write(text)
            self.stream.flush()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The status line is gone meanwhile, so that a question can be asked."""
        if self._display is None:
            yield
            return
        self._display.stop()
        try:
            yield
        finally:
            self._display.start()

    def _status(self) -> Any:
        from rich.text import Text

        elapsed = clock((time.monotonic() - self._started) * 1000)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append_text(Text.assemble(self._spinner.render(time.monotonic()), f" {elapsed:>5}  "))  # type: ignore[arg-type]
        line.append(self._caption(), style="dim" if self.paint.enabled else None)
        return line


class _Raw:
    """Text that has its control sequences already; rich would only slow it down."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        yield Segment(self.text)
