"""How often somebody may ask: requests per key, and wrong keys per address.

Both count in this process alone, in memory: with N API processes behind a balancer a key has up to N times its quota, and an
address N times its guesses. That is enough for what they are for, which is to keep one client from taking the API away from
the others, and noise out of the database; a key has 256 bits, and no number of guesses finds one.

Each is a generic cell rate algorithm: per key one number, the time at which its bucket is full again. A request costs a look-up
and a few additions, a stream as much as one request.
"""

import hashlib
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from crewship.errors import TooManyRequests

QUOTA = "crewship.quota"
"""Key of the ASGI scope under which the request's :class:`Quota` is."""

WINDOW_SECONDS = 60
_MOST_TRACKED = 10_000
"""Keys or addresses that are remembered; beyond that the one that asked longest ago is forgotten."""
_MOST_KNOWN = 1024
"""Secrets that were valid lately."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left to a caller, for the response's headers."""

    limit: int
    remaining: int
    reset_seconds: int
    """Until all of it is there again."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As in draft-ietf-httpapi-ratelimit-headers."""
        policy = f'"key";q={self.limit};w={WINDOW_SECONDS}'
        state = f'"key";r={self.remaining};t={self.reset_seconds}'
        return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())]


class Rates:
    """``limit`` in :data:`WINDOW_SECONDS` for each name, all at once or spread; refilled evenly. ``limit`` 0: no limit."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self._step = WINDOW_SECONDS / limit if limit else 0.0
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """How long until ``name`` may take one more; 0: now."""
        if not self.limit:
            return 0.0
        return max(0.0, self._full_at.get(name, 0.0) + self._step - WINDOW_SECONDS - self._clock())

    def take(self, name: str) -> Quota:
        """Take one, which must be there; what is left."""
        moment = self._clock()
        full_at = max(self._full_at.get(name, 0.0), moment) + self._step
        self._full_at[name] = full_at
        self._full_at.move_to_end(name)
        if len(self._full_at) > _MOST_TRACKED:
            self._full_at.popitem(last=False)
        return self._quota(full_at - moment)

    def state(self, name: str) -> Quota:
        """What is left, without taking."""
        return self._quota(max(0.0, self._full_at.get(name, 0.0) - self._clock()))

    def _quota(self, until_full_seconds: float) -> Quota:
        remaining = math.floor((WINDOW_SECONDS - until_full_seconds) / self._step + 1e-6)
        return Quota(self.limit, max(0, remaining), math.ceil(until_full_seconds))


class RequestQuotas:
    """Requests of a key. A refusal costs nothing, so a client that waits as it is told gets on."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    def take(self, name: str) -> Quota | None:
        """Count a request; what is left, or None without a limit.

        Raises:
            TooManyRequests: there is nothing left.
        """
        if not self._rates.limit:
            return None
        if wait := self._rates.wait_seconds(name):
            raise TooManyRequests(
                f"This key has made more than {self._rates.limit:,} requests in a minute",
                retry_after_seconds=math.ceil(wait),
                hint="wait as long as Retry-After says; CREWSHIP_RATE_LIMIT_PER_MINUTE on the server sets the limit",
                quota=self._rates.state(name).headers(),
            )
        return self._rates.take(name)


class GuessGuard:
    """Wrong keys from an address. Where there were too many, only secrets that were valid here lately are looked at, so that a
    guess tells nothing, and a script with an old key does not lock out who works at the same address."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def admit(self, address: str | None, secret: str) -> None:
        """Raise ``TooManyRequests`` when no more is to be tried from ``address`` for now."""
        wait = self._rates.wait_seconds(_network(address))
        if not wait or _digest(secret) in self._known:
            return
        raise TooManyRequests(
            "Too many wrong API keys came from this address",
            retry_after_seconds=math.ceil(wait),
            code="too_many_failures",
            hint="wait as long as Retry-After says, and see that every client there has a valid key",
        )

    def failed(self, address: str | None) -> None:
        """A secret from ``address`` was wrong."""
        if self._rates.limit:
            self._rates.take(_network(address))

    def succeeded(self, secret: str) -> None:
        """``secret`` was right."""
        if self._rates.limit:
            digest = _digest(secret)
            self._known[digest] = None
            self._known.move_to_end(digest)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _network(address: str | None) -> str:
    """What one owner has: an IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed)
