"""The crew's processes: how the main one ended, and the end of all the others.

As PID 1 it gets the children of whoever ends before them, and takes them, so that none stays a zombie.
"""

import os
import time

from .signals import SIGKILL
from .spawn import Child


class Reaper:
    """Of one crew.

    Attributes:
        exit: Exit code or signal of the crew's main process, the other of the two is None; None while it lives.
        exit_at: When it was seen to have ended (monotonic seconds).
    """

    def __init__(self, child: Child) -> None:
        self.exit: tuple[int | None, int | None] | None = None if child.pid else (127, None)
        self.exit_at = 0.0
        self._pid = child.pid

    def kill(self, number: int) -> None:
        """Signal the main process's group, while it lives."""
        if self.exit is None:
            try:
                os.killpg(self._pid, number)
            except OSError:
                pass

    def kill_all(self) -> None:
        """End everybody else, in whatever session they are."""
        try:
            if os.getpid() == 1:
                os.kill(-1, SIGKILL)
            elif self._pid:
                os.killpg(self._pid, SIGKILL)
        except OSError:
            pass

    def reap(self) -> bool:
        """Take the ended children; whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid and self.exit is None:
                code = os.waitstatus_to_exitcode(status)
                self.exit = (code, None) if code >= 0 else (None, -code)
                self.exit_at = time.monotonic()
