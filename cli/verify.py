"""Checks a log's hash chain, from the API or from a saved file, without holding it in memory."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crewship.errors import CrewshipError, Usage
from crewship.events import TERMINAL, parse, verify


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found: how many events, the last hash, and whether the last one is a terminal event."""

    events: int
    hash: str
    complete: bool


def verify_log(lines: Iterable[bytes]) -> Verified:
    """Check NDJSON ``lines`` from the first event on.

    Raises:
        CrewshipError: the chain breaks, or there is nothing to check; says where.
    """
    last = b""

    def remembered() -> Iterator[bytes]:
        nonlocal last
        for line in lines:
            if line.strip():
                last = line
                yield line

    try:
        events, digest = verify(remembered())
    except ValueError as error:
        raise CrewshipError(
            f"the log is not what was recorded: {error}",
            hint="a line was changed, lost, doubled or reordered after it was written", code="chain_broken",
        ) from None  # fmt: skip
    if events == 0:
        raise CrewshipError("there is no event to verify", code="log_empty")
    return Verified(events, digest, next(parse(last)).type in TERMINAL)


def verify_file(name: str) -> Verified:
    """Check a saved NDJSON file; ``-`` is stdin.

    Raises:
        CrewshipError: as :func:`verify_log`.
        Usage: the file is not there or cannot be read.
    """
    if name == "-":
        return verify_log(sys.stdin.buffer)
    try:
        with open(name, "rb") as file:
            return verify_log(file)
    except FileNotFoundError:
        raise Usage(f"{name} does not exist", hint="name a saved events.ndjson, or a run's id: run_...") from None
    except OSError as error:
        raise Usage(f"{name} cannot be read: {error.strerror}", hint="name a file that can: events.ndjson") from None
