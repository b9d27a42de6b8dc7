"""How much a request may bring: refused as soon as it is too much, by its header or by what really came."""

import re

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import HintedException
from crewship.uploads import PART_BYTES

_UPLOAD = re.compile(r"/v1/projects/[^/]+/deployments/?")
_PART = re.compile(r"/v1/projects/[^/]+/uploads/[^/]+/parts/[^/]+")
_ENVELOPE_BYTES = 64 * 1024
"""What a body has around its content: labels and names, or multipart headers."""


class HeadLimit(HttpToolsProtocol):
    """uvicorn's HTTP over a connection, which by itself keeps headers of any size: a head over its limit is 431.

    Looked at when a piece has come, so that a head may be larger by one piece (256 KiB).
    """

    head_bytes = 64 * 1024
    _coming = 0
    """Bytes of a head whose end has not come yet."""
    _is_head = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_head:
            self._coming = 0
            return
        self._coming += len(data)
        if self._coming > self.head_bytes and not self.transport.is_closing():
            detail = f"The request's line and headers have more than {self.head_bytes:,} bytes"
            body = orjson.dumps(
                {
                    "type": "urn:crewship:error:headers_too_large", "title": "Headers too large", "status": 431,
                    "detail": detail, "instance": "", "code": "headers_too_large", "hint": "send less in them",
                }
            )  # fmt: skip
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/problem+json\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
            )
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head = True

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._is_head = False


class BodyLimit:
    """ASGI middleware. A body over its limit is 413; uploads and their parts have limits of their own."""

    def __init__(self, app: ASGIApp, *, body_bytes: int, upload_bytes: int) -> None:
        self.app, self.body_bytes, self.upload_bytes = app, body_bytes, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None
        part = scope["method"] == "PUT" and _PART.fullmatch(scope["path"]) is not None
        content = self.upload_bytes if upload else PART_BYTES if part else self.body_bytes
        limit = content + _ENVELOPE_BYTES
        announced = Headers(scope=scope).get("content-length", "")
        received = 0

        async def limited() -> Message:
            nonlocal received
            if announced.isdigit() and int(announced) > limit:
                raise _too_large(content, upload, part)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(content, upload, part)
            return message

        await self.app(scope, limited, send)


def _too_large(limit: int, upload: bool, part: bool) -> HintedException:
    if upload:
        return HintedException(
            413,
            f"The upload is larger than {limit:,} bytes, compressed",
            "leave out what the crew does not need: [build] exclude in crewship.toml, or .gitignore",
        )
    if part:
        return HintedException(
            413, f"A part of an upload has {limit:,} bytes at most", f"part N begins at byte N × {limit}"
        )
    return HintedException(
        413,
        f"The body is larger than {limit:,} bytes",
        "put large data where the crew can fetch it, and pass the address",
    )
