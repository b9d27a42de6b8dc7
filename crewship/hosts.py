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
        closed_problem: Why no run with ``[network] allow`` is started; None: nothing is wrong.
        closed_hint: How to mend that.
    """

    problem: str | None = None
    hint: str | None = None
    loosened: tuple[str, ...] = ()
    closed_problem: str | None = None
    closed_hint: str | None = None


def record_engine(session: Session, name: str, problem: str | None, network: HostNetwork | None = None) -> None:
    """Keep what the worker of host ``name`` found; None: its engine answers, its network was not looked at."""
    host = session.get(Host, name) or Host(name=name)
    host.engine_problem, host.checked_at = problem, now()
    host.network = None if network is None else asdict(network)
    session.add(host)


def require_engine(session: Session, name: str, *, restricted: bool = False) -> None:
    """Raise ``Unavailable`` when the worker of host ``name`` could not reach its container engine lately, or starts nothing.

    A host that no worker has told of yet may come: its work waits.

    Args:
        restricted: It is about runs with ``[network] allow``, which need the proxy.
    """
    host = session.get(Host, name)
    if host is not None and host.engine_problem is not None:
        raise _unavailable(host)
    if host is not None:
        _require_network(host)
    network: dict[str, Any] = (host.network if host is not None else None) or {}
    if restricted and network.get("closed_problem"):
        raise Unavailable(
            f"Host {name!r} starts no run with [network] allow: {network['closed_problem']}",
            hint=network.get("closed_hint"),
        )


def require_networks(session: Session) -> str | None:
    """Raise ``Unavailable`` when a host's network lets nothing start; else what is less there than could be, or None."""
    loosened: list[str] = []
    without_proxy: list[str] = []
    for host in session.exec(select(Host).order_by(col(Host.name))):
        _require_network(host)
        network: dict[str, Any] = host.network or {}
        loosened += [f"{setting} on {host.name}" for setting in network.get("loosened", ())]
        if network.get("closed_problem"):
            mend = f" ({network['closed_hint']})" if network.get("closed_hint") else ""
            without_proxy.append(
                f"no run with [network] allow starts on {host.name}: {network['closed_problem']}{mend}"
            )
    told = [f"loosened by {', '.join(loosened)}"] if loosened else []
    return "; ".join(told + without_proxy) or None


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
