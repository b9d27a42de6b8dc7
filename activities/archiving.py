"""Moves a finished log from its workflow to the object store, where it stays."""

from temporalio import activity

from activities.bridge import TemporalBridge
from crewship import archive
from crewship.contracts import Entry, EventsQuery
from crewship.objects import log_prefix
from crewship.storage import ObjectStore


def archive_log(workflow_id: str, *, bridge: TemporalBridge, store: ObjectStore) -> int:
    """Archive the whole log, the terminal event too, and return its seq.

    Live segments stay until the archive is whole (a second attempt reads them again) and go with it: readers that still hold
    their keys find the same events in the archive.
    """
    entries: list[Entry] = []
    after, more = 0, True
    while more:
        page = bridge.events(workflow_id, EventsQuery(after=after, include_terminal=True))
        entries += page.entries
        after, more = (entries[-1].last if entries else 0), page.more
    if not (activity.info().attempt > 1 and archive.is_archived(store, workflow_id)):
        archive.write(store, workflow_id, entries)
    if any(entry.segment is not None for entry in entries):
        store.delete_prefix(f"{log_prefix(workflow_id)}segments/")
    return after
