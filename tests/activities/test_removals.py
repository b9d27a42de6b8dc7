"""Removals are beside the runs, bounded, and none is forgotten."""

import threading
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
    removals = Removals(cast(Engine, engine), 2)
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
    removals = Removals(cast(Engine, engine), 2)
    removals.close()
    removals.remove("inline")
    assert engine.removed == [("inline", "MainThread")]


def test_a_place_is_free_again_after_each() -> None:
    engine = Slow()
    engine.go.set()
    removals = Removals(cast(Engine, engine), 1)
    for name in "abc":
        removals.remove(name)
    removals.close()
    assert sorted(name for name, _ in engine.removed) == ["a", "b", "c"]
