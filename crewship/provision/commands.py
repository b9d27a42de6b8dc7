"""Running the programs that provisioning needs, under a time limit, with their output kept in a log."""

import contextlib
import fcntl
import os
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Step

_KEPT_LINES = 15
"""Of a program's output, in the error when it fails."""


def run(
    command: Sequence[str | Path],
    step: Step,
    *,
    log: Path,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> None:
    """Run ``command`` to its end; each line it prints is the step's detail and goes to ``log``.

    Args:
        command: Program and arguments.
        step: Where to show what it is at.
        log: File that the output is appended to.
        timeout_seconds: After that it is killed, with everything it started.
        env: Variables besides this process's own.
        hint: What a person can do when it fails.

    Raises:
        ProvisionError: it is not there, failed or took too long.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with log.open("a", encoding="utf-8") as file:
        print(f"$ {shlex.join(words)}", file=file, flush=True)
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise ProvisionError(f"{words[0]} cannot be run: {error.strerror}", hint=hint) from None
        expired = threading.Event()
        timer = threading.Timer(timeout_seconds, _kill_session, (process.pid, expired))
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            with process.stdout as output:
                for line in output:
                    file.write(line)
                    if line.strip():
                        last.append(line.rstrip())
                        step.detail(line.strip())
            code = process.wait()
        except BaseException:
            _kill_session(process.pid)
            process.wait()
            raise
        finally:
            timer.cancel()
    if code == 0:
        return
    how = f"took over {timeout_seconds:.0f} s" if expired.is_set() else f"failed with exit code {code}"
    shown = "".join(f"\n  {line}" for line in last)
    raise ProvisionError(f"`{shlex.join(words[:4])}` {how} (log: {log}){shown}", hint=hint)


def answers(command: Sequence[str | Path], timeout_seconds: float = 15) -> bool:
    """Whether ``command`` is there, ends in time and with exit code 0."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock ``name`` in ``folder``, so that two processes do not make the same thing at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kill_session(pid: int, expired: threading.Event | None = None) -> None:
    if expired is not None:
        expired.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, 9)
