"""What the guard tells a worker, one JSON object a line over a unix socket. Nothing is sent the other way."""

import json
from dataclasses import asdict, dataclass
from typing import Any

SILENCE_SECONDS = 15.0
"""A guard that was not heard of for so long is gone; it says how it is every five."""
STATE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class GuardState:
    """How the rules of one bridge are.

    Attributes:
        bridge: Interface's name.
        problem: Why they cannot be set; None: they hold.
        hint: How to mend it.
        blocked: Networks that are refused, beside the host itself and other runs.
        reach: The operator's exceptions.
        resolvers: Whose port 53 is open.
        repairs: How often they were found changed and set again.
        closed_problem: Why those of the closed bridge, which runs with ``[network] allow`` are on, cannot be set; None: they
            hold, or there is no such bridge yet.
        gateway: The host's address on the closed bridge; None: there is no such bridge.
    """

    bridge: str
    problem: str | None = None
    hint: str | None = None
    blocked: tuple[str, ...] = ()
    reach: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    repairs: int = 0
    closed_problem: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """A packet, or a request to the proxy, that was refused.

    Attributes:
        at_ms: Since the epoch.
        source: The run's address.
        host: Where it was to go; a packet's has an address only.
        reason: Why, where that is not plain.
    """

    at_ms: int
    source: str
    host: str
    port: int | None
    protocol: str
    reason: str | None = None


def line_of(message: GuardState | Denial) -> bytes:
    """One line, with its newline."""
    kind = "state" if isinstance(message, GuardState) else "denied"
    return json.dumps({kind: asdict(message)}).encode() + b"\n"


def message_of(line: bytes) -> GuardState | Denial | None:
    """What a line says; None for what is no message of this version."""
    try:
        ((kind, fields),) = json.loads(line).items()
        if kind == "state":
            lists: dict[str, Any] = {name: tuple(fields[name]) for name in ("blocked", "reach", "resolvers")}
            return GuardState(**{**fields, **lists})
        return Denial(**fields) if kind == "denied" else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
