"""How far a build is: its steps, told as they begin and end."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from crewship.build_secrets import NONE, BuildSecrets
from crewship.builds import BuildBase, BuildLog, BuildStep, canceled
from crewship.config import DeploymentConfig


class Step:
    """One under way; whoever does it says whether there was nothing to do."""

    cached = False


class Work:
    """One build: what for, and how far it is."""

    def __init__(
        self,
        deployment_id: str,
        project: str,
        config: DeploymentConfig,
        log: BuildLog,
        cancel: threading.Event,
        secrets: BuildSecrets = NONE,
    ) -> None:
        self.deployment_id = deployment_id
        self.project = project
        self.config = config
        self.log = log
        self.cancel = cancel
        self.secrets = secrets
        self.steps: list[BuildStep] = []
        self.base: BuildBase | None = None
        self.dependency_key = ""

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        if self.cancel.is_set():
            raise canceled()
        self.log.step(name, "started", None, False)
        started = time.monotonic()
        step = Step()
        try:
            yield step
        except BaseException:
            self.log.step(name, "failed", _ms_since(started), False)
            raise
        self.steps.append(BuildStep(name, _ms_since(started), step.cached))
        self.log.step(name, "completed", _ms_since(started), step.cached)


class LoggedProgress:
    """Provisioning's steps as lines of the build's log."""

    def __init__(self, log: BuildLog) -> None:
        self._log = log

    @contextmanager
    def step(self, name: str) -> Iterator["LoggedProgress"]:
        self._log.line(name, "info", "stdout")
        yield self

    def detail(self, text: str) -> None:
        """Too fine for a log."""


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
