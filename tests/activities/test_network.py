"""When containers may be started: what the guard says, and what a probe found."""

import threading
from typing import Any, ClassVar

import pytest

from activities import network as subject
from activities.network import Network
from crewship.engine import ImageMissing
from crewship.errors import Unavailable
from crewship.netguard.messages import GuardState
from crewship.network_probe import ProbeFailed
from crewship.settings import Settings

GOOD = GuardState("crewship0", blocked=("10.0.0.0/8",))


class Guard:
    def __init__(self) -> None:
        self.state = GOOD


class Probe:
    """Stands in for the container; says what it is told to."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self, api: object, **arguments: Any) -> float:
        self.calls.append(arguments)
        if self.error is not None:
            raise self.error
        return 0.5


class Api:
    """A bridge as we make it."""

    options: ClassVar[dict[str, str]] = {
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.name": "crewship0",
    }
    runtimes: ClassVar[dict[str, Any]] = {"runc": {}, "runsc": {}}

    def inspect_network(self, name: str) -> dict[str, Any]:
        return {"Options": self.options, "EnableIPv6": False}

    def info(self) -> dict[str, Any]:
        return {"Runtimes": self.runtimes}


class Engine:
    class connection:
        api = Api()


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    probe = Probe()
    monkeypatch.setattr(subject, "probe", probe)
    return probe


def make(guard: Guard | None, **settings: Any) -> Network:
    return Network(Engine(), Settings(**settings), guard)  # type: ignore[arg-type]


def test_nothing_is_started_before_the_probe_and_all_after_it(probe: Probe) -> None:
    network = make(Guard())
    assert not network.admits()
    assert network.trouble() is None, "not known yet is not wrong"
    network.look("image")
    assert network.admits()
    network.look("image")
    assert len(probe.calls) == 1, "its answer holds for a while"


def test_a_probe_that_gets_through_stops_everything_until_one_does_not(probe: Probe) -> None:
    network = make(Guard())
    probe.error = ProbeFailed("From a container on crewship0 the host can be reached")
    with pytest.raises(Unavailable, match="the host can be reached"):
        network.require("image")
    assert network.trouble() is not None
    probe.error = None
    network.require("image")
    assert network.trouble() is None


def test_what_the_guard_says_counts_at_once(probe: Probe) -> None:
    guard = Guard()
    network = make(guard)
    network.look("image")
    guard.state = GuardState("crewship0", problem="no iptables", hint="install it")
    problem = network.problem()
    assert problem is not None
    assert (problem.detail, problem.hint) == ("no iptables", "install it")
    guard.state = GuardState("crewship0", blocked=GOOD.blocked, repairs=1)
    network.changed()
    assert not network.admits(), "it has to be tried again first"
    network.look("image")
    assert network.admits()


def test_an_old_answer_is_none(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make(Guard())
    network.look("image")
    monkeypatch.setattr(subject, "STALE_SECONDS", 0.0)
    assert not network.admits()


def test_without_an_image_there_is_nothing_to_say(probe: Probe) -> None:
    network = make(Guard())
    probe.error = ImageMissing("none")
    network.look("image")
    assert (network.admits(), network.trouble()) == (False, None)


def test_a_bridge_of_somebody_else_is_refused(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "options", {})
    network = make(Guard())
    with pytest.raises(Unavailable, match="lets containers reach each other") as caught:
        network.require("image")
    assert "docker network rm crewship0" in str(caught.value.hint)
    assert probe.calls == []


def test_without_a_guard_it_is_said_and_nothing_is_probed(probe: Probe) -> None:
    network = make(None, network_guard="off", network_reach="10.0.0.5:80")
    network.look("image")
    assert network.admits()
    assert probe.calls == []
    assert network.loosened() == ["CREWSHIP_NETWORK_GUARD=off", "CREWSHIP_NETWORK_REACH=10.0.0.5:80"]
    assert network.facts("crewship0") == {"mode": "open", "guard": "off"}


def test_what_is_known_of_a_runs_network(probe: Probe) -> None:
    guard = Guard()
    network = make(guard)
    assert network.facts(None) == {"mode": "none"}
    assert network.facts("crewship0") == {"mode": "open", "guard": "on", "blocked": ["10.0.0.0/8"], "reach": []}
    guard.state = GuardState("crewship0", problem="gone")
    assert network.facts("crewship0")["guard"] == "lost"


def test_an_address_that_may_be_reached_is_not_knocked_at(probe: Probe) -> None:
    network = make(Guard(), network_reach="10.0.0.0/8")
    network.look("image")
    assert probe.calls[0]["targets"] == ["169.254.169.254", "172.31.254.254", "192.168.254.254"]


def test_a_runtime_is_tried_first_and_one_that_is_not_there_is_named(probe: Probe) -> None:
    network = make(None, network_guard="off", runtime="runsc")
    assert not network.admits()
    network.look("image")
    assert network.admits()
    assert probe.calls[0]["runtime"] == "runsc"
    with pytest.raises(Unavailable, match="no runtime 'kata'") as caught:
        make(Guard(), runtime="kata").require("image")
    assert "runc, runsc" in str(caught.value.hint)


def test_a_stop_waits_for_the_probe_that_is_under_way(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(api: object, **arguments: Any) -> float:
        begun.set()
        assert go_on.wait(10)
        return probe(api, **arguments)

    monkeypatch.setattr(subject, "probe", slow)
    network = make(Guard())
    looking = threading.Thread(target=network.look, args=("image",))
    closing = threading.Thread(target=network.close)
    looking.start()
    assert begun.wait(10)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    go_on.set()
    closing.join(10)
    looking.join(10)
    assert len(probe.calls) == 1
    network.changed()
    network.look("image")
    assert len(probe.calls) == 1
