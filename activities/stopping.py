"""Ends one container: SIGTERM, grace, SIGKILL, until the engine says that it ended.

What was sent is told with the heartbeats, for an attempt after one whose worker was killed. SIGTERM is told when it is sent: a
result that came before it wins over a cancel, and where the word is lost the supervisor has heard it. SIGKILL is told before
it is, for nobody else can tell of that.
"""

from collections.abc import Callable

from temporalio import activity

from activities.pulse import Pulse
from crewship.clock import now_ms
from crewship.contracts import StopResult
from crewship.engine import ContainerMissing, Engine

KILL_SECONDS = 10.0
"""How long the engine may take to end a killed container; 0.1 s is usual."""
ADOPTION_SECONDS = 15.0
"""In which a container whose worker was killed has a follower again: five missed beats, and the retry."""


class Stopping:
    """The stop of ``container``, within its activity.

    Args:
        is_followed: Whether this worker follows it. One that has just begun may not yet. Then the crew can be gone and the
            supervisor still there: it waits for somebody to take what the crew said last.
    """

    def __init__(self, engine: Engine, container: str, is_followed: Callable[[], bool]) -> None:
        self._engine, self._container, self._is_followed = engine, container, is_followed
        told = activity.info().heartbeat_details
        self._sent = StopResult.model_validate(told[0]) if told else StopResult(found=False)

    def stop(self, grace_seconds: float, *, force: bool) -> StopResult:
        """End it; what was sent, by this attempt or the ones before. Nothing when it was not there or had ended.

        Raises:
            Unavailable: the engine cannot be reached.
        """
        with Pulse(details=lambda: (self._sent,)):
            try:
                if force or (self._term() and not self._ended_in_time(grace_seconds)):
                    self._kill()
            except ContainerMissing:
                pass
        return self._sent

    def _term(self) -> bool:
        """Whether there was somebody to ask."""
        at_ms = now_ms()
        if not self._engine.kill(self._container, "SIGTERM"):
            return False
        self._tell(self._sent.model_copy(update={"found": True, "sigterm_at_ms": self._sent.sigterm_at_ms or at_ms}))
        return True

    def _ended_in_time(self, grace_seconds: float) -> bool:
        if self._engine.wait(self._container, grace_seconds):
            return True
        return not self._is_followed() and self._engine.wait(self._container, ADOPTION_SECONDS)

    def _kill(self) -> None:
        before = self._sent
        self._tell(before.model_copy(update={"found": True, "sigkill_at_ms": before.sigkill_at_ms or now_ms()}))
        if self._engine.kill(self._container, "SIGKILL"):
            self._engine.wait(self._container, KILL_SECONDS)
        else:
            self._tell(before)

    def _tell(self, sent: StopResult) -> None:
        self._sent = sent
        activity.heartbeat(sent)
