"""When containers are made ahead."""

import threading
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
