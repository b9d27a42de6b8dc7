"""Errors of the product, one tree; the API renders them as problem+json, the CLI as ``error:`` and ``hint:``.

::

    CrewshipError                    500  exit 1
    ├── InvalidRequest               400  exit 1   what was sent cannot be right (also Unprocessable 422)
    │   ├── InvalidConfig                          crewship.toml; each instance names the key
    │   ├── InvalidSource                          the upload's layout, names, links, sizes
    │   └── InvalidCursor                          Last-Event-ID / after / cursor
    ├── Unauthorized                 401  exit 3
    ├── Forbidden                    403  exit 3
    ├── NotFound                     404  exit 4   code: project_not_found, run_not_found, ...
    ├── Conflict                     409  exit 5   code: project_exists, no_current_deployment, ...
    ├── TooLarge                     413  exit 1
    ├── TooManyRequests              429  exit 1   says how long to wait
    ├── Unavailable                  503  exit 6   names the dependency that is down
    └── Usage                          –  exit 2   CLI only

Each class has ``status``, ``exit_code`` and a default ``code``; each instance has ``detail`` and may have ``hint``.
Foreign errors are translated where they come in (the adapter), and nobody branches on an error's text.
"""

from typing import ClassVar


class CrewshipError(Exception):
    """Something the product knows how to explain.

    Attributes:
        detail: One sentence for a person; never anything internal.
        hint: What the caller can do, or None.
        code: Stable snake_case word that clients branch on.
    """

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "Internal error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.code = code or self.default_code


class InvalidRequest(CrewshipError):
    status, title, default_code = 400, "Invalid request", "invalid_request"


class Unprocessable(CrewshipError):
    """The body's shape is wrong; ``errors`` points at each place (``[{pointer, detail}]``)."""

    status, title, default_code = 422, "Unprocessable content", "validation_error"

    def __init__(self, detail: str, *, errors: list[dict[str, str]], hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.errors = errors


class InvalidConfig(InvalidRequest):
    title, default_code = "Invalid crewship.toml", "invalid_config"


class InvalidSource(InvalidRequest):
    title, default_code = "Invalid source", "invalid_source"


class InvalidCursor(InvalidRequest):
    title, default_code = "Invalid cursor", "invalid_cursor"


class Unauthorized(CrewshipError):
    status, exit_code, title, default_code = 401, 3, "Not authenticated", "unauthorized"


class Forbidden(CrewshipError):
    status, exit_code, title, default_code = 403, 3, "Not allowed", "forbidden"


class NotFound(CrewshipError):
    status, exit_code, title, default_code = 404, 4, "Not found", "not_found"


class Conflict(CrewshipError):
    status, exit_code, title, default_code = 409, 5, "Conflict", "conflict"


class TooLarge(CrewshipError):
    status, title, default_code = 413, "Too large", "too_large"


class TooManyRequests(CrewshipError):
    """Somebody asks too often.

    Attributes:
        retry_after_seconds: How long to wait.
        quota: Headers that tell of the quota, as ASGI has them.
    """

    status, title, default_code = 429, "Too many requests", "too_many_requests"

    def __init__(
        self,
        detail: str,
        *,
        retry_after_seconds: int = 1,
        quota: list[tuple[bytes, bytes]] | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail, hint=hint, code=code)
        self.retry_after_seconds = max(1, retry_after_seconds)
        self.quota = quota or []


class Unavailable(CrewshipError):
    """A part of the platform cannot be reached; ``detail`` names it."""

    status, exit_code, title, default_code = 503, 6, "Unavailable", "unavailable"


class Usage(CrewshipError):
    """The command line cannot be understood. CLI only."""

    status, exit_code, title, default_code = 400, 2, "Usage", "usage"
