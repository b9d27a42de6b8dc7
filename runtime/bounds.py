"""Event data cut to size: an event is a message for people and dashboards, not a way to move data.

Unlike a run's output, what is no JSON becomes its ``repr``: an event must not fail the run that sends it.
"""

from .plain import plain
from .wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STRING_LIMIT_BYTES = 4 << 10
EVENT_LIMIT_BYTES = 32 << 10
_DEPTH_LIMIT = 8
_CUT = "…"


def bounded(data: "dict[str, Any]") -> "dict[str, Any]":
    """``data`` with strings of at most 4 KiB and 32 KiB of JSON in all; what comes first is kept first."""
    out = _value(data, _Budget(), 0)
    return out if isinstance(out, dict) else {}


class _Budget:
    """Bytes of JSON that are left."""

    def __init__(self) -> None:
        self.left = EVENT_LIMIT_BYTES - 64

    def take(self, size: int) -> bool:
        self.left -= size
        return self.left >= 0


def _value(value: "Any", budget: _Budget, depth: int) -> "Any":
    try:
        form = plain(value)
        if type(form) is int and not -(1 << 63) <= form < 1 << 64:
            form = str(form)
    except Exception:
        form = _repr(value)
    if isinstance(form, str):
        text = cut(form)
        return text if budget.take(len(quote(text).encode("utf-8", "replace")) + 1) else _CUT
    if not isinstance(form, (dict, list)):
        budget.take(24)
        return form
    if depth >= _DEPTH_LIMIT:
        return _CUT
    budget.take(2)
    if isinstance(form, list):
        items: list[Any] = []
        for item in form:
            if budget.left <= 0:
                items.append(_CUT)
                break
            items.append(_value(item, budget, depth + 1))
        return items
    members: dict[str, Any] = {}
    for key, item in form.items():
        if budget.left <= 0:
            members[_CUT] = _CUT
            break
        name = cut(key if isinstance(key, str) else _repr(key), 256)
        budget.take(len(quote(name).encode("utf-8", "replace")) + 2)
        members[name] = _value(item, budget, depth + 1)
    return members


def cut(text: str, limit_bytes: int = STRING_LIMIT_BYTES) -> str:
    """``text``, or its beginning and an ellipsis, in at most ``limit_bytes`` of UTF-8."""
    if len(text) * 4 <= limit_bytes:
        return text
    data = text[:limit_bytes].encode("utf-8", "replace")
    if len(data) <= limit_bytes and len(text) <= limit_bytes:
        return text
    return data[: limit_bytes - 3].decode("utf-8", "ignore") + _CUT


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
