"""Waits for a run to end, with its timeline or without, and does what Ctrl-C means there.

The first Ctrl-C cancels the run (on a terminal it asks), the second forces, the third leaves. The loss of the connection ends
nothing: the stream goes on where it broke, for as long as the run lives.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import IO, Any, Self

from cli.client import Client
from cli.human import waiting as waiting_words
from cli.output import can_ask, data, say
from cli.screen import Screen
from cli.timeline import Timeline
from crewship.errors import Unavailable
from crewship.events import RUN_TERMINAL

_WAIT_SECONDS = 20
"""A ``?wait=`` call's length; between two of them the status line learns why a run waits."""
_QUIET_SECONDS = 20.0
_PENDING_QUIET_SECONDS = 3.0
"""Before the run has started nothing comes over the stream, and people want to know what it waits for."""


class LeftRunning(Exception):
    """The person stopped watching, and the run goes on."""


class Interrupts:
    """Ctrl-C, raised only where it can be dealt with.

    Anywhere else it is remembered and raised at the next such place. An exception out of nowhere would cut a line that is
    being drawn, and one that comes up while a generator is finalized is swallowed by the interpreter.
    """

    def __init__(self) -> None:
        self._pending = False
        self._is_allowed = False

    def __enter__(self) -> Self:
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Ctrl-C is raised in this block, also one that was pressed before."""
        self._is_allowed = True
        try:
            if self._pending:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_allowed = False

    def take(self) -> None:
        """What was pressed is dealt with."""
        self._pending = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._is_allowed:
            raise KeyboardInterrupt


class Watch:
    """One run that is waited for.

    Attributes:
        interrupted: Whether Ctrl-C was pressed: the command then ends with 130.
    """

    def __init__(self, client: Client, run: dict[str, Any]) -> None:
        self.interrupted = False
        self._client = client
        self._run = run
        self._run_id: str = run["id"]
        self._path = f"/runs/{run['id']}"
        self._presses = 0
        self._after = 0
        self._trouble = ""
        self._screen: Screen | None = None
        self._interrupts = Interrupts()

    def until_end(self) -> dict[str, Any]:
        """Wait quietly (a status line on a terminal); the Run as it ended."""
        self._screen = Screen(self._caption)
        with self._screen, self._interrupts:
            while True:
                try:
                    return self._poll()
                except KeyboardInterrupt:
                    self._interrupt()

    def stream(self, *, ndjson: bool) -> dict[str, Any]:
        """Show the events as they come: the timeline on stderr, or with ``ndjson`` the log's own lines on stdout."""
        self._screen = Screen(self._caption, quiet=ndjson)
        timeline = Timeline(self._screen.paint, self._screen.width)
        with self._screen, self._interrupts:
            while True:
                try:
                    self._read(self._screen, None if ndjson else timeline)
                    return self._poll()
                except KeyboardInterrupt:
                    self._interrupt()

    # --- inner --------------------------------------------------------------------------------------------------------

    def _poll(self) -> dict[str, Any]:
        failures = 0
        wait_seconds = 1  # the first answer soon, for the status line
        while True:
            try:
                with self._interrupts.allowed():
                    self._run = self._client.get(self._path, wait=wait_seconds)
            except Unavailable as error:
                self._trouble = f"{error.detail}; trying again"
                failures += 1
                with self._interrupts.allowed():
                    time.sleep(min(5.0, 0.2 * 2**failures))
                continue
            self._trouble, failures, wait_seconds = "", 0, _WAIT_SECONDS
            if self._run["status"] in ("succeeded", "failed", "canceled"):
                return self._run

    def _read(self, screen: Screen, timeline: Timeline | None) -> None:
        self._timeline = timeline
        while not self._read_once(screen, timeline):
            pass

    def _read_once(self, screen: Screen, timeline: Timeline | None) -> bool:
        """Read one stream; whether the log is at its end (else it is opened anew, with another patience)."""
        is_started = self._after > 0
        batches = self._client.events(
            f"{self._path}/events", after=self._after, connected=True, on_break=self._broke,
            quiet_seconds=_QUIET_SECONDS if is_started else _PENDING_QUIET_SECONDS,
        )  # fmt: skip
        # Closed in so many words: the collector would do it at any time.
        with closing(batches):
            while True:
                with self._interrupts.allowed():
                    batch = next(batches, None)
                if batch is None:
                    return True
                self._trouble = ""
                if not batch:
                    if not is_started:
                        with suppress(Unavailable):
                            self._run = self._client.get(self._path)
                    continue
                self._after = batch[-1].event.seq
                if timeline is None:
                    write_bytes(sys.stdout, b"".join(line.raw + b"\n" for line in batch))
                else:
                    screen.show(text for line in batch for text in timeline.lines(line.event))
                if batch[-1].event.type in RUN_TERMINAL:
                    return True
                if not is_started:
                    return False

    def _broke(self, reason: str) -> None:
        self._trouble = "connection lost; trying again"

    def _caption(self) -> str:
        if self._trouble:
            return f"{self._run_id}  {self._trouble}"
        if self._presses:
            return f"{self._run_id}  canceling" + (", by force" if self._presses > 1 else "; Ctrl-C forces")
        timeline: Timeline | None = getattr(self, "_timeline", None)
        if timeline is not None and timeline.activity:
            return timeline.activity
        waiting = self._run.get("waiting_for") or {}
        if waiting.get("position"):
            return f"{self._run_id}  waits for {waiting_words(waiting)}"
        if waiting and self._after == 0:
            return f"{self._run_id}  starting"
        return f"{self._run_id}  {self._run['status'] if self._after == 0 else 'running'}"

    # --- Ctrl-C -------------------------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        self._interrupts.take()
        presses = self._presses + 1
        if presses == 1 and can_ask():
            try:
                if not self._agreed():
                    return
            except KeyboardInterrupt:
                self._interrupts.take()
                presses = 2
        self._presses = presses
        self.interrupted = True
        if self._presses > 2:
            say(f"{self._run_id} is being canceled; see: crewship runs show {self._run_id}")
            raise LeftRunning
        self._cancel(force=self._presses == 2)

    def _cancel(self, *, force: bool) -> None:
        if self._screen is None or not self._screen.live:
            say(f"canceling {self._run_id}" + (" by force" if force else "; Ctrl-C again forces"))
        self._client.post(f"{self._path}/cancel", {"force": True} if force else {})

    def _agreed(self) -> bool:
        """Ask whether to cancel; Ctrl-C at the question raises and so forces."""
        assert self._screen is not None
        with self._screen.paused():
            while True:
                sys.stderr.write(f"\rCancel {self._run_id}? [y]es, [n]o, [l]eave it running: ")
                sys.stderr.flush()
                with self._interrupts.allowed():
                    answer = sys.stdin.readline()
                word = answer.strip().lower()
                if word in ("y", "yes"):
                    return True
                if word in ("n", "no"):
                    return False
                if word in ("l", "leave") or not answer:
                    say(f"{self._run_id} goes on; to see it: crewship runs events {self._run_id} --follow")
                    raise LeftRunning


