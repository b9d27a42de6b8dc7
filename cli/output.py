"""The one place that prints. Data goes to stdout, talk to stderr; colours only where a person can see them."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from cli.ansi import plain
from crewship.errors import CrewshipError, Unprocessable

GREEN, RED, YELLOW, CYAN, BOLD, DIM = "32", "31", "33", "36", "1", "2"


class Paint:
    """Puts SGR codes around text, or does nothing where colours are not wanted."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, text: str, *codes: str) -> str:
        if not self.enabled or not text:
            return text
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m"


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person watches ``stream`` in a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint_for(stream: IO[str]) -> Paint:
    """Colours for ``stream``: on a terminal, unless ``NO_COLOR`` is set; ``FORCE_COLOR`` wins over not being one."""
    if os.environ.get("NO_COLOR"):
        return Paint(False)
    return Paint(bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream))


def can_ask() -> bool:
    """Whether a question would reach a person and an answer could come back."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def say(text: str = "") -> None:
    """A line of talk, on stderr."""
    print(text, file=sys.stderr, flush=True)


def say_done(text: str) -> None:
    """A line that says that something was done."""
    say(f"{paint_for(sys.stderr)('✓', GREEN)} {text}")


def say_warning(text: str) -> None:
    """A line that wants attention but stops nothing."""
    say(f"{paint_for(sys.stderr)('warning:', YELLOW)} {text}")


def say_next(command: str, why: str) -> None:
    """The next command that a person will probably want."""
    paint = paint_for(sys.stderr)
    say(f"  {paint(why + ':', DIM)} {paint(command, CYAN)}")


def data(text: str) -> None:
    """A line of data, on stdout."""
    print(text, flush=True)


def data_json(value: Any) -> None:
    """One JSON document on stdout: indented on a terminal, one line otherwise."""
    data(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def say_error(error: CrewshipError) -> None:
    """``error:`` what is wrong, each place of it, and ``hint:`` what to do."""
    paint = paint_for(sys.stderr)
    say(f"{paint('error:', RED, BOLD)} {error.detail}")
    if isinstance(error, Unprocessable):
        for place in error.errors:
            say(f"  {place.get('pointer', '')}: {place.get('detail', '')}")
    if error.hint:
        first, *rest = error.hint.splitlines()
        say(f"{paint('hint:', CYAN)} {first}")
        for line in rest:
            say(f"      {line}")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A borderless table on stdout; columns as wide as their widest cell, nothing cut, so that it can be piped."""
    paint = paint_for(sys.stdout)
    body = [list(row) for row in rows]
    widths = [max(len(plain(row[column])) for row in [list(headers), *body]) for column in range(len(headers))]
    for index, row in enumerate([[header.upper() for header in headers], *body]):
        cells = (cell + " " * (width - len(plain(cell))) for cell, width in zip(row, widths, strict=True))
        line = "  ".join(cells).rstrip()
        data(paint(line, DIM) if index == 0 else line)


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line on stdout; a value of many lines is indented under its name."""
    paint = paint_for(sys.stdout)
    shown = [(name, value) for name, value in pairs if value != ""]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        lines = value.splitlines() or [""]
        data(f"{paint(name.ljust(width), DIM)}  {lines[0]}")
        for line in lines[1:]:
            data(f"{' ' * width}  {line}")


_STATUS_CODES = {
    "succeeded": GREEN, "ready": GREEN, "failed": RED, "canceled": YELLOW, "running": CYAN, "building": CYAN,
}  # fmt: skip


def status(word: str) -> str:
    """A status in its colour."""
    code = _STATUS_CODES.get(word)
    return paint_for(sys.stdout)(word, code) if code else word
