"""JSON in lines, as the supervisor reads and writes it.

The C halves of the ``json`` package, without the package: importing it brings ``re`` and ``enum``, 8 ms of each start.
"""

from _json import encode_basestring, make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:  # not at run time: importing typing costs more than all of this module
    from typing import Any

quote = encode_basestring
"""A str as a JSON string, with its quotes; characters beyond ASCII stay as they are."""


_MAX_DIGITS = 309
"""The largest float has as many."""


class _Options:
    """What the scanner asks of ``json.JSONDecoder``; NaN and the infinities are no JSON and become null."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float

    @staticmethod
    def parse_int(digits: str) -> "int | float":
        """A number that no float can hold is an infinity to the strict parsers on the way, as ``1e999`` is."""
        return int(digits) if len(digits) < _MAX_DIGITS else float(digits)

    @staticmethod
    def parse_constant(_: str) -> None:
        return None


def _refuse(value: object) -> "Any":
    raise TypeError(f"{type(value).__name__} is no JSON")


_scan: "Any" = make_scanner(_Options())  # type: ignore[arg-type]
_encode: "Any" = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, False)


def loads(text: str) -> "Any":
    """The value of one JSON text.

    Raises:
        ValueError: it is none, or nests too deep.
    """
    text = text.strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON value") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def dumps(value: object) -> str:
    """``value`` as one line of JSON.

    Raises:
        ValueError: NaN, an infinity, or nested too deep.
        TypeError: something that JSON cannot hold.
    """
    try:
        return "".join(_encode(value, 0))
    except RecursionError:
        raise ValueError("nested too deep") from None


class Lines:
    """Cuts a byte stream into lines."""

    __slots__ = ("_parts", "_size", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without their newlines.

        Raises:
            ValueError: a line is longer than ``limit_bytes``.
        """
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join((*self._parts, complete[0]))
            self._parts, self._size = [], 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self.limit_bytes:
                raise ValueError("line too long")
        return complete

    @property
    def rest(self) -> bytes:
        """The beginning of a line that is not complete yet."""
        return b"".join(self._parts)
