"""A progress bar for bytes that take longer than a second; nothing on anything but a terminal."""

import sys
import time
from typing import TYPE_CHECKING, Self

from cli.output import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_SHOW_AFTER_SECONDS = 1.0


class Progress:
    """Counts bytes, and shows a bar once it has taken a second.

    Args:
        label: What is moved.
        total_bytes: How much, when that is known.
    """

    def __init__(self, label: str, total_bytes: int | None) -> None:
        self._label = label
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._started = time.monotonic()
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, size_bytes: int) -> None:
        """That many bytes more."""
        self.at(self._done_bytes + size_bytes)

    def at(self, done_bytes: int) -> None:
        """That many bytes in all; less than before when a transfer starts again."""
        self._done_bytes = done_bytes
        if self._bar is not None:
            self._bar.update(self._task, completed=done_bytes)
        elif time.monotonic() - self._started >= _SHOW_AFTER_SECONDS and is_terminal(sys.stderr):
            self._show()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(compact=True), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(self._label, total=self._total_bytes, completed=self._done_bytes)
        self._bar.start()
