"""What all schemas share: strict bodies, times as the product writes them, names in paths."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, WithJsonSchema

from crewship.clock import rfc3339

Time = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T09:05:00.123Z"]}),
]
"""RFC 3339, UTC, milliseconds."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("must be a time of the years 1 to 9999, in UTC too") from None


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A time that a client gives; without a zone it is UTC."""


class Body(BaseModel):
    """Base of what clients send: a field that is not known is an error, not a typo that goes unseen."""

    model_config = ConfigDict(extra="forbid")


class Read(BaseModel):
    """Base of what clients get."""

    model_config = ConfigDict(frozen=True)


class Events(Read):
    """Where a log ends; null while it is live."""

    last_seq: int | None


class ErrorRead(Read):
    """Why a run or a deployment failed."""

    code: str
    message: str
    hint: str | None = None
    traceback: str | None = None
