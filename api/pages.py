"""Lists by cursor: a cursor is the place of the last item that was given, so pages neither overlap nor skip when rows come."""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import orjson
from fastapi import Query

from crewship.errors import InvalidCursor

T = TypeVar("T")

LimitQuery = Annotated[int, Query(ge=1, le=200, description="How many at most")]
CursorQuery = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")]


def encode_cursor(*place: str) -> str:
    """An opaque cursor for an item's place in its order."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[str]:
    """The ``length`` parts of a place.

    Raises:
        InvalidCursor: it is not one that :func:`encode_cursor` made.
    """
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise _invalid() from error
    if not isinstance(place, list) or len(place) != length or not all(isinstance(part, str) for part in place):
        raise _invalid()
    return place


def decode_moment(cursor: str) -> tuple[datetime, str]:
    """A place that is a time and an id; raises as :func:`decode_cursor`."""
    moment, item_id = decode_cursor(cursor, 2)
    try:
        found = datetime.fromisoformat(moment)
        return (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)), item_id
    except (ValueError, OverflowError) as error:  # the latter: in UTC it is before the year 1 or after 9999
        raise _invalid() from error


def decode_number(cursor: str) -> int:
    """A place that is a number; raises as :func:`decode_cursor`."""
    (number,) = decode_cursor(cursor, 1)
    if not re.fullmatch(r"[0-9]{1,18}", number):
        raise _invalid()
    return int(number)


def cut(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Of ``limit + 1`` rows asked for: those of the page, and whether there are more."""
    return rows[:limit], len(rows) > limit


def _invalid() -> InvalidCursor:
    return InvalidCursor("The cursor is not one of this list", hint="pass next_cursor on as it came")
