"""What a crew printed, made safe to show.

A log keeps the bytes as they were. On a terminal they could move the cursor, retitle the window, write to the clipboard or
hide text, so of all control sequences only colours and text attributes (SGR) come through, and each line ends with a reset.
Where nobody looks at a terminal they are all taken out.
"""

import re

_SEQUENCE = re.compile(
    r"""
    \x1b\[[0-9;:]*m                             # SGR: colours, the one kind that may stay
  | (?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]            # any other control sequence
  | (?:\x1b[\]P_^X]|[\x9d\x90\x9f\x9e\x98])     # a string (OSC, DCS, APC, PM, SOS) ...
    [^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|\Z)?    # ... up to its end
  | \x1b[ -/]*[0-~]?                            # any other escape
  | [\x00-\x08\x0a-\x1f\x7f-\x9f]               # control characters but the tab
  | [\u202a-\u202e\u2066-\u2069]                # marks that turn the reading direction
    """,
    re.VERBOSE,
)
_SGR = re.compile(r"\x1b\[[0-9;:]*m")
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """``text`` without any control sequence or control character; newlines are gone too, tabs stay."""
    return _SEQUENCE.sub("", _last_state(text)) if _UNSAFE.search(text) else text


def colored(text: str) -> str:
    """``text`` with colours alone, reset at its end."""
    if not _UNSAFE.search(text):
        return text
    shown = _SEQUENCE.sub(lambda match: match[0] if _SGR.fullmatch(match[0]) else "", _last_state(text))
    return shown + "\x1b[0m" if "\x1b" in shown else shown


def _last_state(text: str) -> str:
    """What a terminal would show in the end of a line that was rewritten with carriage returns (progress bars)."""
    if "\r" not in text:
        return text
    states = [state for state in text.split("\r") if plain(state).strip()]
    return states[-1] if states else ""
