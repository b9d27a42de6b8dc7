"""A deployment's build as steps that a person can follow.

::

       0.1s  ○ install 12 packages
                resolved 34 packages in 210 ms
       4.2s  ✓ install 12 packages  4.1 s
       4.3s  ○ import src.my_crew.crew:MyCrew
       9.8s  ✓ import src.my_crew.crew:MyCrew  5.5 s

A step begins with a ``log`` event that has another ``step`` than the one before, or that is the platform's own
(``source: "crewship"``). What the tools print in a step is shown dim on a terminal; elsewhere it is kept, and comes out when
the build fails. A step that had nothing to do (``cached``) is one line.
"""

from dataclasses import dataclass, field

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
        output: Everything that the tools printed and that was not shown.
    """

    paint: Paint
    show_output: bool
    activity: str = "starting"
    output: list[str] = field(default_factory=list)
    _start_ms: float | None = None
    _step: str = ""
    _step_ms: float = 0.0
    _cached: bool = False

    def lines(self, event: Event) -> list[str]:
        """The lines of one event."""
        at_ms = parse_time(event.at).timestamp() * 1000
        if self._start_ms is None:
            self._start_ms = at_ms
        margin = self.paint(f"{clock(at_ms - self._start_ms):>7}", DIM) + "  "
        data = event.data
        if event.type == "log":
            return self._log(event, at_ms, margin)
        if event.type == "build.completed":
            return self._close(at_ms, margin)
        if event.type == "build.failed":
            failed = f"{self.paint('✗', RED)} {self._step}{self._took(at_ms)}"
            return [margin + failed] if self._step else []
        if event.type == "deployment.activated":
            return [f"{margin}{self.paint('✓', GREEN)} {data.get('deployment_id', 'it')} is current"]
        return []

    def _log(self, event: Event, at_ms: float, margin: str) -> list[str]:
        data = event.data
        message = plain(str(data.get("message", "")))
        step = plain(str(data.get("step") or (message if data.get("source") == "crewship" else "")))
        lines = []
        if step and step != self._step:
            lines = self._close(at_ms, margin)
            self._step, self._step_ms, self._cached = step, at_ms, bool(data.get("cached"))
            self.activity = step
            if not self._cached:
                lines.append(f"{margin}{self.paint('○', CYAN)} {step}")
            if step == message:
                return lines
        if data.get("cached"):
            self._cached = True
        if message:
            if self.show_output:
                lines.append(f"{_OUTPUT_INDENT}{self.paint(message, DIM)}".rstrip())
            else:
                self.output.append(message)
        return lines

    def _close(self, at_ms: float, margin: str) -> list[str]:
        if not self._step:
            return []
        note = self.paint("  cached", DIM) if self._cached else self._took(at_ms)
        step, self._step = self._step, ""
        return [f"{margin}{self.paint('✓', GREEN)} {step}{note}"]

    def _took(self, at_ms: float) -> str:
        return self.paint(f"  {duration(at_ms - self._step_ms)}", DIM)
