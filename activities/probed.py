"""The last answer of a bridge's probe: what is wrong, or what it was right for and since when."""

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from crewship.engine import ContainerMissing, ImageMissing
from crewship.errors import CrewshipError, Unavailable
from crewship.network_probe import ProbeFailed

logger = logging.getLogger(__name__)

PROBE_SECONDS = 60.0
"""How often a good bridge is probed."""
STALE_SECONDS = 3 * PROBE_SECONDS
"""Nobody has probed for so long: the last answer is none any more."""

K = TypeVar("K")


class Probed(Generic[K]):
    """Of one bridge.

    Args:
        bridge: Its name.
        hint: Where to look when a probe fails and says nothing better.

    Attributes:
        problem: Why the last probe failed; None: it did not, or there was none.
        place: What the last good one was for; None: there is none that counts.
    """

    def __init__(self, bridge: str, hint: str) -> None:
        self._bridge, self._hint = bridge, hint
        self.problem: Unavailable | None = None
        self.place: K | None = None
        self._at = 0.0

    def is_young(self, seconds: float) -> bool:
        """Whether the last good one is no older."""
        return time.monotonic() - self._at < seconds

    def is_due(self, place: K) -> bool:
        """Whether it is time to ask again."""
        return self.problem is not None or self.place != place or not self.is_young(PROBE_SECONDS)

    def ask(self, probe: Callable[[], tuple[K, float] | None]) -> None:
        """Probe, and remember the answer.

        Args:
            probe: What it was for and the seconds that it took; None when there is nothing to probe yet.
        """
        try:
            told = probe()
        except ImageMissing:
            return  # nothing was built here yet, so there is nothing to admit
        except (ProbeFailed, CrewshipError, ContainerMissing) as error:
            detail = error.detail if isinstance(error, CrewshipError) else str(error)
            hint = error.hint if isinstance(error, CrewshipError) else None
            if self.problem is None or self.problem.detail != detail:
                logger.error("nothing is started on %s: %s", self._bridge, detail)
            self.problem = Unavailable(detail, hint=hint or self._hint)
            return
        if told is None:
            return
        if self.problem is not None or self.place is None:
            logger.info("%s was probed in %.0f ms and is as it should be", self._bridge, told[1] * 1000)
        self.problem, self.place, self._at = None, told[0], time.monotonic()
