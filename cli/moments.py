"""Times as people type them: ``90d`` and ``12h``, a day, or RFC 3339."""

import re
from datetime import UTC, datetime, timedelta

from crewship.clock import rfc3339
from crewship.errors import Usage

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(rf"(\d{{1,6}}) ?({'|'.join(_UNITS)})")


def ago(text: str, option: str) -> str:
    """``24h`` as the time so long ago, any other time as it is; RFC 3339. Raises ``Usage``."""
    return _moment(text, option, -1)


def ahead(text: str, option: str) -> str:
    """``90d`` as the time so far ahead, any other time as it is; RFC 3339. Raises ``Usage``."""
    return _moment(text, option, 1)


def _moment(text: str, option: str, direction: int) -> str:
    try:
        if span := _SPAN.fullmatch(text.strip()):
            seconds = int(span[1]) * _UNITS[span[2]]
            return rfc3339(datetime.now(UTC) + direction * timedelta(seconds=seconds))
        moment = datetime.fromisoformat(text.strip())
        # What a person types without a zone is a time on this machine's clock.
        return rfc3339(moment if moment.tzinfo else moment.astimezone())
    except (ValueError, OverflowError):
        raise Usage(
            f"{text!r} is no time",
            hint=f"{option} 24h, {option} 7d, {option} 2026-01-31 or {option} 2026-01-31T09:05:00Z",
        ) from None
