"""When containers may be started on the closed bridge, and what the proxy is told of them."""

from typing import Any

import pytest

from activities import closed_network as subject
from activities.closed_network import ClosedNetwork
from crewship.egress.messages import EgressState
from crewship.engine import ContainerMissing, ContainerSpec, ContainerState, Limits
from crewship.errors import Unavailable
from crewship.netguard.messages import GuardState
from crewship.network_probe import ProbeFailed
from crewship.settings import Settings

URL = "http://172.30.0.1:3128"
SPEC = ContainerSpec("n", "i", Limits(1, 1, 1), "run", "crewship0x", allow=("a.example",))


class Guard:
    state = GuardState("crewship0", gateway="172.30.0.1")


class Egress:
    def __init__(self) -> None:
        self.state = EgressState(url=URL)
        self.told: list[tuple[Any, ...]] = []

    def permit(self, container: str, address: str, hosts: tuple[str, ...], *, wait: bool) -> None:
        self.told.append(("permit", container, address, hosts, wait))

    def forget(self, container: str) -> None:
        self.told.append(("forget", container))

    def known(self) -> set[str]:
        return {"runs", "ended", "gone"}


class Network:
    """The open one."""

    admitted = True

    def admits(self) -> bool:
        return self.admitted

    def facts(self, network: str) -> dict[str, Any]:
        return {"mode": "open", "guard": "on", "blocked": ["10.0.0.0/8"]}


class Engine:
    class connection:
        api = None

    def inspect(self, container: str) -> ContainerState:
        if container == "gone":
            raise ContainerMissing(container)
        status: Any = "exited" if container == "ended" else "running"
        address = "" if container == "ended" else "172.30.0.5"
        return ContainerState(f"id of {container}", container, status, None, False, {}, "", address=address)


class Place:
    """Stands in for the bridge and the probe's container."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gateway, self.error = "172.30.0.1", None
        self.probes = 0
        monkeypatch.setattr(subject, "ensure_closed_bridge", lambda api, name, instance: self.gateway)
        monkeypatch.setattr(subject, "probe_of", self._probe)

    error: Exception | None

    def _probe(self, engine: object, settings: Settings, *, closed: str) -> float:
        assert closed == URL
        self.probes += 1
        if self.error is not None:
            raise self.error
        return 0.5


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def make(egress: Egress | None, guard: Guard | None = None, **more: Any) -> ClosedNetwork:
    return ClosedNetwork(
        Engine(), Settings(), more.get("network", Network()), guard or Guard() if egress else None, egress,  # type: ignore[arg-type]
        more.get("wake", lambda: None),
    )  # fmt: skip


def test_it_is_made_when_it_is_wanted_and_not_before(place: Place) -> None:
    woken: list[bool] = []
    closed = make(Egress(), wake=lambda: woken.append(True))
    closed.look()
    assert place.probes == 0, "nobody wants it"
    assert closed.trouble() is None
    assert not closed.admits()
    assert not closed.admits_now()
    assert woken == [True]
    closed.look()
    closed.look()
    assert place.probes == 1, "its answer holds for a while"
    assert closed.admits_now()
    assert woken == [True]


def test_nothing_is_started_until_guard_and_proxy_have_seen_it(place: Place) -> None:
    egress, guard = Egress(), Guard()
    closed = make(egress, guard)
    closed.admits_now()
    for egress.state, guard.state in (
        (EgressState(url=""), Guard.state),
        (EgressState(url=URL), GuardState("crewship0", gateway=None)),
        (EgressState(url=URL), GuardState("crewship0", gateway="172.31.0.1")),
    ):
        closed.look()
        assert not closed.admits()
        assert closed.trouble() is None
    assert place.probes == 0
    egress.state, guard.state = EgressState(url=URL), Guard.state
    closed.look()
    assert closed.admits()
    # A proxy at another place is another one.
    egress.state = EgressState(url="http://172.30.0.1:3129")
    assert not closed.admits()


@pytest.mark.parametrize(
    ("guard", "egress", "why"),
    [
        (GuardState("crewship0", "no iptables", "install it"), EgressState(url=URL), "no iptables"),
        (GuardState("crewship0", closed_problem="no xt_bpf"), EgressState(url=URL), "no xt_bpf"),
        (Guard.state, EgressState("There is no squid", "install it"), "There is no squid"),
    ],
)
def test_what_is_wrong_is_said(place: Place, guard: GuardState, egress: EgressState, why: str) -> None:
    ours, theirs = Egress(), Guard()
    closed = make(ours, theirs)
    closed.admits_now()
    closed.look()
    assert closed.admits()
    ours.state, theirs.state = egress, guard
    assert not closed.admits()
    trouble = closed.trouble()
    assert trouble is not None
    assert trouble.detail == why


def test_a_probe_that_gets_out_stops_it_until_one_does_not(place: Place) -> None:
    closed = make(Egress())
    closed.admits_now()
    place.error = ProbeFailed("From a container on crewship0x the host can be reached")
    closed.look()
    assert not closed.admits()
    assert "the host can be reached" in str(closed.trouble())
    place.error = None
    closed.look()
    assert closed.admits()


def test_without_a_guard_a_list_is_not_kept_to_and_nothing_is_started(place: Place) -> None:
    closed = make(None)
    assert not closed.admits_now()
    assert "without the network guard" in str(closed.trouble())
    with pytest.raises(Unavailable, match="without the network guard"):
        closed.permit("runs", SPEC)
    assert closed.environment()["HTTPS_PROXY"] == ""


def test_the_proxy_is_told_of_a_container_by_its_address(place: Place) -> None:
    egress = Egress()
    closed = make(egress)
    closed.permit("runs", SPEC)
    closed.permit("runs", ContainerSpec("n", "i", Limits(1, 1, 1), "run", "crewship0"))
    assert egress.told == [("permit", "id of runs", "172.30.0.5", ("a.example",), True)]
    with pytest.raises(Unavailable, match="no address"):
        closed.permit("ended", SPEC)
    egress.told.clear()
    # One whose crew runs is followed whether there is a proxy or not; another one is not begun.
    egress.state = EgressState()
    closed.permit("runs", SPEC, is_adopted=True)
    assert egress.told == [("permit", "id of runs", "172.30.0.5", ("a.example",), False)]
    with pytest.raises(Unavailable, match="serves nobody yet"):
        closed.permit("runs", SPEC)
    egress.state = EgressState(url=URL)
    egress.told.clear()
    closed.sweep()
    assert sorted(egress.told) == [("forget", "ended"), ("forget", "gone")]
    facts = closed.facts(SPEC.allow)
    assert (facts["mode"], facts["allow"], facts["guard"], facts["proxy"]) == ("allow", ["a.example"], "on", "on")
    names = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    assert set(closed.environment()) == names | {name.lower() for name in names}
    assert closed.environment()["https_proxy"] == URL
