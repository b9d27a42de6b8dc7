"""Runs the supervisor as it runs in a container, but as a plain process, and speaks its protocol.

Everything is awaited by what comes over the wire; a deadline is only there to say what was missing.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
NONCE = "nonce-of-this-run"
DEADLINE_SECONDS = 60.0

PYTHON = os.environ.get("CREWSHIP_TEST_RUNTIME_PYTHON", sys.executable)
"""The interpreter in the container, as both the base's and the venv's: the runtime has to run on 3.10 and later."""

Frame = dict[str, Any]


class Run:
    """A supervisor and the project that it runs.

    Args:
        folder: Where ``source`` and ``app`` are made.
        files: The project: relative path → content.
        python: The venv's interpreter, that of the tests by default.
        command: What starts the supervisor, before its path.
    """

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, str | bytes],
        python: str | Path = PYTHON,
        command: Iterable[str] = (PYTHON, "-I", "-S"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.source, self.app = folder / "source", folder / "app"
        for each in (self.source, self.app):
            each.mkdir(parents=True)
        for name, content in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.frames: list[Frame] = []
        self.lines: list[bytes] = []
        self.acknowledge = True
        self._rest = b""
        self.process = subprocess.Popen(
            [*command, str(RUNTIME / "supervisor.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "CREWSHIP_APP_DIR": str(self.app),
                "CREWSHIP_SOURCE_DIR": str(self.source),
                "CREWSHIP_VENV_PYTHON": str(python),
                **(environment or {}),
            },
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    # -- commands

    def send(self, op: str, **fields: Any) -> None:
        data = json.dumps({"op": op, **fields}).encode() + b"\n"
        while data:
            data = data[os.write(self.stdin, data) :]

    def boot(self, entrypoint: str = "main:kickoff", **fields: Any) -> None:
        defaults: dict[str, Any] = {
            "nonce": NONCE,
            "env": {},
            "framework": "python",
            "artifacts": [],
            "check": False,
            "log_limit_bytes": 1 << 30,
            "end_timeout_seconds": DEADLINE_SECONDS,
        }
        self.send("boot", entrypoint=entrypoint, **{**defaults, **fields})

    def run(self, value: Any = None) -> None:
        self.send("run", run_id="run_test", input={} if value is None else value)

    # -- frames

    def read(self, timeout_seconds: float = DEADLINE_SECONDS) -> list[Frame]:
        """The next frames; none when stdout has ended.

        Raises:
            TimeoutError: nothing came.
        """
        ready, _, _ = select.select([self.stdout], [], [], timeout_seconds)
        if not ready:
            raise TimeoutError(f"no frame in {timeout_seconds} s; so far: {self.told()}")
        data = os.read(self.stdout, 1 << 20)
        *lines, self._rest = (self._rest + data).split(b"\n")
        frames = []
        for line in lines:
            frame = json.loads(line)
            assert frame["k"] == NONCE
            self.lines.append(line)
            frames.append(frame)
        self.frames += frames
        if frames and self.acknowledge:
            self.send("ack", n=frames[-1]["n"])
        if not data:
            raise EOFError("the supervisor ended")
        return frames

    def until(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The first frame, read already or to come, that is ``wanted``."""
        looked_at = 0
        until = time.monotonic() + DEADLINE_SECONDS
        while True:
            for frame in self.frames[looked_at:]:
                if wanted(frame):
                    return frame
            looked_at = len(self.frames)
            try:
                self.read(max(0.1, until - time.monotonic()))
            except EOFError:
                raise AssertionError(f"ended without it: {self.told()}") from None

    def until_type(self, kind: str) -> Frame:
        return self.until(lambda frame: frame["t"] == kind)

    def until_line(self, text: str) -> Frame:
        return self.until(lambda frame: frame["t"] == "log" and text in frame["text"].split("\n"))

    def finish(self) -> Frame:
        """Read to the ``end`` frame, acknowledge it, and wait for the process: the frame."""
        end = self.until_type("end")
        if not self.acknowledge:
            self.send("ack", n=end["n"])
        self.process.wait(DEADLINE_SECONDS)
        assert [frame["n"] for frame in self.frames] == list(range(1, end["n"] + 1))
        return end

    # -- what was told

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["t"] == kind]

    def text(self, stream: str = "stdout") -> list[str]:
        """The lines of a stream, put together from their pieces."""
        lines: list[str] = []
        partial = False
        for frame in self.of("log"):
            if frame["s"] != stream:
                continue
            for line in frame["text"].split("\n"):
                if partial:
                    lines[-1] += line
                else:
                    lines.append(line)
                partial = frame.get("partial", False)
        return lines

    def events(self, *types: str) -> list[tuple[str, dict[str, Any]]]:
        found = [(frame["type"], frame["data"]) for frame in self.of("event")]
        return [each for each in found if not types or each[0] in types]

    @property
    def result(self) -> Frame:
        (result,) = self.of("result")
        return result

    @property
    def output(self) -> Any:
        assert self.result["ok"], self.result
        return self.result["output"]

    @property
    def error(self) -> dict[str, Any]:
        assert not self.result["ok"], self.result
        error: dict[str, Any] = self.result["error"]
        return error

    @property
    def artifacts(self) -> dict[str, int]:
        """Name → size, as told last."""
        return {frame["name"]: frame["size"] for frame in self.of("artifact")}

    def told(self) -> str:
        return "\n".join(str(frame)[:300] for frame in self.frames[-20:])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds, for what nothing tells of."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def complete(folder: Path, files: Mapping[str, str | bytes], value: Any = None, **options: Any) -> Run:
    """Run a project from start to end."""
    start = {key: options.pop(key) for key in ("python", "command", "environment") if key in options}
    with Run(folder, files, **start) as run:
        run.boot(**options)
        run.run(value)
        run.finish()
    return run


def crew(code: str) -> dict[str, str | bytes]:
    """A project of one module, ``main.py``."""
    return {"main.py": code}
