"""What worker and proxy tell each other, one JSON object a line over a unix socket.

The proxy begins, and says every few seconds how it is and what it refused. The worker says who may reach what, and is told
when that holds.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from crewship.netguard.messages import Denial


@dataclass(frozen=True, slots=True)
class EgressState:
    """How the proxy of one host is.

    Attributes:
        problem: Why it serves nobody; None: it serves.
        hint: How to mend that.
        url: Where runs reach it; empty while it serves nobody.
        known: Containers that it has hosts for.
    """

    problem: str | None = None
    hint: str | None = None
    url: str = ""
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permit:
    """What a container may reach. Takes the place of what held for its address before.

    Attributes:
        number: Of the message; the answer has it.
        container: Its id.
        address: Its own on the closed bridge.
        hosts: As ``[network] allow`` has them.
    """

    number: int
    container: str
    address: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """The container has ended: nobody at its address may reach anything."""

    number: int
    container: str


@dataclass(frozen=True, slots=True)
class Done:
    """It holds."""

    number: int


Message = EgressState | Permit | Forget | Done | Denial
_KINDS: dict[str, Callable[..., Message]] = {
    "state": EgressState, "permit": Permit, "forget": Forget, "done": Done, "denied": Denial,
}  # fmt: skip
_NAMES: dict[object, str] = {kind: name for name, kind in _KINDS.items()}


def line_of(message: Message) -> bytes:
    """One line, with its newline."""
    return json.dumps({_NAMES[type(message)]: asdict(message)}).encode() + b"\n"


def message_of(line: bytes) -> Message | None:
    """What a line says; None for what is no message of this version."""
    try:
        ((name, fields),) = json.loads(line).items()
        return _KINDS[name](
            **{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
