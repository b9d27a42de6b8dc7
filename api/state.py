"""What the routes work with: made once by the lifespan, reached as ``PlatformDep``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypedDict, TypeVar, cast

import anyio
from anyio.to_thread import run_sync
from fastapi import Depends, Request
from sqlalchemy.engine import Engine
from sqlmodel import Session, col, or_, select

from api.dispatch import Dispatch
from api.feed import LogState
from api.feeds import Feeds
from api.metrics import Metrics
from api.quotas import GuessGuard, RequestQuotas
from api.tokens import StreamTokens
from crewship import db
from crewship.errors import NotFound
from crewship.models import Deployment, Run
from crewship.settings import Settings
from crewship.storage import ObjectStore

T = TypeVar("T")

_DATABASE_THREADS = 12
_STORE_THREADS = 12
"""Apart from the database's, so that a store that hangs takes nobody else's threads."""


class Sealing(Protocol):
    """Seals and opens env values; see ``crewship.sealing``."""

    def seal(self, value: str, context: str) -> str: ...
    def open(self, sealed: str, context: str) -> str: ...


@dataclass
class Platform:
    settings: Settings
    database: Engine
    store: ObjectStore
    dispatch: Dispatch
    feeds: Feeds
    sealer: Sealing
    tokens: StreamTokens
    metrics: Metrics
    quotas: RequestQuotas
    guard: GuessGuard
    _database_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_DATABASE_THREADS))
    _store_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_STORE_THREADS))

    async def transact(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a thread with a session of its own: one transaction, committed when it returns.

        Raises:
            Unavailable: the database cannot be reached.
        """

        def in_session() -> T:
            with db.session(self.database) as session:
                return work(session)

        return await run_sync(in_session, limiter=self._database_threads)

    async def make_store(self) -> None:
        """Make the object store, but only while nothing was ever stored: with a deployment in the database, one that is not
        there is lost, or its volume not mounted, and must not be taken for an empty one.

        Raises:
            Unavailable: the database or the object store cannot be reached.
        """
        if not await self.transact(lambda session: session.exec(select(Deployment.id).limit(1)).first()):
            await self.with_store(lambda store: store.create())

    async def with_store(self, work: Callable[[ObjectStore], T]) -> T:
        """Run ``work`` on the object store in a thread."""
        return await run_sync(work, self.store, limiter=self._store_threads)


class State(TypedDict):
    """What the lifespan gives to ``request.state``."""

    platform: Platform


def platform_of(request: Request) -> Platform:
    return cast(Platform, request.state.platform)


PlatformDep = Annotated[Platform, Depends(platform_of)]


def read_log_state(session: Session, workflow_id: str) -> LogState:
    """Whether a run's or deployment's log has begun, and where it ended.

    Raises:
        NotFound: there is no such run or deployment (any more).
    """
    kind, _, resource = workflow_id.partition("-")
    # A run's row says "launched" before its container is started; a deployment's "building" before its log has a line.
    rows = (
        select(Run.last_seq, or_(col(Run.launched_at).is_not(None), col(Run.status) != "pending")).where(
            Run.id == resource
        )
        if kind == "run"
        else select(Deployment.last_seq, col(Deployment.status) != "pending").where(Deployment.id == resource)
    )
    row = session.exec(rows).first()
    if row is None:
        raise NotFound("The log is gone")
    return LogState(row[0], bool(row[1]))
