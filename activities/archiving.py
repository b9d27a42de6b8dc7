"""Moves a finished log from its workflow to the object store, where it stays."""

import re

from temporalio import activity

from activities.bridge import TemporalBridge
from crewship import archive
from crewship.contracts import Entry, EventsQuery
from crewship.errors import NotFound
from crewship.events import GENESIS, Draft, render
from crewship.objects import log_prefix
from crewship.storage import ObjectStore

_TERMINAL = re.compile(r'"type":"(?:run\.(?:completed|failed|canceled)|deployment\.(?:ready|failed))"')


def archive_log(
    workflow_id: str,
    *,
    bridge: TemporalBridge,
    store: ObjectStore,
    known: list[Entry] | None = None,
    terminal: Draft | None = None,
) -> int:
    """Archive the whole log, the terminal event too, and return its seq.

    Live segments stay until the archive is whole (a second attempt reads them again) and go with it: readers that still hold
    their keys find the same events in the archive.

    Args:
        known: The whole log; asked for when it is not given.
        terminal: The terminal event of a log whose workflow ended without one; left out when it has one.
    """
    if terminal is not None:
        entries = _ended(workflow_id, bridge, terminal)
    else:
        entries = known if known is not None else _entries(workflow_id, bridge)
    if not (activity.info().attempt > 1 and archive.is_archived(store, workflow_id)):
        archive.write(store, workflow_id, entries)
    if any(entry.segment is not None for entry in entries):
        store.delete_prefix(f"{log_prefix(workflow_id)}segments/")
    return entries[-1].last if entries else 0


def _entries(workflow_id: str, bridge: TemporalBridge) -> list[Entry]:
    entries: list[Entry] = []
    after, more = 0, True
    while more:
        page = bridge.events(workflow_id, EventsQuery(after=after, include_terminal=True))
        entries += page.entries
        after, more = (entries[-1].last if entries else 0), page.more
    return entries


def _ended(workflow_id: str, bridge: TemporalBridge, terminal: Draft) -> list[Entry]:
    """The log with ``terminal`` after what its workflow has; with nothing before it where even the history is gone."""
    entries, next_seq, last_hash = [], 1, GENESIS
    try:
        entries, head = _entries(workflow_id, bridge), bridge.head(workflow_id)
    except NotFound:
        pass
    else:
        next_seq, last_hash = head.next_seq, head.hash
        if entries and _TERMINAL.search(entries[-1].lines or ""):
            return entries  # it was ended between its last event and its row
    lines, last, _ = render([terminal], next_seq, last_hash)
    return [*entries, Entry(first=next_seq, last=last, lines=lines.decode())]
