"""A run's events as lines that a person likes to watch.

::

       0.0s  started on dep_0mh3x9k2c4v7q1z8aa
       0.1s  ● Researcher  Research quantum computing
       0.9s    ▸ web_search(query="quantum error correction")
       2.1s    ✓ web_search  1.2 s
       4.0s    ◇ gpt-4o-mini  812 → 214 tokens  1.9 s
       4.1s    │ 3 sources kept
       4.2s    ▪ notes.md  1.2 kB
       4.3s  ✓ Researcher  4.2 s
       4.4s  ✓ succeeded in 4.4 s

A pure function of the events: the same lines come out during a run and a year later. What belongs to an agent is indented
by one step, never by more: agents that work at the same time have no nesting that could be drawn truly, so then each line
names its agent. Claims are the crew's own words; they are cut to one line and made safe (:mod:`cli.ansi`).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cli.ansi import colored, plain
from cli.human import clock, duration, parse_time, size
from cli.output import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Paint
from crewship.events import Event

_MARGIN = 9
"""Columns of the time and the space after it."""
_BOX_TOP, _BOX_BOTTOM, _BOX_ENDS, _BOX_SIDES, _BOX_LINES = "╭┌┏╔", "╰└┗╚", "╮┐┓╗╯┘┛╝", "│┃║", "─━═ "
_TABLE = set("┬┳╦┴┻╩")
"""On the edge of a box with more than one column, which stays as it was printed."""
_FLOW_BOXES = ("Flow Execution", "Flow Started", "Flow Method Running", "Flow Method Completed", "Flow Completion")
"""Titles of CrewAI's boxes (1.x) about what has events of its own, an emoji before each."""


@dataclass
class _Open:
    kind: str
    name: str
    task: str
    at_ms: float


