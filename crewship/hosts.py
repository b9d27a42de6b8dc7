"""Container hosts as their workers last saw them: the API has no engine of its own to ask, and says before it takes work whether
the engine that would do it can be reached."""

from sqlmodel import Session, col, select

from crewship.clock import now
from crewship.errors import Unavailable
from crewship.models import Host


def record_engine(session: Session, name: str, problem: str | None) -> None:
    """Keep what the worker of host ``name`` found; None: its engine answers."""
    host = session.get(Host, name) or Host(name=name)
    host.engine_problem, host.checked_at = problem, now()
    session.add(host)


def require_engine(session: Session, name: str) -> None:
    """Raise ``Unavailable`` when the worker of host ``name`` could not reach its container engine lately.

    A host that no worker has told of yet may come: its work waits.
    """
    host = session.get(Host, name)
    if host is not None and host.engine_problem is not None:
        raise _unavailable(host)


def require_any_engine(session: Session) -> None:
    """Raise ``Unavailable`` when a host's engine cannot be reached."""
    host = session.exec(select(Host).where(col(Host.engine_problem).is_not(None)).limit(1)).first()
    if host is not None:
        raise _unavailable(host)


def _unavailable(host: Host) -> Unavailable:
    return Unavailable(f"The container engine of host {host.name!r} cannot be reached", hint="crewship doctor")
