"""Marks lines that Python's ``logging`` writes to the crew's streams with their level.

``logging.StreamHandler`` is changed when the crew imports ``logging``. The text is the user's formatter's; only handlers that
write to the process's own two streams are concerned, so a captured or redirected stream stays clean.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def mark_levels(logging: "ModuleType") -> None:
    """Make ``logging``'s stream handlers prefix each line with ``ESC ] 7747 ; level BEL``."""
    streams = (sys.stdout, sys.stderr)
    original = logging.StreamHandler.emit

    def emit(self: "Any", record: "Any") -> None:
        if not any(self.stream is stream for stream in streams) or self.terminator != "\n":
            original(self, record)
            return
        try:
            mark = f"\x1b]7747;{_name(record.levelno)}\x07"
            text = mark + self.format(record).replace("\n", "\n" + mark) + "\n"
            self.stream.write(text)
            self.flush()
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    logging.StreamHandler.emit = emit


def _name(number: int) -> str:
    return (
        "debug"
        if number < 20
        else "info"
        if number < 30
        else "warning"
        if number < 40
        else "error"
        if number < 50
        else "critical"
    )
