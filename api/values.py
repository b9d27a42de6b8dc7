"""JSON values that can be kept and given on exactly: Python's parser takes more than that."""

import math
from typing import Any

from crewship.errors import Unprocessable

_MAX_DEPTH = 250
"""Levels of objects and lists. orjson, which writes events and outputs, stops at 254."""


def check_json(value: Any, pointer: str) -> None:
    """Raise ``Unprocessable`` unless all of ``value``, which is at ``pointer`` in the body, can be kept as it is."""
    left = [(value, pointer, 1)]
    while left:
        item, place, depth = left.pop()
        match item:
            case dict() | list() if depth > _MAX_DEPTH:
                raise _refused(pointer, f"is nested deeper than {_MAX_DEPTH} levels", "make it flatter")
            case dict():
                for name in item:
                    _check_text(name, place)
                left += [(inner, f"{place}/{escaped(name)}", depth + 1) for name, inner in item.items()]
            case list():
                left += [(inner, f"{place}/{index}", depth + 1) for index, inner in enumerate(item)]
            case str():
                _check_text(item, place)
            case float() if not math.isfinite(item):
                raise _refused(
                    place, "must be a finite number", "JSON has no NaN and no Infinity: send null or a string"
                )
            case int() if not -(1 << 63) <= item < 1 << 64:
                raise _refused(place, "must be an integer of at most 64 bits", "send a larger one as a string")


def escaped(name: str) -> str:
    """``name`` as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _check_text(text: str, place: str) -> None:
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise _refused(
            place, "must be whole Unicode characters", "it has half of a surrogate pair, as in \\ud83d alone"
        )


def _refused(place: str, detail: str, hint: str) -> Unprocessable:
    return Unprocessable(f"{place}: {detail}", errors=[{"pointer": place, "detail": detail}], hint=hint)