@dataclass
class Timeline:
    """Turns events into lines; keeps what is open to give durations and :attr:`activity`."""

    paint: Paint
    width: int = 120
    """Columns of the terminal; what the platform words is cut to it, the crew's log lines are not."""
    _open: list[_Open] = field(default_factory=list)
    _start_ms: float | None = None
    _artifacts: set[tuple[str, int]] = field(default_factory=set)
    _told_tasks: set[str] = field(default_factory=set)
    _llm: str = ""
    _flow_seen: bool = False
    _in_repeated_box: bool = False
    _after_box: bool = False

    @property
    def activity(self) -> str:
        """What goes on right now: the youngest open agent or task, and the tool or model it waits for."""
        outer = next((item.name for item in reversed(self._open) if item.kind != "tool"), "")
        inner = next((item.name for item in reversed(self._open) if item.kind == "tool"), "") or self._llm
        return " · ".join(part for part in (outer, inner) if part)

    def lines(self, event: Event) -> list[str]:
        """The lines of one event; none for those that only open what another one closes."""
        at_ms = parse_time(event.at).timestamp() * 1000
        if self._start_ms is None:
            self._start_ms = at_ms
        draw = _DRAW.get(event.type)
        texts = draw(self, event, at_ms) if draw else [f"· {event.type}  {_brief(event.data)}"]
        margin = self.paint(f"{clock(at_ms - self._start_ms):>{_MARGIN - 2}}", DIM) + "  "
        return [margin + text for text in texts]

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _room(self, used: int) -> int:
        return max(20, self.width - _MARGIN - used)

    def _indent(self) -> str:
        return "  " if any(item.kind in ("agent", "flow") for item in self._open) else ""

    def _whose(self, data: dict[str, Any]) -> str:
        """The agent's name, when more than one is at work."""
        agents = {item.name for item in self._open if item.kind == "agent"}
        name = _words(data.get("agent"))
        return self.paint(f"  {name}", DIM) if name and len(agents) > 1 else ""

    def _close(self, kind: str, name: str, task: str = "") -> _Open | None:
        for match_task in (True, False):
            for index in range(len(self._open) - 1, -1, -1):
                item = self._open[index]
                if item.kind == kind and item.name == name and (not match_task or item.task == task):
                    return self._open.pop(index)
        return None

    def _took(self, data: dict[str, Any], opened: _Open | None, at_ms: float) -> str:
        milliseconds = data.get("ms")
        if not isinstance(milliseconds, int | float):
            milliseconds = at_ms - opened.at_ms if opened else None
        return "" if milliseconds is None else self.paint(f"  {duration(milliseconds)}", DIM)

    # --- events -------------------------------------------------------------------------------------------------------

    def _run_started(self, event: Event, at_ms: float) -> list[str]:
        return [self.paint(f"started on {_words(event.data.get('deployment_id'))}", DIM)]

    def _agent_started(self, event: Event, at_ms: float) -> list[str]:
        name, task = _words(event.data.get("agent")) or "agent", _words(event.data.get("task"))
        named = any(item.kind == "task" and item.name == task for item in self._open)
        self._open.append(_Open("agent", name, task, at_ms))
        said = "" if named or not task else "  " + self.paint(_cut(task, self._room(len(name) + 4)), DIM)
        return [f"{self.paint('●', CYAN)} {self.paint(name, BOLD)}{said}"]

    def _agent_completed(self, event: Event, at_ms: float) -> list[str]:
        name, task = _words(event.data.get("agent")) or "agent", _words(event.data.get("task"))
        opened = self._close("agent", name, task)
        self._told_tasks.add(task or (opened.task if opened else ""))
        took = self._took(event.data, opened, at_ms)
        if event.type == "agent.error" or event.data.get("error"):
            return [f"{self.paint('✗', RED)} {self.paint(name, BOLD)}{took}  {self._error(event.data, len(name) + 12)}"]
        return [f"{self.paint('✓', GREEN)} {self.paint(name, BOLD)}{took}"]

    def _task_started(self, event: Event, at_ms: float) -> list[str]:
        name = _words(event.data.get("task")) or "task"
        text = f"{self._indent()}{self.paint('○', CYAN)} {_cut(name, self._room(6))}{self._whose(event.data)}"
        kind = "flow" if event.data.get("kind") == "flow" else "task"
        self._flow_seen = self._flow_seen or kind == "flow"
        self._open.append(_Open(kind, name, "", at_ms))
        return [text]

    def _task_completed(self, event: Event, at_ms: float) -> list[str]:
        name = _words(event.data.get("task")) or "task"
        opened = self._close("task", name) or self._close("flow", name)
        took = self._took(event.data, opened, at_ms)
        if event.type == "task.error" or event.data.get("error"):
            said = self._error(event.data, min(len(name), 40) + 14)
            return [f"{self._indent()}{self.paint('✗', RED)} {_cut(name, 40)}{took}  {said}"]
        if name in self._told_tasks:
            self._told_tasks.discard(name)  # its agent's end has just been drawn
            return []
        return [f"{self._indent()}{self.paint('✓', GREEN)} {_cut(name, self._room(16))}{took}"]

    def _tool_called(self, event: Event, at_ms: float) -> list[str]:
        name = _words(event.data.get("tool")) or "tool"
        self._open.append(_Open("tool", name, _words(event.data.get("agent")), at_ms))
        arguments = self.paint(_arguments(event.data.get("input"), self._room(len(name) + 8)), DIM)
        return [f"{self._indent()}{self.paint('▸', CYAN)} {name}{arguments}{self._whose(event.data)}"]

    def _tool_result(self, event: Event, at_ms: float) -> list[str]:
        name = _words(event.data.get("tool")) or "tool"
        opened = self._close("tool", name, _words(event.data.get("agent")))
        took = self._took(event.data, opened, at_ms)
        if event.type == "tool.error" or event.data.get("error"):
            mark, said = self.paint("✗", RED), "  " + self._error(event.data, len(name) + 16)
        else:
            mark, output = self.paint("✓", GREEN), event.data.get("output")
            said = (
                self.paint("  " + _brief(output, self._room(len(name) + 18)), DIM) if output not in (None, "") else ""
            )
        return [f"{self._indent()}{mark} {name}{took}{said}{self._whose(event.data)}"]

    def _llm_called(self, event: Event, at_ms: float) -> list[str]:
        self._llm = _words(event.data.get("model")) or "model"
        return []

    def _llm_completed(self, event: Event, at_ms: float) -> list[str]:
        self._llm = ""
        data = event.data
        name = _words(data.get("model")) or "model"
        took = self._took(data, None, at_ms)
        if data.get("error"):
            return [f"{self._indent()}{self.paint('✗', RED)} {name}{took}  {self._error(data, len(name) + 16)}"]
        tokens = ""
        if data.get("input_tokens") is not None or data.get("output_tokens") is not None:
            tokens = f"  {data.get('input_tokens') or 0:,} → {data.get('output_tokens') or 0:,} tokens"
        return [f"{self._indent()}{self.paint(f'◇ {name}{tokens}', DIM)}{took}{self._whose(data)}"]

    def _log(self, event: Event, at_ms: float) -> list[str]:
        data = event.data
        message, level = str(data.get("message", "")), data.get("level", "info")
        if data.get("source") == "crewship":
            code = {"warning": YELLOW, "error": RED, "critical": RED}.get(level)
            text = plain(message)
            return [f"{self.paint('!', code)} {text}" if code else self.paint(f"· {text}", DIM)]
        mark = "err│" if data.get("stream") == "stderr" else "│"
        code = {"warning": YELLOW, "error": RED, "critical": RED}.get(level, DIM)
        text = plain(message)
        unframed = text if data.get("partial") else self._unframed(text)
        if unframed is None:
            return []
        if self.paint.enabled and "\x1b" in message and unframed == text:
            text = colored(message)  # the crew's own colours instead of ours
        else:
            text = self.paint(unframed, DIM) if code == DIM else unframed
        return [f"{self._indent()}{self.paint(mark, code)} {text}".rstrip()]

    def _unframed(self, text: str) -> str | None:
        """A line of a box without the box, None when nothing is left of it; any other line as it is.

        CrewAI draws boxes as wide as its terminal. Those that tell what a flow's own events tell are left out.
        """
        line = text.strip()
        after_box, self._after_box = self._after_box, False
        first, inner, last = line[:1], line[1:-1], line[1:][-1:]
        if first and last and first in _BOX_TOP + _BOX_BOTTOM and last in _BOX_ENDS and not _TABLE & set(inner):
            title = inner.strip(_BOX_LINES)
            self._after_box = first in _BOX_BOTTOM
            self._in_repeated_box = not self._after_box and self._flow_seen and title.endswith(_FLOW_BOXES)
            return None if self._in_repeated_box else title or None
        if first and last and first in _BOX_SIDES and last in _BOX_SIDES and not set(_BOX_SIDES) & set(inner):
            return None if self._in_repeated_box else inner.rstrip().removeprefix("  ") or None
        return None if after_box and not line else text

    def _gap(self, event: Event, at_ms: float) -> list[str]:
        return [self.paint(f"! a piece of the log is lost  {_brief(event.data)}", YELLOW)]

    def _notice(self, event: Event, at_ms: float) -> list[str]:
        return [f"{self.paint('!', YELLOW)} {event.type.replace('.', ' ')}  {_brief(event.data, self._room(24))}"]

    def _denied(self, event: Event, at_ms: float) -> list[str]:
        host, port, protocol = (event.data.get(key) for key in ("host", "port", "protocol"))
        where = f"{host}:{port}" if port else str(host)
        count = event.data.get("count")
        words = [
            plain(where),
            *([protocol] if protocol not in (None, "tcp") else []),
            *([f"{count} times"] if count else []),
        ]
        return [f"{self.paint('!', YELLOW)} network denied  {_cut(' '.join(words), self._room(18))}"]

    def _retrying(self, event: Event, at_ms: float) -> list[str]:
        self._artifacts.clear()  # the next attempt begins anew
        self._open.clear()
        self._llm = ""
        data = event.data
        error = data.get("error") or {}
        what = f"attempt {data.get('attempt')} of {data.get('of')} in {duration(data.get('delay_ms') or 0)}"
        return [
            f"{self.paint('!', YELLOW)} retrying  {what}  {_words(error.get('code'))}: {_words(error.get('message'))}"
        ]

    def _artifact(self, event: Event, at_ms: float) -> list[str]:
        name, size_bytes = str(event.data.get("name", "")), int(event.data.get("size") or 0)
        if (name, size_bytes) in self._artifacts:
            return []  # collected at the end as it was seen during the run
        self._artifacts.add((name, size_bytes))
        return [f"{self._indent()}{self.paint('▪', CYAN)} {plain(name)}{self.paint(f'  {size(size_bytes)}', DIM)}"]

    def _custom(self, event: Event, at_ms: float) -> list[str]:
        name = _words(event.data.get("name"))
        value = _brief(event.data.get("value"), self._room(len(name) + 8))
        return [f"{self._indent()}{self.paint('◆', CYAN)} {name}{'  ' if name else ''}{self.paint(value, DIM)}"]

    def _ended(self, event: Event, at_ms: float) -> list[str]:
        self._open.clear()
        took_ms = event.data.get("duration_ms")
        if not isinstance(took_ms, int | float):
            took_ms = at_ms - (self._start_ms or at_ms)
        return [ending(self.paint, event.type.removeprefix("run."), took_ms)]

    def _error(self, data: dict[str, Any], used: int) -> str:
        return self.paint(_cut(_error_text(data.get("error")), self._room(used)), RED)


