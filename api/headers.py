"""Headers that every answer has: what a browser may do with it, and what is left of the caller's quota.

The API answers with data, never with a page, so a browser is told to run, frame and keep nothing of it. ``/docs`` is the one
page, and loads what comes with it only. A route that sets one of these headers itself is left alone.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.quotas import QUOTA, Quota

_COMMON = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),  # an address may hold a stream token
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),  # for <img> and <script>; calls by CORS are not concerned
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_DATA = (
    *_COMMON,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_PAGE = (
    *_COMMON,
    (
        b"content-security-policy",
        # Swagger UI starts by a script in the page, and sets styles on elements.
        b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
_TLS = (b"strict-transport-security", b"max-age=31536000")


class AnswerHeaders:
    """ASGI middleware, the outermost. It touches an answer's start only, so a stream's events pass it unseen."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = _PAGE if scope["path"].startswith("/docs") else _DATA
        if scope["scheme"] == "https":
            wanted = (*wanted, _TLS)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ())]
                there = {name.lower() for name, _ in headers}
                headers += [header for header in wanted if header[0] not in there]
                quota: Quota | None = scope.get(QUOTA)
                if quota is not None and b"ratelimit" not in there:
                    headers += quota.headers()
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, with_headers)
