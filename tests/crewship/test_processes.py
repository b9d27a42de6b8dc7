"""A child process that is kept alive, with real processes."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from crewship import processes
from crewship.processes import Child, ChildFailed, ChildLog, ChildSpec

WAITS = "import signal, sys; print('up', flush=True); signal.pause()"
IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


async def is_up(log: ChildLog) -> bool:
    return log.has(b"up")


def spec(folder: Path, program: str, **changes: object) -> ChildSpec:
    command = (sys.executable, "-c", program)
    return ChildSpec("thing", command, folder / "logs" / "thing.log", is_up, **changes)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_child_is_ready_when_it_says_so_and_ends_on_sigterm(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, WAITS), pytest.fail)
    await child.start()
    pid = child.pid
    assert pid is not None
    await child.stop()
    assert child.pid is None
    assert is_gone(pid)


async def test_what_it_logged_before_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "thing.log").write_text("up, long ago\n")
    child = Child(spec(tmp_path, "import signal; signal.pause()", ready_seconds=0.3), pytest.fail)
    with pytest.raises(ChildFailed, match="not ready within 0 s"):
        await child.start()
    await child.stop()


async def test_one_that_ends_at_once_is_told_with_what_it_said(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, "import sys; print('no such table'); sys.exit(3)"), pytest.fail)
    with pytest.raises(ChildFailed, match="thing ended with exit code 3") as caught:
        await child.start()
    assert caught.value.detail.endswith("\n  no such table")
    assert str(tmp_path / "logs" / "thing.log") in str(caught.value.hint)
    await child.stop()


async def test_one_that_ignores_sigterm_is_killed_after_its_time(tmp_path: Path) -> None:
    child = Child(spec(tmp_path, IGNORES_SIGTERM, stop_seconds=0.2), pytest.fail)
    await child.start()
    pid = child.pid
    assert pid is not None
    await child.stop()
    assert is_gone(pid)


async def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    child = Child(spec(tmp_path, WAITS), said.put_nowait)
    await child.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert (await said.get()).startswith("thing was ended by SIGKILL; starting it again in 0.5 s")
    assert await said.get() == "thing runs again"
    assert child.pid not in (None, first)
    await child.stop()


async def test_it_can_be_stopped_while_it_waits_to_start_again(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    child = Child(spec(tmp_path, "print('up', flush=True)"), said.put_nowait)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crewship.processes._FIRST_PAUSE_SECONDS", 3600)
        await child.start()
        await said.get()
        await child.stop()
    assert child.pid is None


async def test_a_big_log_is_put_aside_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crewship.processes._ROTATE_BYTES", 10)
    log = tmp_path / "logs" / "thing.log"
    log.parent.mkdir()
    log.write_text("over ten bytes\n")
    child = Child(spec(tmp_path, WAITS), pytest.fail)
    await child.start()
    assert log.with_name("thing.log.1").read_text() == "over ten bytes\n"
    assert log.read_text() == "up\n"
    await child.stop()


async def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, signal\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print('inner', inner.pid, 'up', flush=True); signal.pause()"
    )
    child = Child(spec(tmp_path, program), pytest.fail)
    await child.start()
    inner = int((tmp_path / "logs" / "thing.log").read_text().split()[1])
    watched = os.pidfd_open(inner)
    await child.stop()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(watched, ended.set)
    await ended.wait()
    loop.remove_reader(watched)
    os.close(watched)


async def test_one_that_is_stuck_is_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(processes, "_FIRST_PAUSE_SECONDS", 0.05)
    program = (
        "import os, signal; print('up', flush=True)\n"
        f"if not os.path.exists({str(tmp_path / 'seen')!r}): print('stuck', flush=True)\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').close()\n"
        "signal.pause()"
    )
    said: list[str] = []
    looks: list[bool] = []

    def is_stuck(log: ChildLog) -> bool:
        looks.append(b"stuck" in log.news())
        return looks[-1]

    child = Child(spec(tmp_path, program, is_stuck=is_stuck), said.append)
    await child.start()
    async with asyncio.timeout(20):
        while not said or not said[-1].endswith("runs again"):
            await asyncio.sleep(0.01)
        assert "does not get well by itself" in said[0]
        pid, seen = child.pid, len(looks)
        while len(looks) < seen + 3:  # and not once more
            await asyncio.sleep(0.01)
    assert child.pid == pid
    assert looks.count(True) == 1
    (tmp_path / "logs" / "thing.log").unlink()
    async with asyncio.timeout(20):
        while len(looks) < seen + 5:  # nor does it end what keeps the child alive
            await asyncio.sleep(0.01)
    await child.stop()
