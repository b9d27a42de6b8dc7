"""When containers are made ahead."""

import threading
from dataclasses import replace
from typing import cast

import pytest

from activities import spares as subject
from activities.spares import Spares, Warmth
from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec, Engine, Limits

SPEC = ContainerSpec("", "image", Limits(1, 1.0, 1), "run", None, {LABEL_DEPLOYMENT: "dep_1"})
COLD = Warmth(0, 1, lambda nonce: b"", 1.0)


class Containers:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.one_started = threading.Event()

    def create(self, spec: ContainerSpec) -> str:
        return spec.name

    def start(self, container: str) -> None:
        self.started.append(container)
        self.one_started.set()

    def remove(self, container: str) -> None: ...


def test_a_busy_host_makes_none_until_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_BUSY_SECONDS", 0.01)
    engine, asked, slot_is_free = Containers(), threading.Event(), threading.Event()

    def is_busy() -> bool:
        asked.set()
        return not slot_is_free.is_set()

    spares = Spares(cast(Engine, engine), 1, 600, str, is_busy=is_busy)
    for _ in range(3):
        spares.replenish(SPEC, COLD)
    for _ in range(3):
        asked.clear()
        assert asked.wait(10)
    assert engine.started == []
    slot_is_free.set()
    assert engine.one_started.wait(10)
    spares.close()
    assert len(engine.started) == 1


def test_what_was_put_off_is_made_as_it_was_asked_for_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The env vars may have changed meanwhile."""
    monkeypatch.setattr(subject, "_BUSY_SECONDS", 0.01)
    engine, is_free = Containers(), threading.Event()
    asked = threading.Semaphore(0)

    def is_busy() -> bool:
        asked.release()
        return not is_free.is_set()

    made: list[ContainerSpec] = []
    monkeypatch.setattr(engine, "create", lambda spec: made.append(spec) or spec.name)
    spares = Spares(cast(Engine, engine), 1, 600, str, is_busy=is_busy)
    for memory in (1, 2):
        spares.replenish(replace(SPEC, limits=Limits(memory, 1.0, 1)), COLD)
        asked.acquire(timeout=10)
    spares.later(is_free.set)  # behind both in the queue
    assert engine.one_started.wait(10)
    spares.close()
    assert [spec.limits.memory_bytes for spec in made] == [2]
