"""How much a request may bring: refused as soon as it is too much, by its header or by what really came."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import HintedException

_UPLOAD = re.compile(r"/v1/projects/[^/]+/deployments/?")
_ENVELOPE_BYTES = 64 * 1024
"""What a body has around its content: labels and names, or multipart headers."""


class BodyLimit:
    """ASGI middleware. A body over its limit is 413; uploads have a limit of their own."""

    def __init__(self, app: ASGIApp, *, body_bytes: int, upload_bytes: int) -> None:
        self.app, self.body_bytes, self.upload_bytes = app, body_bytes, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None
        content = self.upload_bytes if upload else self.body_bytes
        limit = content + _ENVELOPE_BYTES
        announced = Headers(scope=scope).get("content-length", "")
        received = 0

        async def limited() -> Message:
            nonlocal received
            if announced.isdigit() and int(announced) > limit:
                raise _too_large(content, upload)
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(content, upload)
            return message

        await self.app(scope, limited, send)


def _too_large(limit: int, upload: bool) -> HintedException:
    if upload:
        return HintedException(
            413,
            f"The upload is larger than {limit:,} bytes, compressed",
            "leave out what the crew does not need: [build] exclude in crewship.toml, or .gitignore",
        )
    return HintedException(
        413,
        f"The body is larger than {limit:,} bytes",
        "put large data where the crew can fetch it, and pass the address",
    )