def ending(paint: Paint, status: str, duration_ms: float | None) -> str:
    """``✓ succeeded in 4.4 s``, ``✗ failed after 4.4 s``, ``■ canceled after 4.4 s``."""
    mark, word, code, link = {
        "failed": ("✗", "failed", RED, "after"),
        "canceled": ("■", "canceled", YELLOW, "after"),
    }.get(status, ("✓", "succeeded", GREEN, "in"))
    took = f" {link} {duration(duration_ms)}" if duration_ms is not None else ""
    return paint(f"{mark} {word}", code, BOLD) + took


_DRAW: dict[str, Callable[[Timeline, Event, float], list[str]]] = {
    "run.started": Timeline._run_started,
    "run.completed": Timeline._ended,
    "run.failed": Timeline._ended,
    "run.canceled": Timeline._ended,
    "run.retrying": Timeline._retrying,
    "network.denied": Timeline._denied,
    "log": Timeline._log,
    "log.gap": Timeline._gap,
    "artifact": Timeline._artifact,
    "custom": Timeline._custom,
    "agent.started": Timeline._agent_started,
    "agent.completed": Timeline._agent_completed,
    "agent.error": Timeline._agent_completed,
    "task.started": Timeline._task_started,
    "task.completed": Timeline._task_completed,
    "task.error": Timeline._task_completed,
    "tool.called": Timeline._tool_called,
    "tool.result": Timeline._tool_result,
    "tool.error": Timeline._tool_result,
    "llm.called": Timeline._llm_called,
    "llm.completed": Timeline._llm_completed,
}


def _words(value: Any) -> str:
    """A claimed name as one safe line of at most 200 characters; "" for None."""
    if value is None:
        return ""
    return " ".join(plain(str(value).replace("\n", " ")).split())[:200]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"


def _brief(value: Any, room: int = 120) -> str:
    """Any JSON as one safe line of at most ``room`` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return _cut(" ".join(plain(text[: room * 8].replace("\n", " ").replace("\r", " ")).split()), room)


def _arguments(value: Any, room: int) -> str:
    """A tool's input as a call's arguments: ``(query="x", limit=3)``."""
    if value in (None, "", {}):
        return "()"
    if isinstance(value, dict):
        inner = ", ".join(f"{key}={json.dumps(item, ensure_ascii=False, default=str)}" for key, item in value.items())
    else:
        inner = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return f"({_brief(inner, room)})"


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return _words(error.get("message") or error.get("code") or "")
    return _words(error)
