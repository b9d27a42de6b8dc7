"""Reading a run's log: what there is by now, or all up to its end."""

from collections.abc import Iterator
from datetime import datetime

from cli.client import Client, Line, segment
from cli.human import parse_time
from crewship.events import RUN_TERMINAL

_PATIENCE_SECONDS = 30.0
_BACKLOG_QUIET_SECONDS = 1.0
"""What a live run has logged so far comes at once; after so much silence there is no more of it."""


def read_log(
    client: Client, run: str, *, after: int = 0, follow: bool, types: set[str] | None = None
) -> Iterator[list[Line]]:
    """Events after seq ``after``, as many at a time as have come.

    Args:
        client: Where to.
        run: The run's id.
        after: The last seq known.
        follow: Go on until the run has ended; else stop at what had happened when this was called.
        types: Only these; the terminal event comes in any case.

    Raises:
        NotFound: there is no such run.
    """
    path = f"/runs/{segment(run)}"
    query = None if types is None else ",".join(sorted(types | RUN_TERMINAL))
    found = client.get(path)
    if follow or found["status"] not in ("pending", "running"):
        for batch in client.events(f"{path}/events", after=after, types=query, quiet_seconds=_PATIENCE_SECONDS):
            if batch:
                yield batch
        return
    asked_at = client.server_time
    last_seq: int | None = found["events"]["last_seq"]
    for batch in client.events(f"{path}/events", after=after, types=query, quiet_seconds=_BACKLOG_QUIET_SECONDS):
        past = [line for line in batch if _is_past(line, asked_at, last_seq)]
        if past:
            yield past
        if len(past) < len(batch) or not batch:
            return


def _is_past(line: Line, asked_at: datetime | None, last_seq: int | None) -> bool:
    if last_seq is not None:
        return line.event.seq <= last_seq
    return asked_at is None or parse_time(line.event.at) <= asked_at
