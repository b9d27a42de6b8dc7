"""What every workflow with a log has: the signals that fill it and the queries that read it.

The handlers are pure list work on :class:`crewship.log.EventLog`; what is appended is durable when the signal is acknowledged.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from crewship.contracts import Batch, EventsPage, EventsQuery, Head
    from crewship.log import EventLog


class Logged:
    """Base of ``RunWorkflow`` and ``DeployWorkflow``."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.cancel_requested = False

    @workflow.signal(description="Append a batch of events to the log")
    def append(self, batch: Batch) -> None:
        self.log.append(batch)

    @workflow.signal(description="Hear only log writers of this epoch or later")
    def fence(self, epoch: int) -> None:
        self.log.fence(epoch)

    @workflow.query(description="Entries of the log after a seq")
    def events(self, query: EventsQuery) -> EventsPage:
        return self.log.read(query)

    @workflow.query(description="Where the log stands")
    def head(self) -> Head:
        return self.log.head(cancel_requested=self.cancel_requested)
