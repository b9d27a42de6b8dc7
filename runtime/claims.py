"""What the crew's process may say over its socket, checked.

Its messages are JSON lines ``{"m": kind, ...}``. Each is parsed and made anew with the known keys alone, so that nothing in it
can pass for another frame's fields. The crew's process is not trusted: what is too large or no message is left out.
"""

from .wire import dumps, loads

LINE_LIMIT_BYTES = 16 << 20
"""The largest message: an output of 4 MiB with every character escaped."""
EVENT_LIMIT_BYTES = 48 << 10
"""The crew's side caps an event at 32 KiB; this leaves room for another way of counting."""
ERROR_CODES = frozenset(
    {
        "user_error",
        "import_error",
        "invalid_output",
        "exit_nonzero",
        "interrupted",
        "entrypoint_not_found",
        "entrypoint_not_callable",
    }
)
_CLAIMED = ("agent.", "task.", "tool.", "llm.")
_DENIED = "network.denied"
"""Told by ``tap_socket`` where there is no network; anywhere else the worker refuses it, for there the guard tells."""
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})
_TEXT_LIMIT = 64 << 10
_DEPTH_LIMIT = 210
"""The crew's side ends at 200, and a frame has some levels around what it carries."""


ANY_TICKET = (1 << 64) - 1
"""Answers a message that cannot be read, so that its sender does not wait for ever."""


def check(line: bytes) -> tuple[int | None, tuple[str, dict[str, object]] | None]:
    """What a message asks for: the ticket to be answered, and the frame it stands for (its type and fields)."""
    try:
        message = loads(line.decode("utf-8", "replace"))
    except ValueError:
        return ANY_TICKET, None
    if not isinstance(message, dict):
        return ANY_TICKET, None
    ticket = message.get("w")
    if not isinstance(ticket, int) or not 0 <= ticket < ANY_TICKET:
        ticket = None
    return ticket, _frame(message)


def _frame(message: dict[str, object]) -> tuple[str, dict[str, object]] | None:
    kind = message.get("m")
    if kind == "event":
        return _event(message)
    if kind == "result":
        return "result", _result(message)
    if kind == "notice":
        level = message.get("level")
        return "notice", {
            "level": level if isinstance(level, str) and level in _LEVELS else "info",
            "message": _text(message.get("message")) or "",
        }
    if kind == "loaded":
        return "loaded", {
            "import_ms": _count(message.get("import_ms")),
            "memory_bytes": _count(message.get("memory_bytes")),
            "kind": (_text(message.get("kind")) or "")[:40],
        }
    if kind == "started":
        return "started", {}
    return None


def _event(message: dict[str, object]) -> tuple[str, dict[str, object]] | None:
    name, data = message.get("type"), message.get("data")
    if not isinstance(name, str) or not isinstance(data, dict):
        return None
    word = name.partition(".")[2]
    if name not in ("custom", _DENIED) and not (
        name.startswith(_CLAIMED) and len(name) <= 40 and word.replace("_", "").isalpha() and word.islower()
    ):
        return None
    data.pop("at", None)  # the platform's own key
    if not _is_plain(data) or len(dumps(data)) > EVENT_LIMIT_BYTES:
        return None
    return "event", {"type": name, "data": data}


def _result(message: dict[str, object]) -> dict[str, object]:
    if message.get("ok") is True:
        output = message.get("output")
        if _is_plain(output):
            return {"ok": True, "output": output}
        message = {
            "error": {"code": "invalid_output", "message": f"The output is no JSON of {_DEPTH_LIMIT} levels or fewer."}
        }
    error = message.get("error")
    if not isinstance(error, dict):
        error = {}
    code = error.get("code")
    return {
        "ok": False,
        "error": {
            "code": code if isinstance(code, str) and code in ERROR_CODES else "user_error",
            "message": _text(error.get("message")) or "",
            "hint": _text(error.get("hint")),
            "traceback": _text(error.get("traceback")),
        },
    }


def _is_plain(value: object) -> bool:
    """Whether every reader on the way takes it: an infinity (``1e999``) is no JSON, and strict parsers end at 254 levels."""
    level, depth = [value], 0
    while level:
        level = [
            item
            for each in level
            if type(each) in (dict, list)
            for item in (each.values() if type(each) is dict else each)  # type: ignore[attr-defined]
            if type(item) in (dict, list)
        ]
        depth += 1
        if depth > _DEPTH_LIMIT:
            return False
    try:
        dumps(value)
    except ValueError:
        return False
    return True


def _text(value: object) -> str | None:
    return value[:_TEXT_LIMIT] if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else None
