"""Temporal from a blocking activity: calls go to the worker's event loop and come back to the activity's thread."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from temporalio.client import Client

from crewship import temporal
from crewship.contracts import EventsPage, EventsQuery, Head

T = TypeVar("T")


class TemporalBridge:
    """Blocking view of the calls that activities make; errors as in ``crewship.temporal``."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self._loop = loop

    def signal(self, workflow_id: str, name: str, argument: Any) -> None:
        """Signal; returns when it is durable."""
        self.run(temporal.signal(self.client, workflow_id, name, argument))

    def head(self, workflow_id: str) -> Head:
        return self.run(temporal.query_head(self.client, workflow_id))

    def events(self, workflow_id: str, query: EventsQuery) -> EventsPage:
        return self.run(temporal.query_events(self.client, workflow_id, query))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()
