"""Stream tokens: leave to read one run's events for ten minutes, for browsers, whose EventSource cannot send headers.

Stateless: ``<run id>.<expiry, seconds since the epoch>.<HMAC-SHA256>``. A token opens streams; one that is open stays so.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from crewship.errors import Forbidden, Unauthorized

LIFETIME_SECONDS = 600
_RENEW = "get one for this run by POST /v1/runs/{id}/stream-token"


@dataclass(frozen=True)
class StreamTokens:
    """Makes tokens under the first of ``keys``, which all API processes of an installation share; any of them is good."""

    keys: tuple[bytes, ...]

    @classmethod
    def derive(cls, *secrets: bytes) -> "StreamTokens":
        """From the installation's secret keys, so that no further one has to be kept."""
        return cls(tuple(hmac.digest(secret, b"crewship stream tokens", "sha256") for secret in secrets))

    def issue(self, run_id: str) -> tuple[str, datetime]:
        """A token for that run, and when it expires."""
        expires = int(time.time()) + LIFETIME_SECONDS
        return f"{run_id}.{expires}.{_sign(self.keys[0], run_id, expires)}", datetime.fromtimestamp(expires, UTC)

    def check(self, token: str, run_id: str) -> None:
        """Raise unless ``token`` is good for that run now.

        Raises:
            Unauthorized: it is not one of ours, or it has expired.
            Forbidden: it is for another run.
        """
        owner, _, rest = token.partition(".")
        expiry, _, signature = rest.partition(".")
        expires = int(expiry) if expiry.isascii() and expiry.isdigit() and len(expiry) < 12 else 0
        good = [_sign(key, owner, expires).encode() for key in self.keys]
        if not any(hmac.compare_digest(signature.encode(), each) for each in good):
            raise Unauthorized("The stream token is not valid", code="invalid_token", hint=_RENEW)
        if expires <= time.time():
            raise Unauthorized("The stream token has expired", code="token_expired", hint=_RENEW)
        if owner != run_id:
            raise Forbidden("The stream token is for another run", hint=_RENEW)


def _sign(key: bytes, run_id: str, expires: int) -> str:
    return hmac.new(key, f"{run_id}.{expires}".encode(), hashlib.sha256).hexdigest()
