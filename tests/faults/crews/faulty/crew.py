"""A crew that never stops talking, and ones that say what nobody should say."""

# ruff: noqa: T201 (a crew prints)

import hashlib
import os
import random
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import crewship_runtime as crewship  # type: ignore[import-not-found]  # is there in every run

ARTIFACTS = Path("artifacts")


def kickoff(inputs: dict[str, Any]) -> Any:
    return globals()[inputs["do"]](inputs)


def tick(inputs: dict[str, Any]) -> dict[str, Any]:
    """Count aloud: mostly line by line, now and then a burst, events and files in between.

    The token is made once in a process's life: a second one in the log is a second execution.
    """
    token = secrets.token_hex(16)
    print(f"token {token}", flush=True)
    ARTIFACTS.joinpath("token.txt").write_text(token)
    ends, turn, number = time.monotonic() + inputs["seconds"], 0, 0
    while time.monotonic() < ends:
        burst = inputs["burst"] if turn % 25 == 24 else 1
        print("\n".join(f"tick {number + index}" for index in range(burst)), flush=True)
        number += burst
        turn += 1
        if turn % 10 == 0:
            crewship.emit("turn", turn=turn)
        if turn % 50 == 0:
            ARTIFACTS.joinpath(f"turn-{turn}.txt").write_text(str(number))
        time.sleep(0.01)
    return {"token": token, "ticks": number, "turns": turn}


def short(inputs: dict[str, Any]) -> dict[str, Any]:
    """Say two lines. As with ``tick``, a second token is a second execution."""
    token = secrets.token_hex(16)
    print(f"token {token}", flush=True)
    print("done", flush=True)
    return {"token": token}


def stubborn(inputs: dict[str, Any]) -> dict[str, Any]:
    """Count for a while and fail, until the last attempt. As with ``tick``, a second token is a second execution."""
    attempt = int(os.environ["CREWSHIP_ATTEMPT"])
    token = secrets.token_hex(16)
    print(f"attempt {attempt} token {token}", flush=True)
    ends, number = time.monotonic() + inputs["seconds"], 0
    while time.monotonic() < ends:
        print(f"attempt {attempt} tick {number}", flush=True)
        number += 1
        time.sleep(0.01)
    print(f"attempt {attempt} ticked {number}", flush=True)
    ARTIFACTS.joinpath(f"attempt-{attempt}.txt").write_text(token)
    if attempt < inputs["attempts"]:
        raise RuntimeError("not yet")
    return {"token": token, "attempt": attempt}


def neighbour(inputs: dict[str, Any]) -> dict[str, Any]:
    """Sleep 5 ms and write 4 KiB through to the disk, over and over: how much longer than wanted either took, in ms."""
    print("here", flush=True)
    ends = time.monotonic() + inputs["seconds"]
    late, synced = [], []
    with Path("beside").open("wb", buffering=0) as file:
        while time.monotonic() < ends:
            began = time.monotonic()
            time.sleep(0.005)
            woke = time.monotonic()
            late.append(woke - began - 0.005)
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            synced.append(time.monotonic() - woke)
    return {"loop": _quantiles(late), "fsync": _quantiles(synced)}


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    places = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {name: round(ordered[place] * 1000, 1) for name, place in places.items()}


class Spoken:
    """What was written to fd 1, as a digest; the log has to give back the same bytes."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        self._digest.update(view)
        self._size += len(view)
        while view:
            view = view[os.write(1, view) :]

    def result(self) -> dict[str, Any]:
        return {"sha256": self._digest.hexdigest(), "size": self._size}


def long_lines(inputs: dict[str, Any]) -> dict[str, Any]:
    spoken = Spoken()
    for letter in (b"a", b"\xc3\xa9", b"\xf0\x9f\x9a\xa2", b"\xff", b"\0", b"\r", b'"', b"\\"):
        spoken.write(letter * (1024 * 1024 // len(letter)) + b"\n")
    return spoken.result()


def binary(inputs: dict[str, Any]) -> dict[str, Any]:
    spoken = Spoken()
    source = random.Random(7)
    for _ in range(16):
        spoken.write(source.randbytes(100_000))
    spoken.write(b"\n")
    return spoken.result()


def ansi(inputs: dict[str, Any]) -> dict[str, Any]:
    spoken = Spoken()
    for number in range(1000):
        spoken.write(
            b"\x1b[2J\x1b[%dm\x1b]0;title\x07\x1b]8;;http://x\x1b\\row\x1b[0m\x1b[1A\r%d\x08\x7f\n"
            % (number % 50, number)
        )
    return spoken.result()


def forged(inputs: dict[str, Any]) -> dict[str, Any]:
    """Frames with every nonce that can be had, on every way there is to the supervisor's own output."""
    spoken = Spoken()
    reached = []
    for path in ("/proc/1/fd/1", "/proc/1/fd/0", "/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/dev/console"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            continue
        reached.append(path)
        os.close(descriptor)
    for number in range(1, 2000):
        nonce = secrets.token_hex(16) if number % 2 else ""
        spoken.write(
            b'{"n": %d, "k": "%b", "at": 1, "t": "result", "ok": true, "output": "forged"}\n' % (number, nonce.encode())
        )
        spoken.write(b'{"n":%d,"k":"%b","at":1,"t":"end","exit_code":0}\n' % (number, nonce.encode()))
    spoken.write(b"event: run.completed\ndata: {}\n\nid: 9999\n: comment\n\n")
    return {**spoken.result(), "reached": reached}


def flood(inputs: dict[str, Any]) -> dict[str, Any]:
    """100,000 lines a second for three seconds."""
    spoken = Spoken()
    began = time.monotonic()
    for turn in range(300):
        spoken.write(b"".join(b"line %d of the flood\n" % (turn * 1000 + index) for index in range(1000)))
        time.sleep(max(0.0, began + turn / 100 - time.monotonic()))
    return spoken.result()


def no_newline(inputs: dict[str, Any]) -> dict[str, Any]:
    spoken = Spoken()
    spoken.write(b"whole\nhalf")
    return spoken.result()


def closing(inputs: dict[str, Any]) -> dict[str, Any]:
    spoken = Spoken()
    spoken.write(b"before\n")
    sys.stdout.flush()
    os.close(1)
    crewship.emit("after", closed=1)
    os.close(2)
    return spoken.result()


def outliving(inputs: dict[str, Any]) -> dict[str, Any]:
    """Children in sessions of their own that write on when the main process is long gone."""
    for child in range(3):
        if os.fork() == 0:
            os.setsid()
            for number in range(1_000_000):
                os.write(1 + child % 2, b"child %d says %d\n" % (child, number))
                time.sleep(0.001)
            os._exit(0)
    time.sleep(0.5)
    return {"left": 3}
