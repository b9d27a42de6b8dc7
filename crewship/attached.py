"""An attachment that does not outlast its container.

The engine may leave one to a container that is just ending open and silent for ever. Whoever reads it waits, so somebody else has
to look whether there is still anything to wait for.
"""

import time
from typing import Literal

from crewship.engine import Attachment, ContainerMissing, Engine
from crewship.errors import Unavailable

QUIET_SECONDS = 5.0
"""How long nothing has come when the engine is asked."""


class Attached:
    """An ``engine.Attachment`` to ``container``, and ``look``."""

    def __init__(self, engine: Engine, container: str) -> None:
        """Attach. Raises what the engine's ``attach`` raises."""
        self._engine, self._container = engine, container
        self._attachment: Attachment = engine.attach(container)
        self._heard_at = time.monotonic()

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        piece = self._attachment.read()
        self._heard_at = time.monotonic()
        return piece

    def write(self, data: bytes) -> None:
        self._attachment.write(data)

    def close(self) -> None:
        self._attachment.close()

    def look(self) -> None:
        """Hang up when nothing has come for a while and the container has ended, or cannot be asked about: the reader finds out.

        Called by another thread, every second or so.
        """
        if time.monotonic() - self._heard_at < QUIET_SECONDS:
            return
        self._heard_at = time.monotonic()
        try:
            if self._engine.inspect(self._container).status != "exited":
                return
        except (ContainerMissing, Unavailable):
            pass
        self.close()
