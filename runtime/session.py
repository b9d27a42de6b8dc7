"""The supervisor's loop: commands in, frames out, the crew's streams, claims, files and end in between.

One thread, one epoll, nothing that blocks. What is read from the crew stops when the outbox is full; commands are taken
always, since an ``ack`` is what empties it. The order within one turn is the protocol's: what the crew wrote before it sent
a claim is in the pipes already when the claim can be read, so the pipes are drained of what they hold at that moment first.

The end: when the crew's main process is gone, its streams are read to their end; who still holds them a moment later
(forgotten children, daemons) is killed, and the end is not held up by one that cannot be.
"""

import os
import sys
import time

from . import claims, facts, workspace
from .artifacts import ArtifactWatch
from .commands import Boot, Commands
from .disk import DiskWatch
from .outbox import Outbox
from .poller import READ, WRITE, Poller
from .reaper import Reaper
from .signals import SIG_IGN, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGKILL, SIGTERM, set_wakeup_fd, signal
from .spawn import Child, prefer_as_victim
from .streams import CrewStreams
from .version import RUNNER
from .wire import Lines, dumps

STDIN, STDOUT = 0, 1
RETRY_SECONDS = 0.2
"""How often an end that nobody holds is tried again: a FIFO without a writer reads as ended, without a reader as broken."""
LINGER_SECONDS = 30.0
"""What a crew may still do (threads, atexit) after it gave its result."""
STRAGGLER_SECONDS = 0.25
GIVE_UP_SECONDS = 1.0
END_TIMEOUT_SECONDS = 60.0
MEASURE_SECONDS = 0.5


def serve(child: Child) -> int:
    """Run the session of ``child`` to its end: the container's exit code."""
    return Session(child).run()


