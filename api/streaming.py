"""A log over HTTP: server-sent events, or NDJSON by ``Accept``, from any position, for as long as the log lives.

NDJSON can be had as it is stored, in zstd: a tenth of the bytes, and no work here. It is many frames after one another, as a
zstd file may be, which several HTTP clients that accept zstd along with other encodings do not decode to the end; so only who
asks for zstd alone is given it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.blocks import Form
from api.feed import Feed
from api.state import Platform
from crewship.errors import InvalidCursor, InvalidRequest, Unavailable
from crewship.events import EVENT_TYPES

log = logging.getLogger(__name__)

_RETRY = b"retry: 1000\n"
"""EventSource comes back after a second; the default differs by browser. Part of the first frame: one of its own would be an
event without data to some clients."""
_PING = b": ping\n"
_PING_SECONDS = 15
_SEND_SECONDS = 60.0
"""A client that takes nothing for so long is cut off; it can resume."""
_STOP_SECONDS = 5.0
_STORE_RETRY_SECONDS = 1.0
_SHOWN_CURSOR = 40
_HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "Vary": "Accept, Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What is asked for: events after ``after``, of ``types`` (None: all), in ``form``."""

    after: int
    types: frozenset[str] | None
    form: Form


def stream_request(
    request: Request,
    last_event_id: Annotated[str | None, Header(description="The last seq seen, as an EventSource sends it")] = None,
    after: Annotated[str | None, Query(description="The last seq seen; `Last-Event-ID` goes before it")] = None,
    types: Annotated[str | None, Query(description="Comma-separated event types")] = None,
) -> StreamRequest:
    """The request's stream parameters.

    Raises:
        InvalidCursor: the position is not a non-negative integer.
        InvalidRequest: a type is not known.
    """
    accept = request.headers.get("accept", "")
    form: Form = "sse"
    if "application/x-ndjson" in accept and "text/event-stream" not in accept:
        form = "zstd" if request.headers.get("accept-encoding", "").strip().lower() == "zstd" else "ndjson"
    # The header wins: an EventSource that resumes sends it along with the URL it was first given.
    position = last_event_id if last_event_id is not None else after
    return StreamRequest(_position(position), _types(types), form)


StreamRequestDep = Annotated[StreamRequest, Depends(stream_request)]


def _position(given: str | None) -> int:
    if given is None:
        return 0
    # 18 digits are beyond any log and within 64 bits.
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidCursor(
            f"{given[:_SHOWN_CURSOR]!r} is not a position in a log",
            hint="Last-Event-ID and after are the id of the last event you have, 0 for all",
        )
    return int(given)


def _types(given: str | None) -> frozenset[str] | None:
    if given is None:
        return None
    types = frozenset(name.strip() for name in given.split(",") if name.strip())
    unknown = sorted(types - EVENT_TYPES)
    if unknown or not types:
        named = f"There is no event type {unknown[0][:_SHOWN_CURSOR]!r}" if unknown else "types names no event type"
        raise InvalidRequest(named, hint=f"event types are {', '.join(sorted(EVENT_TYPES))}")
    return types


async def stream_log(platform: Platform, workflow_id: str, wanted: StreamRequest) -> Response:
    """The response that streams a log, whose row is known to exist. All that can be wrong is known before it starts.

    Raises:
        InvalidCursor: the position is beyond the last event.
        NotFound: the log is closed and the object store does not have it.
        Unavailable: a closed log cannot be read.
    """
    async with AsyncExitStack() as stack:
        feed = await stack.enter_async_context(platform.feeds.open(workflow_id))
        after: int | None = wanted.after if await feed.starts_after(wanted.after) else None
        if after is not None and wanted.types is not None:
            after = await feed.reach(after, wanted.form, wanted.types)
        if after is None:
            return Response(status_code=204)  # tells an EventSource to stay away
        wanted = replace(wanted, after=after)
        return _LogStream(feed, wanted, stack.pop_all(), platform)


class _LogStream(EventSourceResponse):
    """Gives its feed back when it has ended, however that came."""

    def __init__(self, feed: Feed, wanted: StreamRequest, stack: AsyncExitStack, platform: Platform) -> None:
        sse = wanted.form == "sse"
        super().__init__(
            _chunks(feed, wanted),
            headers=_HEADERS | ({"Content-Encoding": "zstd"} if wanted.form == "zstd" else {}),
            media_type="text/event-stream" if sse else "application/x-ndjson",
            ping=_PING_SECONDS if sse else 0,  # NDJSON is the log's bytes and nothing else
            ping_message_factory=lambda: _PING,  # type: ignore[arg-type, return-value]  # bytes are passed through
            sep="\n",
            send_timeout=_SEND_SECONDS,
            # Streams end by themselves when the feeds do; this only keeps the library from cutting them off before.
            shutdown_grace_period=_STOP_SECONDS,
        )
        self._stack, self._streams = stack, platform.metrics.streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.inc()
        try:
            async with self._stack:
                await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("a reader of %s took nothing for %d s", scope["path"], _SEND_SECONDS)
        finally:
            self._streams.dec()


async def _chunks(feed: Feed, wanted: StreamRequest) -> AsyncIterator[bytes]:
    after = wanted.after
    if wanted.form == "sse":
        yield _RETRY
    while True:
        try:
            piece = await feed.read(after, wanted.form, wanted.types)
        except Unavailable as error:
            log.info("%s: %s", feed.workflow_id, error.detail)
            await asyncio.sleep(_STORE_RETRY_SECONDS)
            continue
        if piece is None:
            return
        after = piece.last
        if piece.body:
            yield piece.body
