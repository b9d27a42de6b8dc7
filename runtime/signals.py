"""The ``signal`` module's C half: importing ``signal`` itself brings ``enum``, 4 ms of each start."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import SIG_IGN, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGTERM, set_wakeup_fd, signal
else:
    from _signal import SIG_IGN, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGTERM, set_wakeup_fd, signal

__all__ = ["SIGCHLD", "SIGHUP", "SIGINT", "SIGIO", "SIGKILL", "SIGTERM", "SIG_IGN", "set_wakeup_fd", "signal"]