class Session:
    """One run, or one smoke boot."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._app = _folder("CREWSHIP_APP_DIR", b"/app")
        self._source = _folder("CREWSHIP_SOURCE_DIR", b"/opt/crewship/source")
        self._poller = Poller()
        self._reaper = Reaper(child)
        self._commands = Commands()
        self._claims = Lines(claims.LINE_LIMIT_BYTES)
        self._to_crew = b""
        self._outbox: Outbox | None = None
        self._ran = False
        self._epoch = 0  # of the reader that counts
        self._streams: CrewStreams | None = None
        self._stdin_retry: float | None = None
        self._stdout_retry: float | None = None
        self._globs: list[str] = []
        self._disk: DiskWatch | None = None
        self._disk_bytes: int | None = None
        self._end_timeout = END_TIMEOUT_SECONDS
        self._notices: list[str] = []
        self._result_at: int | None = None
        self._sigterm_at: int | None = None
        self._linger_until: float | None = None
        self._killed_at: float | None = None
        self._end: int | None = None  # the number of the end frame
        self._end_at = 0.0
        self._log_stopped = False

        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (SIGCHLD, SIGTERM):
            signal(number, _noted)
        for number in (SIGINT, SIGHUP, SIGIO):  # SIGIO: a read lease of artifacts.py is broken
            signal(number, SIG_IGN)
        os.set_blocking(STDIN, False)
        os.set_blocking(STDOUT, False)
        for fd in (child.stdout, child.stderr, child.channel, child.taken):
            os.set_blocking(fd, False)
        prefer_as_victim(child.pid)
        self._notices += workspace.fill(self._source, self._app)
        self._artifacts = ArtifactWatch(os.path.join(self._app, workspace.ARTIFACTS))
        self._reaper.reap()

    # -- the loop

    def run(self) -> int:
        self._poller.watch(self._wake, READ)
        while True:
            now = time.monotonic()
            self._tick(now)
            if self._is_over(now):
                break
            self._watch_what_is_wanted(now)
            ready = self._poller.ready(self._wait(now))
            now = time.monotonic()
            if STDIN in ready:
                self._read_commands(now)
            if self._wake in ready:
                self._take_signals()
            if ready.get(self._child.channel, 0) & WRITE:
                self._write_to_crew()
            if ready.get(self._child.channel, 0) & ~WRITE:
                self._read_claims(now)
            for fd in (self._child.stdout, self._child.stderr):
                if fd in ready and self._streams is not None:
                    self._streams.read(fd, now)
                    self._hold_to_its_limit()
            if self._artifacts.fd in ready:
                self._artifacts.read(now)
            self._write(now)
        code, number = self._reaper.exit or (None, SIGTERM)
        return code if code is not None else 128 + (number or 0)

    def _watch_what_is_wanted(self, now: float) -> None:
        outbox = self._outbox
        if not self._poller.watch(STDIN, 0 if self._stdin_retry is not None else READ):
            self._stdin_retry = now + RETRY_SECONDS
        if outbox is None:
            return
        self._poller.watch(STDOUT, WRITE if outbox.pending and self._stdout_retry is None else 0)
        listen = 0 if outbox.full else READ
        if self._streams is not None:
            self._streams.watch(listen)
        if self._child.channel >= 0:
            self._poller.watch(self._child.channel, listen | (WRITE if self._to_crew else 0))
        if self._artifacts.fd >= 0:
            self._poller.watch(self._artifacts.fd, listen)

    def _wait(self, now: float) -> float | None:
        """How long to sleep, in seconds; None is for ever."""
        dues = [self._stdin_retry, self._stdout_retry]
        outbox = self._outbox
        if outbox is not None:
            if self._end is not None:
                dues.append(self._end_at + self._end_timeout)
            elif self._reaper.exit is not None:
                dues.append(self._reaper.exit_at + self._end_timeout)
            if not outbox.full and self._end is None:
                if self._streams is not None:
                    dues += self._streams.dues()
                dues.append(self._artifacts.due)
                if self._reaper.exit is None:
                    dues.append(self._linger_until)
                    dues.append(self._disk.due if self._disk is not None else None)
                elif self._killed_at is None:
                    dues.append(self._reaper.exit_at + STRAGGLER_SECONDS)
                else:
                    dues.append(self._killed_at + GIVE_UP_SECONDS)
        soonest = min((due for due in dues if due is not None), default=None)
        return None if soonest is None else max(0.0, soonest - now)

    def _tick(self, now: float) -> None:
        """What is due."""
        if self._stdin_retry is not None and now >= self._stdin_retry:
            self._stdin_retry = None
            self._read_commands(now)
        outbox = self._outbox
        streams = self._streams
        if outbox is None or streams is None:
            return
        streams.unmute(now)
        if not outbox.full and self._end is None:
            if streams.is_due(now):
                self._drain(now)  # the rest may lie in the pipe: reading had stopped, or this process had to wait
                streams.show_unfinished(now)
            if self._artifacts.due is not None and self._artifacts.due <= now:
                self._drain(now)  # what the crew said before it closed the file comes before it
                for fields in self._artifacts.take(now):
                    outbox.add("artifact", fields)
        if self._disk is not None and self._reaper.exit is None and now >= self._disk.due and self._disk.look(now):
            self._stop_disk(self._disk.used_bytes)
        if self._linger_until is not None and now >= self._linger_until and self._reaper.exit is None:
            self._linger_until = None
            self._notice("warning", f"The crew was still running {LINGER_SECONDS:.0f} s after its result: stopped.")
            self._reaper.kill(SIGKILL)
        if self._reaper.exit is not None and self._end is None:
            self._finish(now)
        self._write(now)

    def _is_over(self, now: float) -> bool:
        if self._outbox is None:
            return self._reaper.exit is not None and self._sigterm_at is not None  # thrown away before it was used
        if self._end is not None:
            return self._outbox.acknowledged >= self._end or now >= self._end_at + self._end_timeout
        return False

    def _write(self, now: float) -> None:
        if self._stdout_retry is not None and now < self._stdout_retry:
            return
        self._stdout_retry = None
        if self._outbox is not None and self._outbox.pending:
            try:
                self._outbox.write(STDOUT)
            except OSError:  # the engine's end is gone; frames are held for the next one who asks
                self._stdout_retry = now + RETRY_SECONDS

    # -- commands

    def _read_commands(self, now: float) -> None:
        try:
            data = os.read(STDIN, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stdin_retry = now + RETRY_SECONDS
            return
        for command in self._commands.feed(data):
            self._obey(command)

    def _obey(self, command: "dict[str, object]") -> None:
        op, n = command.get("op"), command.get("n")
        if op == "boot":
            self._boot(command)
        elif self._outbox is None:
            return
        elif op == "run":
            if not self._ran:
                self._ran = True
                if self._disk is not None:
                    self._disk.begin()  # a warm container has waited, and others have written meanwhile
                self._send_to_crew({"op": "run", **{key: command.get(key) for key in ("run_id", "attempt", "input")}})
        elif op in ("ack", "replay") and isinstance(n, int):
            # Of two readers the later one counts: what the earlier one takes for durable may have been refused.
            epoch = command.get("epoch")
            epoch = epoch if isinstance(epoch, int) else 0
            if epoch < self._epoch:
                return
            self._epoch = epoch
            if op == "ack":
                self._outbox.acknowledge(n)
            else:
                self._outbox.replay(n)

    def _boot(self, command: "dict[str, object]") -> None:
        nonce = command.get("nonce")
        if self._outbox is not None or not isinstance(nonce, str):
            return
        boot = Boot(command, nonce, END_TIMEOUT_SECONDS)
        outbox = self._outbox = Outbox(boot.nonce, [self._app, b"/tmp"])
        self._globs, self._end_timeout = boot.globs, boot.end_timeout_seconds
        if boot.disk_limit_bytes > 0:
            self._disk = DiskWatch(self._app, boot.disk_limit_bytes)
        python = ".".join(str(part) for part in sys.version_info[:3])
        outbox.add("boot", {"runner": RUNNER, "python": python, "isolation": facts.isolation()})
        for message in self._notices:
            outbox.add("notice", {"level": "error", "message": message})
        if self._child.failure:
            outbox.add("notice", {"level": "error", "message": f"The crew could not be started: {self._child.failure}"})
        named = {self._child.stdout: "stdout", self._child.stderr: "stderr"}
        self._streams = CrewStreams(named, outbox, self._poller, boot.uncut, boot.log_limit_bytes)
        if self._reaper.exit is not None:
            self._reaper.exit_at = time.monotonic()
        self._send_to_crew({"op": "boot", "app": os.fsdecode(self._app), **boot.for_crew})

    def _send_to_crew(self, message: "dict[str, object]") -> None:
        self._to_crew += dumps(message).encode("utf-8", "replace") + b"\n"
        self._write_to_crew()

    def _write_to_crew(self) -> None:
        try:
            while self._to_crew:
                self._to_crew = self._to_crew[os.write(self._child.channel, self._to_crew) :]
        except BlockingIOError:
            pass
        except OSError:
            self._to_crew = b""

    # -- the crew

    def _drain(self, now: float) -> None:
        """Take what is in the crew's pipes at this moment, and no more."""
        if self._streams is not None:
            self._streams.drain(now)
            self._hold_to_its_limit()

    def _hold_to_its_limit(self) -> None:
        if self._streams is not None and self._streams.is_over and not self._log_stopped:
            self._stop_log(self._streams.limit_bytes)

    def _stop_log(self, limit_bytes: int) -> None:
        """The crew writes more than its project may: it is ended here, before the engine's daemon pays for it."""
        self._log_stopped = True
        self._end_crew(
            "log_limit",
            f"The crew wrote more than {limit_bytes:,} bytes to its log",
            "Write bulk data to a file under /app/artifacts instead of printing it.",
        )

    def _stop_disk(self, used_bytes: int) -> None:
        self._disk, self._disk_bytes = None, used_bytes
        self._end_crew(
            "disk_limit", f"The crew's files took {used_bytes:,} bytes of disk, more than they may", "Write less."
        )

    def _end_crew(self, code: str, message: str, hint: str) -> None:
        """The crew is over a limit: say so and end all of its processes, in whatever session they are."""
        self._notice("error", f"{message}: stopped.")
        error = {"code": code, "message": f"{message}.", "hint": hint, "traceback": None}
        self._result({"ok": False, "error": error})
        self._reaper.kill(SIGKILL)
        self._reaper.kill_all()

    def _read_claims(self, now: float) -> None:
        try:
            data = os.read(self._child.channel, 1 << 16)
            lines = self._claims.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, lines = b"", []
        if lines:
            self._drain(now)
        for line in lines:
            if not line or self._outbox is None:
                continue
            ticket, frame = claims.check(line)
            if frame is not None and frame[0] == "result":
                self._result(frame[1])
            elif frame is not None:
                self._outbox.add(*frame)
            if ticket is not None:
                self._say_taken(ticket)
        if not data:
            self._close_channel()

    def _say_taken(self, ticket: int) -> None:
        try:
            os.write(self._child.taken, ticket.to_bytes(8, "big"))
        except OSError:
            pass

    def _close_channel(self) -> None:
        if self._child.channel >= 0:
            self._poller.watch(self._child.channel, 0)
            os.close(self._child.channel)
            self._child.channel = -1

    def _result(self, fields: "dict[str, object]") -> None:
        if self._result_at is None and self._outbox is not None:
            self._result_at = time.time_ns() // 1_000_000
            self._linger_until = time.monotonic() + LINGER_SECONDS
            self._outbox.add("result", fields)

    def _notice(self, level: str, message: str) -> None:
        if self._outbox is not None:
            self._outbox.add("notice", {"level": level, "message": message})

    # -- the end

    def _take_signals(self) -> None:
        try:
            numbers = os.read(self._wake, 4096)
        except BlockingIOError:
            return
        if SIGTERM in numbers:
            if self._sigterm_at is None:
                self._sigterm_at = time.time_ns() // 1_000_000
            self._reaper.kill(SIGTERM)
        self._reaper.reap()

    def _finish(self, now: float) -> None:
        """The crew's main process is gone: bring everything in, then say ``end``."""
        outbox, streams, exit_at = self._outbox, self._streams, self._reaper.exit_at
        assert outbox is not None
        assert streams is not None
        held_open = streams.is_open or self._child.channel >= 0
        given_up = now >= exit_at + self._end_timeout
        if outbox.full and not given_up:
            return  # nobody reads; what is in the pipes waits there
        if self._killed_at is None:
            if held_open and now < exit_at + STRAGGLER_SECONDS:
                return
            self._killed_at = now
            self._reaper.kill_all()
        if (held_open or self._reaper.reap()) and now < self._killed_at + GIVE_UP_SECONDS and not given_up:
            return
        self._drain(now)
        streams.close()
        self._close_channel()
        if self._disk is not None:
            self._disk_bytes = self._disk.measure(MEASURE_SECONDS)
        self._collect()
        code, number = self._reaper.exit or (None, None)
        used = facts.cgroup()
        if code == 0 and used["oom_kills"]:  # with another exit it is the run's error
            self._notice("warning", "A child was killed at the run's limit of memory: [run] memory in crewship.toml.")
        if code == 0 and used["pids_max_events"]:
            self._notice("warning", "The run was at its limit of processes and threads: [run] pids in crewship.toml.")
        self._end = outbox.add(
            "end",
            {
                "exit_code": code,
                "signal": number,
                "result_at": self._result_at,
                "sigterm_at": self._sigterm_at,
                "cgroup": used,
                "disk_bytes": self._disk_bytes,
                "artifacts": self._artifacts.found,
            },
        )
        self._end_at = now

    def _collect(self) -> None:
        assert self._outbox is not None
        left = workspace.collect(self._app, self._source, self._globs)
        for fields in self._artifacts.take_all():
            self._outbox.add("artifact", fields)
        self._poller.watch(self._artifacts.fd, 0)
        self._artifacts.close()
        if left:
            self._notice("warning", workspace.left_behind(left))


def _folder(name: str, default: bytes) -> bytes:
    return os.environb.get(name.encode(), default)


def _noted(_number: int, _frame: object) -> None:
    """The wake-up fd has told the loop."""
