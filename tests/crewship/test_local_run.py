"""Following a local run without an engine: what an engine may do, and has done."""

import threading
from typing import Literal, cast

import pytest

from crewship import attached
from crewship.contracts import Limit, RunLimits
from crewship.engine import Attachment, ContainerState, Engine
from crewship.local_run import Stop, _Followed
from crewship.redaction import Redactor

ONE = Limit(value=1, most=1)
LIMITS = RunLimits(memory=ONE, cpus=1, pids=ONE, disk=ONE, log=ONE, artifacts=ONE, timeout=ONE)


class Hanging:
    """An engine whose container ends when it is told to, and whose attachment does not."""

    def __init__(self) -> None:
        self.ended, self.closed = threading.Event(), threading.Event()

    def attach(self, container: str) -> Attachment:
        return self

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        assert self.closed.wait(30), "nobody hung up"
        return None

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.closed.set()

    def start(self, container: str) -> None: ...

    def kill(self, container: str, signal: str) -> bool:
        self.ended.set()
        return True

    def wait(self, container: str, timeout_seconds: float) -> bool:
        return self.ended.is_set()

    def inspect(self, container: str) -> ContainerState:
        status: Literal["exited", "running"] = "exited" if self.ended.is_set() else "running"
        return ContainerState("c", "c", status, 143 if self.ended.is_set() else None, False, {}, "")


def test_an_attachment_that_outlasts_its_container_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "QUIET_SECONDS", 0.0)
    engine = Hanging()
    followed = _Followed(cast(Engine, engine), "c", "dep_1", LIMITS, Redactor({}), lambda lines: None)
    facts = followed.to_end(b"", Stop(), timeout_seconds=0.1, grace_seconds=10)
    assert facts.timed_out
    assert facts.exit_code == 143
