"""The limit of a run's disk: what counts, and that a run over it is ended."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.disk import NAME_BYTES, DiskWatch

from .harness import complete, crew

MIB = 1 << 20


def measured(root: Path) -> int:
    return DiskWatch(os.fsencode(root), 1 << 40).measure(10)


def write(path: Path, size: int) -> None:
    path.write_bytes(b"x" * size)


def test_what_counts(tmp_path: Path) -> None:
    assert measured(tmp_path) == 0
    write(tmp_path / "a", MIB)
    assert MIB <= measured(tmp_path) < 2 * MIB
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to("/etc")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measured(tmp_path) < 2 * MIB
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "c", MIB)
    assert 2 * MIB <= measured(tmp_path) < 3 * MIB


def test_a_file_that_is_deleted_while_it_is_open_counts(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with (tmp_path / "gone").open("wb") as file:
            file.write(b"x" * MIB)
            file.flush()
            (tmp_path / "gone").unlink()
            os.write(ready[1], b"1")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        assert MIB <= measured(tmp_path) < 2 * MIB
    finally:
        os.write(go[1], b"1")
        os.waitpid(pid, 0)
        for fd in (*ready, *go):
            os.close(fd)
    assert measured(tmp_path) == 0


def test_names_count(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).touch()
    assert measured(tmp_path) >= 1000 * NAME_BYTES


def test_a_long_walk_is_done_in_steps(tmp_path: Path) -> None:
    for number in range(20_000):
        (tmp_path / str(number)).touch()
    watch = DiskWatch(os.fsencode(tmp_path), 1 << 30)
    longest, steps = 0.0, 0
    while watch.used_bytes == 0:
        now = time.monotonic()
        assert watch.due <= now
        assert not watch.look(now)
        longest, steps = max(longest, time.monotonic() - now), steps + 1
    assert steps > 1
    assert watch.used_bytes >= 20_000 * NAME_BYTES
    assert watch.due > time.monotonic() - 1  # it waits again
    assert not watch.look(time.monotonic())


def test_what_others_wrote_before_the_run_began_is_not_held_against_it(tmp_path: Path) -> None:
    free = [100 * MIB]

    class Hidden(DiskWatch):
        """With a process of the crew's that shows its files to nobody."""

        def _free_bytes(self) -> int:
            return free[0]

        def _nameless(self) -> Iterator[int]:
            self._hides = True
            yield from ()

    watch = Hidden(os.fsencode(tmp_path), 16 * MIB)
    free[0] = 50 * MIB
    watch.begin()
    assert not watch.look(time.monotonic())
    free[0] = 30 * MIB
    assert watch.look(time.monotonic())


def _hides(folder: Path, patch: pytest.MonkeyPatch, what: str) -> None:
    """Exit with 1 when a child that is ``what`` passes for one that may hide files, with 0 when not."""
    told, tells = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(4, int(what != "undumpable"), 0, 0, 0)  # PR_SET_DUMPABLE, which setuid() has taken away
        if what != "ended":
            os.write(tells, b"1")
            signal.pause()
        os._exit(0)
    if what == "ended":
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # and nobody reaps it
    else:
        os.read(told, 1)
    listdir = os.listdir
    patch.setattr(os, "listdir", lambda path: [str(child)] if path == "/proc" else listdir(path))
    watch = DiskWatch(os.fsencode(folder), 1 << 30)
    watch.measure(10)
    os.kill(child, signal.SIGKILL)
    os._exit(int(watch._hides))


@pytest.mark.parametrize(("what", "hides"), [("undumpable", True), ("ended", False), ("running", False)])
def test_a_process_that_waits_to_be_reaped_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, hides: bool
) -> None:
    """Its files are shown to root alone too; but what others write on this disk must not be held against a run for that."""
    observer = os.fork()
    if observer == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(10001)  # as the supervisor and the crew
            _hides(tmp_path, monkeypatch, what)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(observer, 0)[1]) == int(hides)


FILL = """
import os
def kickoff(inputs):
    number = 0
    while True:
        with open(f"artifacts/{number}.bin", "wb") as file:
            file.write(os.urandom(1 << 20))
        number += 1
"""


def test_a_run_over_its_limit_is_ended(tmp_path: Path) -> None:
    run = complete(tmp_path, crew(FILL), disk_limit_bytes=64 * MIB)
    end = run.of("end")[0]
    assert run.error["code"] == "disk_limit"
    assert end["signal"] == 9
    assert 64 * MIB < end["disk_bytes"]
    assert any("of disk" in frame["message"] for frame in run.of("notice"))
    assert sum(run.artifacts.values()) > 0


@pytest.mark.parametrize("limit", [None, 64 * MIB])
def test_a_run_within_it_is_measured_at_its_end(tmp_path: Path, limit: int | None) -> None:
    code = crew("def kickoff(inputs):\n    open('artifacts/a.bin', 'wb').write(b'x' * (8 << 20))\n")
    end = complete(tmp_path, code, **({"disk_limit_bytes": limit} if limit else {})).of("end")[0]
    assert (end["disk_bytes"] is None) == (limit is None)
    assert limit is None or 8 * MIB <= end["disk_bytes"] < 9 * MIB
