"""A crew that takes whatever it can get, and one that does not want to go."""

# ruff: noqa: T201 (a crew prints)

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any


def kickoff(inputs: dict[str, Any]) -> Any:
    print("here", flush=True)
    time.sleep(inputs.get("after", 0))
    return globals()[inputs["do"]]()


def fork_bomb() -> None:
    while True:
        os.fork()


def memory_bomb() -> None:
    hoard = []
    while True:
        hoard.append(b"x" * (4 << 20))


def disk_fill() -> None:
    """Three processes in sessions of their own, each with its own folder."""
    for child in range(3):
        if os.fork() == 0:
            os.setsid()
            _write(Path(f"fill-{child}"))
    time.sleep(600)


def _write(folder: Path) -> None:
    folder.mkdir()
    block = os.urandom(1 << 20)
    for number in range(1 << 20):
        folder.joinpath(str(number)).write_bytes(block)


def hidden_fill() -> None:
    """Files that have no name any more."""
    block = os.urandom(1 << 20)
    hoard = []
    while True:
        hoard.append(Path("hidden").open("wb"))
        Path("hidden").unlink()
        for _ in range(32):
            hoard[-1].write(block)


def undumpable_fill() -> None:
    """The same by a process that shows its files to nobody."""
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    hidden_fill()


def inode_flood() -> None:
    number = 0
    while True:
        Path(f"empty-{number}").touch()
        number += 1


def log_flood() -> None:
    line = b"and another thing\n" * 1000
    while True:
        os.write(1, line)


def daemon_tree() -> None:
    """27 processes in three generations that ignore SIGTERM, each in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(3):
        for _ in range(2):
            if os.fork() == 0:
                os.setsid()
                break
    Path("artifacts", f"{os.getpid()}.txt").write_text("here")
    print("rooted", flush=True)
    while True:
        time.sleep(600)
