"""What pending runs wait for: a free slot on their container host, or only for their container to come up."""

from collections.abc import Sequence
from typing import Literal

from sqlmodel import Session, col, func, select

from api.wire import Read, Time
from crewship.models import Deployment, Run


class WaitingRead(Read):
    """``position`` in the queue for a slot: 1 is next, 0 has one and starts."""

    reason: Literal["capacity", "starting"]
    position: int
    since: Time


def waiting_for(session: Session, runs: Sequence[Run], capacity: int) -> dict[str, WaitingRead]:
    """Run id → what it waits for, of those of ``runs`` that are pending.

    Slots are given in the order of creation, so a run has ``capacity - running`` places at the front before it must wait.

    Args:
        session: Where the rows are from.
        runs: Any runs.
        capacity: Containers that may run at once on a host.
    """
    pending = {run.id: run for run in runs if run.status == "pending"}
    if not pending:
        return {}
    hosts = session.exec(
        select(Deployment.host)
        .where(col(Deployment.id).in_({run.deployment_id for run in pending.values()}))
        .distinct()
    ).all()
    waiting: dict[str, WaitingRead] = {}
    for host in hosts:
        of_host = select(Run.id).join(Deployment, col(Deployment.id) == col(Run.deployment_id))
        running = session.exec(
            select(func.count())
            .select_from(Run)
            .join(Deployment, col(Deployment.id) == col(Run.deployment_id))
            .where(Deployment.host == host, Run.status == "running")
        ).one()
        newest = max(run.created_at for run in pending.values())
        queue = session.exec(
            of_host.where(Deployment.host == host, Run.status == "pending", Run.created_at <= newest).order_by(
                col(Run.created_at), col(Run.id)
            )
        ).all()
        for index, run_id in enumerate(queue):
            if run_id in pending:
                position = max(0, running + index - capacity + 1)
                waiting[run_id] = WaitingRead(
                    reason="capacity" if position else "starting",
                    position=position,
                    since=pending[run_id].created_at,
                )
    return waiting
