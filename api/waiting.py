"""What pending runs wait for: a place in their project, a free slot on their container host, or only their container."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from sqlmodel import Session, col, select

from api.wire import Read, Time
from crewship.admission import ACTIVE, held
from crewship.models import Deployment, Run


class WaitingRead(Read):
    """``position`` in the queue for a place or slot: 1 is next, 0 has one and starts."""

    reason: Literal["capacity", "project_concurrency", "starting"]
    position: int
    since: Time


class _Queued(NamedTuple):
    """The columns of a run that say where it stands."""

    id: str
    project: str
    host: str
    priority: int
    created_at: datetime
    admitted_at: datetime | None


def waiting_for(session: Session, runs: Sequence[Run], capacity: int) -> dict[str, WaitingRead]:
    """Run id → what it waits for, of those of ``runs`` that are pending.

    Within a project the most urgent and oldest run gets the next place. Slots of a host are given in the order of priority,
    then to the projects in turn, then by age: what Temporal's priority and fairness do with the backlog, as far as our own
    rows can tell.

    Args:
        session: Where the rows are from.
        runs: Any runs.
        capacity: Containers that may run at once on a host.
    """
    pending = {run.id for run in runs if run.status == "pending"}
    if not pending:
        return {}
    waiting: dict[str, WaitingRead] = {}
    held_runs, queued_runs, taken = _queues(session)
    for queue in held_runs.values():
        for position, run in enumerate(sorted(queue, key=_urgency), 1):
            waiting[run.id] = WaitingRead(reason="project_concurrency", position=position, since=run.created_at)
    for host, queue in queued_runs.items():
        for index, run in enumerate(_in_turn(queue), 1):
            position = max(0, taken[host] + index - capacity)
            waiting[run.id] = WaitingRead(
                reason="capacity" if position else "starting",
                position=position,
                since=run.admitted_at or run.created_at,
            )
    return {run.id: waiting.get(run.id) or _starting(run) for run in runs if run.id in pending}


def _queues(session: Session) -> tuple[dict[str, list[_Queued]], dict[str, list[_Queued]], dict[str, int]]:
    """Held runs by project, runs in the queue by host, and how many slots of each host are taken."""
    held_runs: dict[str, list[_Queued]] = defaultdict(list)
    queued_runs: dict[str, list[_Queued]] = defaultdict(list)
    taken: dict[str, int] = defaultdict(int)
    rows = session.exec(
        select(  # type: ignore[call-overload]
            Run.id,
            Run.project,
            Deployment.host,
            Run.priority,
            Run.created_at,
            Run.admitted_at,
            held(),
            col(Run.launched_at).is_not(None) | (col(Run.status) == "running"),
        )
        .join(Deployment, col(Deployment.id) == col(Run.deployment_id))
        .where(col(Run.status).in_(ACTIVE))
    )
    for *columns, is_held, has_slot in rows:
        run = _Queued(*columns)
        if has_slot:
            taken[run.host] += 1
        elif is_held:
            held_runs[run.project].append(run)
        else:
            queued_runs[run.host].append(run)
    return held_runs, queued_runs, taken


def _urgency(run: _Queued) -> tuple[int, datetime, str]:
    return run.priority, run.created_at, run.id


def _in_turn(queue: list[_Queued]) -> list[_Queued]:
    """In the order of priority; among equals each project's first, then each one's second, and so on."""
    before: dict[tuple[int, str], int] = defaultdict(int)
    places: list[tuple[int, int, datetime, _Queued]] = []
    for run in sorted(queue, key=_urgency):
        places.append((run.priority, before[run.priority, run.project], run.created_at, run))
        before[run.priority, run.project] += 1
    return [place[-1] for place in sorted(places)]


def _starting(run: Run) -> WaitingRead:
    return WaitingRead(reason="starting", position=0, since=run.admitted_at or run.created_at)
