"""A deployment's build as steps that a person can follow.

::

       0.1s  ○ dependencies
                resolved 34 packages in 210 ms
       4.2s  ✓ dependencies  4.1 s
       4.3s  ✓ image  cached
       9.8s  ✓ smoke boot  5.5 s

Steps are ``log`` events with ``step`` and ``status``. What the tools print in a step is shown dim on a terminal; elsewhere
it is kept, and comes out when the build fails. A step that says nothing, because it was cached, is one line.
"""

from dataclasses import dataclass, field
from typing import Any

from cli.ansi import plain
from cli.human import clock, duration, parse_time
from cli.output import CYAN, DIM, GREEN, RED, Paint
from crewship.events import Event

_OUTPUT_INDENT = " " * 12


@dataclass
class BuildView:
    """Turns build events into lines.

    Attributes:
        activity: The step that is at work, for the status line.
        output: Everything that the tools printed, shown or not.
    """

    paint: Paint
    show_output: bool
    activity: str = "starting"
    output: list[str] = field(default_factory=list)
    _start_ms: float | None = None
    _unsaid: str = ""
    """The beginning of the step at work, until there is something under it."""

    def lines(self, event: Event) -> list[str]:
        """The lines of one event."""
        at_ms = parse_time(event.at).timestamp() * 1000
        if self._start_ms is None:
            self._start_ms = at_ms
        margin = self.paint(f"{clock(at_ms - self._start_ms):>7}", DIM) + "  "
        data = event.data
        if event.type == "log":
            return self._step(data, margin) if data.get("step") else self._output(data)
        if event.type == "deployment.activated":
            return [f"{margin}{self.paint('✓', GREEN)} {data.get('deployment_id', 'it')} is current"]
        return []

    def _step(self, data: dict[str, Any], margin: str) -> list[str]:
        name = plain(str(data["step"]))
        status = data.get("status")
        if status == "started":
            self.activity = name
            self._unsaid = f"{margin}{self.paint('○', CYAN)} {name}"
            return [] if self.show_output else self._said()
        self._unsaid = ""
        took = data.get("duration_ms")
        note = "  cached" if data.get("cached") else f"  {duration(took)}" if isinstance(took, int | float) else ""
        mark = self.paint("✗", RED) if status == "failed" else self.paint("✓", GREEN)
        return [f"{margin}{mark} {name}{self.paint(note, DIM)}"]

    def _output(self, data: dict[str, Any]) -> list[str]:
        message = plain(str(data.get("message", "")))
        self.output.append(message)
        if not self.show_output:
            return []
        return [*self._said(), f"{_OUTPUT_INDENT}{self.paint(message, DIM)}".rstrip()]

    def _said(self) -> list[str]:
        line, self._unsaid = self._unsaid, ""
        return [line] if line else []
