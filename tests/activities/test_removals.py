"""Removals are beside the runs, bounded, and none is forgotten."""

import threading
import time
from collections.abc import Collection
from typing import cast

from activities.removals import Removals
from crewship.engine import Engine
from crewship.errors import Unavailable


class Slow:
    """An engine that removes what it is let."""

    def __init__(self) -> None:
        self.removed: list[tuple[str, str]] = []
        self.go = threading.Event()

    def remove(self, container: str) -> None:
        if container != "inline":
            assert self.go.wait(10)
        self.removed.append((container, threading.current_thread().name.partition("_")[0]))
        if container == "a":
            raise Unavailable("gone for a while")


def test_a_removal_holds_nobody_up_until_there_are_too_many() -> None:
    engine = Slow()
    removals = Removals(cast(Engine, engine), 2, set)
    removals.remove("a")
    removals.remove("b")
    assert engine.removed == []
    removals.remove("inline")
    assert engine.removed == [("inline", "MainThread")]
    engine.go.set()
    removals.close()
    assert sorted(engine.removed[1:]) == [("a", "remove"), ("b", "remove")]


def test_a_removal_after_the_end_is_done_at_once() -> None:
    engine = Slow()
    removals = Removals(cast(Engine, engine), 2, set)
    removals.close()
    removals.remove("inline")
    assert engine.removed == [("inline", "MainThread")]


def test_a_removal_may_wait_but_not_beyond_the_end() -> None:
    engine = Slow()
    engine.go.set()
    removals = Removals(cast(Engine, engine), 2, set)
    removals.remove("later", after_seconds=600)
    removals.remove("soon", after_seconds=0.01)
    give_up = time.monotonic() + 10
    while not engine.removed and time.monotonic() < give_up:
        time.sleep(0.005)
    assert [name for name, _ in engine.removed] == ["soon"]
    removals.close()
    assert [name for name, _ in engine.removed] == ["soon", "later"]
    removals.remove("inline", after_seconds=600)
    assert engine.removed[-1] == ("inline", "MainThread")


def test_a_place_is_free_again_after_each() -> None:
    engine = Slow()
    engine.go.set()
    removals = Removals(cast(Engine, engine), 1, set)
    for name in "abc":
        removals.remove(name)
    removals.close()
    assert sorted(name for name, _ in engine.removed) == ["a", "b", "c"]


class Runs:
    """Which of them are open; the records are away at first."""

    def __init__(self, *ids: str) -> None:
        self.open = set(ids)
        self.asked = 0

    def still_open(self, ids: Collection[str]) -> set[str]:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("gone for a while")
        return self.open & set(ids)


def test_what_is_durable_with_its_run_alone_stays_until_that_is_closed() -> None:
    engine, runs, order = Slow(), Runs("run_1", "run_2"), []
    engine.go.set()
    removals = Removals(cast(Engine, engine), 2, runs.still_open)
    removals.remove_closed("run_1", "one", lambda: order.append(list(engine.removed)))
    assert removals.has_room()
    removals.remove_closed("run_2", "two", lambda: None)
    assert not removals.has_room()
    while runs.asked < 3:
        threading.Event().wait(0.01)
    assert engine.removed == []
    runs.open = {"run_2"}
    while not removals.has_room():
        threading.Event().wait(0.01)
    removals.close()
    assert [name for name, _ in engine.removed] == ["one"]  # the other is the next worker's
    assert order == [[]]


def test_what_was_closed_when_the_worker_stops_goes() -> None:
    engine = Slow()
    engine.go.set()
    removals = Removals(cast(Engine, engine), 2, lambda ids: set())
    removals.remove_closed("run_1", "one", lambda: None)
    removals.close()
    assert [name for name, _ in engine.removed] == ["one"]