def write_bytes(stream: IO[str], content: bytes) -> None:
    """Bytes on a text stream, exactly."""
    stream.flush()
    stream.buffer.write(content)  # type: ignore[attr-defined]
    stream.buffer.flush()  # type: ignore[attr-defined]


def say_end(run: dict[str, Any], *, drawn: bool) -> None:
    """How a run ended, on stderr: the mark and time (unless ``drawn`` by the timeline), and the error."""
    from cli.ansi import plain
    from cli.output import CYAN, DIM, RED, paint_for
    from cli.timeline import ending

    paint = paint_for(sys.stderr)
    run_id, error = run["id"], run.get("error")
    if not drawn:
        say(f"{ending(paint, run['status'], run.get('duration_ms'))}  {paint(run_id, DIM)}")
    if error:
        for line in (error.get("traceback") or "").splitlines():
            say("  " + paint(plain(line), DIM))
        message, *more = str(error.get("message") or error.get("code")).splitlines() or [""]
        say(f"{paint('error:', RED)} {plain(message)} [{error.get('code')}]")
        for line in more:
            say(f"  {plain(line)}")
        if error.get("hint"):
            say(f"{paint('hint:', CYAN)} {plain(error['hint'])}")


def say_next_step(run: dict[str, Any], *, downloaded: bool) -> None:
    """The command that a person will probably want after a run."""
    from cli.human import count
    from cli.output import say_next

    if run.get("artifact_count") and not downloaded:
        say_next(f"crewship runs download {run['id']}", f"fetch {count(run['artifact_count'], 'artifact')}")
    elif run["status"] == "failed":
        say_next(f"crewship runs logs {run['id']}", "its log")
    else:
        say_next(f"crewship runs show {run['id']}", "look at it again")


def print_output(output: Any) -> None:
    """A run's output on stdout: a string as it is, nothing for null, JSON for everything else."""
    import json

    if output is None:
        return
    data(output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False))
