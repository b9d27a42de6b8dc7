"""A child process that is kept alive: started, waited for until it is ready, started again when it dies, stopped in time.

Its output goes to a log file of its own, so it may outlive a reader. A child is a session of its own: Ctrl-C in a terminal
reaches the parent alone, which stops its children in an order. Where the system can (Linux), a child is told to end when its
parent was killed.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crewship.errors import CrewshipError

_POLL_SECONDS = 0.05
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
"""A child that lived so long was well: the next restart is quick again."""
_ROTATE_BYTES = 16 << 20
_SHOWN_LINES = 12
_LOOK_SECONDS = 2.0
_NEWS_BYTES = 4 << 20
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run and how to know that it works.

    Attributes:
        name: For people.
        command: Program and arguments.
        log: File its output is appended to; rotated at a start when it is over 16 MiB.
        is_ready: Asked twenty times a second until it says so; given what the child has logged since its start.
        env: Variables besides the parent's.
        folder: Its working directory.
        ready_seconds: How long it may take to become ready.
        stop_seconds: Between SIGTERM and SIGKILL.
        is_stuck: Asked every two seconds whether it will not get well by itself, given its log; then it is killed, and started
            again as if it had died.
    """

    name: str
    command: Sequence[str]
    log: Path
    is_ready: Callable[["ChildLog"], Awaitable[bool]]
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    ready_seconds: float = 60.0
    stop_seconds: float = 15.0
    is_stuck: Callable[["ChildLog"], bool] | None = None


class ChildFailed(CrewshipError):
    """A child ended or was not ready in time; ``detail`` ends with what it logged last."""

    default_code = "child_failed"


class ChildLog:
    """What a child has written since its start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._seen = path.stat().st_size if path.exists() else 0

    def has(self, words: bytes) -> bool:
        """Whether ``words`` stand in it."""
        return words in self._read()

    def news(self) -> bytes:
        """What was added since it was asked this the last time; nothing where somebody has taken the file away."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._seen)
                added = file.read(_NEWS_BYTES)
        except FileNotFoundError:
            return b""
        self._seen += len(added)
        return added

    def last_lines(self) -> str:
        """Its end, indented, for an error."""
        lines = self._read().decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]
        return "".join(f"\n  {line[:300]}" for line in lines)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read()


class Child:
    """One process, and the ones that replace it.

    Args:
        spec: What to run.
        say: Tells a person that it died and that it is back.
    """

    def __init__(self, spec: ChildSpec, say: Callable[[str], None]) -> None:
        self.spec = spec
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._log = ChildLog(spec.log)

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it, wait until it is ready, and keep it alive from then on.

        Raises:
            ChildFailed: it ended before, or took too long.
        """
        await self._spawn()
        await self._wait_until_ready()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left after its time."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self.spec.stop_seconds)
        self.kill()
        await process.wait()

    def kill(self) -> None:
        """SIGKILL to it and all it started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _spawn(self) -> None:
        log = self.spec.log
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _ROTATE_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))
        self._log = ChildLog(log)
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.spec.env},
                cwd=self.spec.folder,
                start_new_session=True,
                preexec_fn=_end_with_parent if _libc else None,
            )

    async def _wait_until_ready(self) -> None:
        assert self._process is not None
        give_up = time.monotonic() + self.spec.ready_seconds
        while not await self.spec.is_ready(self._log):
            if self._process.returncode is not None:
                how = _how_it_ended(self._process.returncode)
            elif time.monotonic() > give_up:
                how = f"was not ready within {self.spec.ready_seconds:.0f} s"
            else:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            raise ChildFailed(
                f"{self.spec.name} {how}{self._log.last_lines()}",
                hint=f"the whole log: {self.spec.log}\ncrewship doctor checks what it needs",
            )

    async def _keep(self) -> None:
        """Start it again whenever it ends, with pauses that grow while it does not get well."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            assert self._process is not None
            began = time.monotonic()
            code = await self._ended(self._process)
            if time.monotonic() - began > _HEALTHY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._say(
                f"{self.spec.name} {_how_it_ended(code)}; starting it again in {pause:g} s (log: {self.spec.log})"
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await self._spawn()
            try:
                await self._wait_until_ready()
            except ChildFailed as error:
                self._say(error.detail.partition("\n")[0])
                self.kill()
            else:
                self._say(f"{self.spec.name} runs again")

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Its exit code, once it has ended or was killed for being stuck."""
        while self.spec.is_stuck is not None:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(process.wait(), _LOOK_SECONDS)
            if self.spec.is_stuck(self._log):
                self._say(f"{self.spec.name} does not get well by itself: it is killed (log: {self.spec.log})")
                self.kill()
                break
        return await process.wait()


def _how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _end_with_parent() -> None:
    """In the child, before its program: SIGTERM when the parent is gone, however that ended."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
