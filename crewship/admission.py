"""Admission: which of a project's runs may start, when the project limits how many run at once.

A run with a limit (``Run.concurrency``) is *held* until it is admitted (``Run.admitted_at``): its workflow waits for a signal.
That is decided from the rows alone, by one transaction at a time for a project: whenever a run comes, whenever one ends, and
in every round of upkeep. Whoever dies between the transaction and the signal leaves a run that is admitted and was not told;
the next round tells it. A project without a limit never comes here.
"""

from typing import Final

from sqlalchemy import ColumnElement, and_, func, not_, update
from sqlmodel import Session, col, select

from crewship.clock import now
from crewship.contracts import RunInput
from crewship.models import Project, Run
from crewship.settings import Settings

ACTIVE: Final = ("pending", "running")


def is_held(run: Run) -> bool:
    """Whether ``run`` waits for a place in its project."""
    return run.concurrency is not None and run.admitted_at is None


def held() -> ColumnElement[bool]:
    """:func:`is_held` for queries."""
    return and_(col(Run.concurrency).is_not(None), col(Run.admitted_at).is_(None))


def admit(session: Session, project: str) -> list[Run]:
    """Admit the held runs of ``project`` that it has places for, the most urgent and oldest first.

    Returns:
        Those that were admitted now. Their workflows are to be told (``crewship.temporal.admit_run``) after the commit.
    """
    # The row's lock: of two at once the second sees what the first decided.
    session.exec(update(Project).where(col(Project.name) == project).values(deleting=col(Project.deleting)))
    of_project = and_(col(Run.project) == project, col(Run.status).in_(ACTIVE))
    count = select(func.count()).select_from(Run).where(of_project, not_(held()))
    queue = select(Run).where(of_project, held()).order_by(col(Run.priority), col(Run.created_at), col(Run.id)).limit(1)
    admitted: list[Run] = []
    taken = session.exec(count).one()
    while (run := session.exec(queue).first()) is not None and taken < (run.concurrency or 0):
        run.admitted_at = now()
        session.add(run)
        session.flush()
        admitted.append(run)
        taken += 1
    return admitted


def run_input(run: Run, host: str, settings: Settings) -> RunInput:
    """The workflow's argument for a run as its row stands."""
    return RunInput(
        run_id=run.id,
        project=run.project,
        deployment_id=run.deployment_id,
        host=host,
        timeout_seconds=run.timeout_seconds,
        grace_seconds=settings.grace_seconds,
        priority=run.priority,
        queue_timeout_seconds=run.queue_timeout_seconds,
        held=is_held(run),
    )
