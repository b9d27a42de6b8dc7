"""SIGTERM in the crew's process: an exception on the main thread, so that ``finally`` and ``except SystemExit`` run.

Forks of it must die of SIGTERM as they would anywhere: a ``multiprocessing`` pool ends its workers that way. A signal
that arrives in a fork before the interpreter has found out that it is one would be lost to a Python handler, and the pool
would wait for ever; so it is held back over the fork, and let through when the child has the default action again.
"""

import os
from _thread import get_ident

from .signals import SIG_BLOCK, SIG_DFL, SIG_SETMASK, SIGTERM, getsignal, pthread_sigmask, signal

EXIT_CODE = 143
_masks: dict[int, set[int]] = {}  # thread that is forking → its mask before


class Terminated(SystemExit):
    """The run is canceled. The crew may catch it or finish in ``finally``; 143 is its exit code otherwise."""


def raise_on_sigterm() -> None:
    """From now on, unless the crew sets a handler of its own."""
    signal(SIGTERM, _terminate)
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated(EXIT_CODE)


def _hold() -> None:
    _masks[get_ident()] = {int(number) for number in pthread_sigmask(SIG_BLOCK, [SIGTERM])}


def _release() -> None:
    mask = _masks.pop(get_ident(), None)
    if mask is not None:
        pthread_sigmask(SIG_SETMASK, mask)


def _forget() -> None:
    if getsignal(SIGTERM) is _terminate:
        signal(SIGTERM, SIG_DFL)
    _release()
