"""A stop whose worker may be killed between any two of its steps, and the attempt after it."""

from dataclasses import replace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.stopping import Stopping
from crewship.contracts import StopResult
from crewship.engine import ContainerMissing, Engine


class Killed(BaseException):
    """The worker is gone."""


class Container:
    """An engine with one container, which SIGTERM ends unless it is ``stubborn``; the worker is killed after ``dies_after``."""

    def __init__(self, *, stubborn: bool = False, dies_after: str = "", dies_before: str = "") -> None:
        self.is_there, self.stubborn = True, stubborn
        self.dies_after, self.dies_before = dies_after, dies_before
        self.sent: list[str] = []

    def kill(self, name: str, signal: str) -> bool:
        if self.dies_before == signal:
            raise Killed
        if not self.is_there:
            return False
        self.sent.append(signal)
        self.is_there = signal == "SIGTERM" and self.stubborn
        if self.dies_after == signal:
            raise Killed
        return True

    def wait(self, name: str, seconds: float) -> bool:
        if self.dies_after == "the grace":
            raise Killed
        if not self.is_there and self.dies_before == "removal":
            raise ContainerMissing(name)
        return not self.is_there


class Attempts:
    """The attempts of one activity: each knows what the one before it told with its last heartbeat."""

    def __init__(self, container: Container) -> None:
        self.container, self.told = container, cast(tuple[Any, ...], ())

    def __call__(self, *, force: bool = False) -> StopResult:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, heartbeat_details=[each.model_dump() for each in self.told])
        environment.on_heartbeat = self._hear

        def stop() -> StopResult:
            return Stopping(cast(Engine, self.container), "crewship-run-1-1", lambda: True).stop(1, force=force)

        return environment.run(stop)

    def _hear(self, *details: Any) -> None:
        self.told = details


def test_one_that_is_not_there() -> None:
    container = Container()
    container.is_there = False
    for force in (False, True):
        assert Attempts(container)(force=force) == StopResult(found=False)


def test_the_whole_way() -> None:
    container = Container(stubborn=True)
    result = Attempts(container)()
    assert container.sent == ["SIGTERM", "SIGKILL"]
    assert result.found
    assert result.sigterm_at_ms
    assert result.sigkill_at_ms
    assert result.sigterm_at_ms <= result.sigkill_at_ms


@pytest.mark.parametrize("force", [False, True])
def test_what_was_sent_is_known_to_the_next_attempt(force: bool) -> None:
    """The worker is killed when its last signal is out; there is nobody left then."""
    container = Container(stubborn=True, dies_after="SIGKILL")
    attempt = Attempts(container)
    with pytest.raises(Killed):
        attempt(force=force)
    (told,) = attempt.told
    result = attempt(force=force)
    assert result == told
    assert (result.sigterm_at_ms is None) == force
    assert result.sigkill_at_ms


def test_the_grace_begins_anew_and_the_time_is_the_first() -> None:
    container = Container(stubborn=True, dies_after="the grace")
    attempt = Attempts(container)
    with pytest.raises(Killed):
        attempt()
    (told,) = attempt.told
    container.dies_after = ""
    result = attempt()
    assert container.sent == ["SIGTERM", "SIGTERM", "SIGKILL"]
    assert result.sigterm_at_ms == told.sigterm_at_ms


def test_what_was_not_sent_is_not_told() -> None:
    """A result that comes before any SIGTERM wins over the cancel."""
    container = Container(dies_before="SIGTERM")
    attempt = Attempts(container)
    with pytest.raises(Killed):
        attempt()
    container.is_there, container.dies_before = False, ""
    assert attempt() == StopResult(found=False)


def test_one_that_is_removed_meanwhile() -> None:
    result = Attempts(Container(dies_before="removal"))()
    assert result.found
    assert result.sigterm_at_ms
