"""Runs an example under the real supervisor, without a container: the protocol of ``docs/reference/frames.md``, by hand."""

import contextlib
import json
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.examples.projects import config, interpreter

RUNTIME = Path(__file__).parents[2] / "runtime"
_NONCE = "n0nce"
_LONGEST_RUN_SECONDS = 120


@dataclass(frozen=True)
class Supervised:
    """A run's frames, in order, and the folder that was ``/app``."""

    frames: list[dict[str, Any]]
    app: Path

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["t"] == kind]

    @property
    def result(self) -> dict[str, Any]:
        (result,) = self.of("result")
        return result

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(frame["type"], frame["data"]) for frame in self.of("event")]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """(level, line) of everything that was printed or logged."""
        return [(frame["l"], line) for frame in self.of("log") for line in frame["text"].split("\n")]

    @property
    def artifacts(self) -> set[str]:
        return {frame["name"] for frame in self.of("artifact")}


def supervise(project: Path, inputs: dict[str, Any], env: dict[str, str] | None = None) -> Supervised:
    """Boot and run the project, acknowledging every frame, to the supervisor's own end."""
    python = interpreter(project)
    app, home = project.parent / "app", project.parent / "home"
    app.mkdir()
    home.mkdir(exist_ok=True)
    deployment = config(project)["deployment"]
    boot = {
        "op": "boot",
        "nonce": _NONCE,
        "env": env or {},
        "entrypoint": deployment["entrypoint"],
        "framework": deployment["framework"],
        "artifacts": config(project).get("run", {}).get("artifacts", []),
        "check": False,
        "log_limit_bytes": 1 << 20,
        "end_timeout_seconds": 10,
    }
    frames: list[dict[str, Any]] = []
    with subprocess.Popen(
        [str(python), "-I", "-S", str(RUNTIME / "supervisor.py")],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CREWSHIP_APP_DIR": str(app),
            "CREWSHIP_SOURCE_DIR": str(project),
            "CREWSHIP_VENV_PYTHON": str(python),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(_LONGEST_RUN_SECONDS, process.kill)
        watchdog.start()
        try:
            for command in (boot, {"op": "run", "run_id": "run_example", "input": inputs}):
                process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                frame = json.loads(line)
                assert frame["k"] == _NONCE
                assert frame["n"] == len(frames) + 1
                frames.append(frame)
                with contextlib.suppress(BrokenPipeError):  # it leaves with the acknowledgement of its last frame
                    process.stdin.write(json.dumps({"op": "ack", "n": frame["n"]}) + "\n")
                    process.stdin.flush()
        finally:
            watchdog.cancel()
    assert frames[-1]["t"] == "end"
    return Supervised(frames, app)
