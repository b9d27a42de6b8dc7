"""How many containers a host runs at once, over the death of its worker."""

import threading
from typing import Any

import pytest

from activities import slots
from activities.slots import Slots
from crewship.contracts import container_name
from crewship.engine import ContainerMissing, ContainerState

A, B = container_name("run_a"), container_name("run_b")


class Engine:
    """Containers that a worker before this one has started."""

    def __init__(self, *running: str) -> None:
        self.running = set(running)

    def list(self, kind: str | None = None) -> list[ContainerState]:
        assert kind is None
        return [self.inspect(name) for name in [*self.running, "crewship-spare-dep-1-a"]]

    def inspect(self, name: str) -> ContainerState:
        if name not in self.running and "spare" not in name:
            raise ContainerMissing(name)
        return ContainerState(
            id=name, name=name, status="running", exit_code=None, oom_killed=False, labels={}, started_at=""
        )


class Holder:
    """A thread that wants a slot and keeps it until it is told."""

    def __init__(self, found: Slots, name: str, *, adopted: bool = False) -> None:
        self.has_it, self.asked, self.leave, self.stop = (threading.Event() for _ in range(4))
        self.thread = threading.Thread(target=self._hold, args=(found, name, adopted))
        self.thread.start()

    def _hold(self, found: Slots, name: str, adopted: bool) -> None:
        with found.hold(name, adopted=adopted, give_up=self._give_up):
            self.has_it.set()
            self.leave.wait()

    def _give_up(self) -> bool:
        self.asked.set()
        return self.stop.is_set()

    def end(self) -> None:
        self.leave.set()
        self.thread.join()


def make(engine: Engine, capacity: int) -> Slots:
    found = Slots(engine, capacity)  # type: ignore[arg-type]
    found.find_orphans()
    return found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_LOOK_SECONDS", 0.01)


def waits(holder: Holder) -> bool:
    assert holder.asked.wait(30)
    return not holder.has_it.is_set()


def test_one_that_ends_makes_room() -> None:
    found = make(Engine(), 1)
    first = Holder(found, "a")
    assert first.has_it.wait(30)
    second = Holder(found, "b")
    assert waits(second)
    first.end()
    assert second.has_it.wait(30)
    second.end()


def test_what_ran_before_has_its_slot_before_and_after_it_is_adopted() -> None:
    engine = Engine(A, B)
    found = make(engine, 2)
    new = Holder(found, "new")
    assert waits(new)
    adopted = [Holder(found, name, adopted=True) for name in (A, B)]
    assert all(holder.has_it.wait(30) for holder in adopted)
    assert waits(new)
    engine.running.clear()
    assert waits(new)  # followed to their end: they leave when they are done
    adopted[0].end()
    assert new.has_it.wait(30)
    for holder in (adopted[1], new):
        holder.end()


def test_what_nobody_adopts_counts_until_it_is_gone() -> None:
    engine = Engine(A)
    new = Holder(make(engine, 1), "new")
    assert waits(new)
    engine.running.clear()
    assert new.has_it.wait(30)
    new.end()


def test_whoever_is_stopped_does_not_wait() -> None:
    new = Holder(make(Engine(A), 1), "new")
    assert waits(new)
    new.stop.set()
    assert new.has_it.wait(30)
    new.end()


def test_more_may_be_adopted_than_there_are_slots() -> None:
    found: Any = make(Engine(), 1)
    holders = [Holder(found, name, adopted=True) for name in "abc"]
    assert all(holder.has_it.wait(30) for holder in holders)
    for holder in holders:
        holder.end()
