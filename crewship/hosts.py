"""Container hosts as their workers last saw them: the API has no engine of its own to ask, and says before it takes work whether
the engine that would do it can be reached, and whether its network lets anything start."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlmodel import Session, col, select

from crewship.clock import now
from crewship.errors import Unavailable
from crewship.models import Host


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """What a worker found of its host's network.

    Attributes:
        problem: Why nothing is started on it; None: nothing is wrong.
        hint: How to mend that.
        loosened: Settings that make it less strict, as they stand in the environment.
    """

    problem: str | None = None
    hint: str | None = None
    loosened: tuple[str, ...] = ()


def record_engine(session: Session, name: str, problem: str | None, network: HostNetwork | None = None) -> None:
    """Keep what the worker of host ``name`` found; None: its engine answers, its network was not looked at."""
    host = session.get(Host, name) or Host(name=name)
    host.engine_problem, host.checked_at = problem, now()
    host.network = None if network is None else asdict(network)
    session.add(host)


def require_engine(session: Session, name: str) -> None:
    """Raise ``Unavailable`` when the worker of host ``name`` could not reach its container engine lately, or starts nothing.

    A host that no worker has told of yet may come: its work waits.
    """
    host = session.get(Host, name)
    if host is not None and host.engine_problem is not None:
        raise _unavailable(host)
    if host is not None:
        _require_network(host)


def require_networks(session: Session) -> str | None:
    """Raise ``Unavailable`` when a host's network lets nothing start; else what was loosened there, or None."""
    loosened: list[str] = []
    for host in session.exec(select(Host).order_by(col(Host.name))):
        _require_network(host)
        loosened += [f"{setting} on {host.name}" for setting in (host.network or {}).get("loosened", ())]
    return f"loosened by {', '.join(loosened)}" if loosened else None


def require_any_engine(session: Session) -> None:
    """Raise ``Unavailable`` when a host's engine cannot be reached."""
    host = session.exec(select(Host).where(col(Host.engine_problem).is_not(None)).limit(1)).first()
    if host is not None:
        raise _unavailable(host)


def _require_network(host: Host) -> None:
    network: dict[str, Any] = host.network or {}
    if network.get("problem"):
        raise Unavailable(f"Host {host.name!r} starts nothing: {network['problem']}", hint=network.get("hint"))


def _unavailable(host: Host) -> Unavailable:
    return Unavailable(f"The container engine of host {host.name!r} cannot be reached", hint="crewship doctor")
