"""What a person sees: commands on a real pseudo-terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.platform import Log, Platform, crew_log
from tests.cli.test_timeline import EXPECTED


class Terminal:
    """A command and the screen it writes to."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int) -> None:
        self.process = process
        self.seen = ""
        self._master = master

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert self._read(deadline), f"{text!r} never came; but: {self.seen!r}"

    def until_hidden(self) -> None:
        """Until what is typed is not echoed; what comes before that is thrown away by the one who asks."""
        deadline = time.monotonic() + 30
        while termios.tcgetattr(self._master)[3] & termios.ECHO:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def end(self) -> int:
        while self._read(time.monotonic() + 30):
            pass
        return self.process.wait(30)

    @property
    def text(self) -> str:
        """What is left to read: without colours, and without the status lines that were erased."""
        kept = re.sub(r"[^\n]*\x1b\[2K", "", self.seen.replace("\r\n", "\n"))
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", kept)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nothing more came; so far: {self.seen!r}")
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.seen += chunk.decode(errors="replace")
        return bool(chunk)


@contextmanager
def terminal(*arguments: str, **environment: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=_take_terminal,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _take_terminal() -> None:
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def ready(platform: Platform, project: Path) -> Platform:
    platform.add_project("research-crew", "dep_one")
    return platform


def test_the_timeline_live(ready: Platform) -> None:
    log = crew_log()
    log.hold_after = 6
    ready.next_run, ready.next_log = {"output": "the answer", "artifact_count": 1}, log
    with terminal("invoke", "--stream") as screen:
        screen.until("Researcher · web_search")  # the status line while a tool is at work
        log.released.set()
        assert screen.end() == 0
    assert EXPECTED in screen.text
    assert screen.text.endswith("the answer\n  fetch 1 artifact: crewship runs download run_new0\n")
    assert "\x1b[31mred" in screen.seen  # the crew's colours come through
    assert "\x1b[2J" not in screen.seen  # and nothing else of it does
    assert screen.seen.rfind("\x1b[?25h") > screen.seen.rfind("\x1b[?25l")  # the cursor is back


def test_no_color(ready: Platform) -> None:
    ready.next_run, ready.next_log = {"output": "the answer"}, crew_log()
    with terminal("invoke", "--stream", NO_COLOR="1") as screen:
        assert screen.end() == 0
    assert EXPECTED in screen.text
    assert not re.search(r"\x1b\[[0-9;]*[1-9][0-9;]*m", screen.seen)


def test_ctrl_c_asks_first(ready: Platform) -> None:
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")

    def on_cancel(run_id: str, force: bool) -> None:
        if force:
            ready.runs[run_id]["status"] = "canceled"
            log.write(900, "run.canceled", duration_ms=900)

    ready.next_run, ready.next_log, ready.on_cancel = {"status": "running"}, log, on_cancel
    with terminal("invoke", "--stream") as screen:
        screen.until("started on dep_one")
        screen.press("\x03")
        screen.until("Cancel run_new0?")
        screen.press("n\n")
        log.write(500, "log", message="still here")
        screen.until("still here")
        assert ready.cancels == []
        screen.seen = ""
        screen.press("\x03")
        screen.until("Cancel run_new0?")
        screen.press("y\n")
        screen.until("Ctrl-C forces")
        screen.press("\x03")
        assert screen.end() == 130
    assert ready.cancels == [False, True]
    assert "■ canceled after 900 ms" in screen.text
    assert "Traceback" not in screen.seen


def test_a_run_may_be_left_running(ready: Platform) -> None:
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")
    ready.next_run, ready.next_log = {"status": "running"}, log
    with terminal("invoke", "--stream") as screen:
        screen.until("started on dep_one")
        screen.press("\x03")
        screen.until("Cancel run_new0?")
        screen.press("l\n")
        assert screen.end() == 130
    assert ready.cancels == []
    assert "crewship runs events run_new0 --follow" in screen.text


def test_several_deployments_are_asked_for(ready: Platform, project: Path) -> None:
    table = 'framework = "python"\nentrypoint = "main:kickoff"\n'
    (project / "crewship.toml").write_text(f"[deployments.search]\n{table}[deployments.write]\n{table}")
    ready.add_project("write", "dep_two")
    with terminal("invoke", "--detach") as screen:
        screen.until("Which deployment")
        screen.press("2\n")
        assert screen.end() == 0
    assert [body["project"] for method, path, body in ready.requests if path == "/v1/runs"] == ["write"]


def test_a_secret_is_asked_for_and_not_shown(ready: Platform, project: Path) -> None:
    with terminal("env", "set", "TOKEN") as screen:
        screen.until("TOKEN (not shown)")
        screen.until_hidden()
        screen.press("hush\n")
        assert screen.end() == 0
    assert ready.env["research-crew"] == {"TOKEN": "hush"}
    assert "hush" not in screen.seen
