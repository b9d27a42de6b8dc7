"""Starts the crew's process. Only extension modules are imported: each one here takes under a millisecond."""

import _ctypes
import _socket
import posix
import sys

DEFAULT_PYTHON = b"/opt/venv/bin/python"
CHANNEL_FD = 3
"""The crew's end of the socket on which it sends claims and gets its commands."""
TAKEN_FD = 4
"""On this pipe the supervisor says which claim it has taken."""

_PR_SET_DUMPABLE = 4
_SIGPIPE, _SIGXFSZ = 13, 25


class Child:
    """The crew's process and our ends of what it talks over; ``pid`` is 0 when it could not be started."""

    __slots__ = ("channel", "failure", "pid", "stderr", "stdout", "taken")

    def __init__(self, pid: int, stdout: int, stderr: int, channel: int, taken: int, failure: str = "") -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.channel = channel
        self.taken = taken
        self.failure = failure


def call(name: str, *arguments: int | bytes) -> int:
    """Call a function of the C library that takes and returns ints.

    Importing ``ctypes`` would cost 6 ms of every start; the extension module under it is 1 ms.
    """
    return int(_ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), name), arguments))  # type: ignore[arg-type]


def make_undumpable() -> None:
    """Refuse ptrace and /proc/PID/{mem,environ,fd} to other processes of our uid."""
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def spawn_crew() -> Child:
    """Start ``crew.py`` under the venv's interpreter; it waits for its boot message on fd 3."""
    # The first pipe takes fds 3 and 4 or higher ones, so no later end can lie where the crew's fds 3 and 4 are to be.
    stdout, crew_stdout = posix.pipe()
    stderr, crew_stderr = posix.pipe()
    crew_taken, taken = posix.pipe()
    ours, theirs = _socket.socketpair()
    channel, crew_channel = ours.detach(), theirs.detach()
    python = posix.environ.get(b"CREWSHIP_VENV_PYTHON", DEFAULT_PYTHON)
    script = (__file__.rpartition("/")[0] or ".") + "/crew.py"
    pid, failure = 0, ""
    try:
        pid = posix.posix_spawn(
            python,
            [python, script.encode(sys.getfilesystemencoding(), "surrogateescape")],
            posix.environ,
            file_actions=[
                (posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDONLY, 0),
                (posix.POSIX_SPAWN_DUP2, crew_stdout, 1),
                (posix.POSIX_SPAWN_DUP2, crew_stderr, 2),
                (posix.POSIX_SPAWN_DUP2, crew_channel, CHANNEL_FD),
                (posix.POSIX_SPAWN_DUP2, crew_taken, TAKEN_FD),
            ],
            setpgroup=0,
            setsigdef=[_SIGPIPE, _SIGXFSZ],
        )
    except OSError as error:
        failure = f"{python.decode(errors='replace')}: {error.strerror}"
    for fd in (crew_stdout, crew_stderr, crew_channel, crew_taken):
        posix.close(fd)
    return Child(pid, stdout, stderr, channel, taken, failure)


def prefer_as_victim(pid: int) -> None:
    """Where memory runs out, the kernel ends the crew's process rather than the one that reports it."""
    try:
        fd = posix.open(f"/proc/{pid}/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        posix.write(fd, b"500")
    except OSError:
        pass
    finally:
        posix.close(fd)
