"""A platform to measure: ``crewship dev`` on a data folder of its own, and an HTTP client with its key."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CREWSHIP = str(Path(sys.executable).with_name("crewship"))
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""The environment of commands that are measured: as installed ones, they have their bytecode after the first start."""


@dataclass
class Platform:
    """A running platform."""

    url: str
    key: str
    data: Path
    process: subprocess.Popen[str]

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def cli(self, *arguments: str) -> str:
        """Run a command, give its stdout; fails loudly."""
        done = subprocess.run(
            [CREWSHIP, *arguments],
            env={**COMPILED, "CREWSHIP_URL": self.url, "CREWSHIP_API_KEY": self.key},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"crewship {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def deploy(self, folder: Path) -> dict[str, Any]:
        """Deploy a project; the deployment that is current then."""
        self.cli("deploy", str(folder))
        return self.current(folder.name)

    def current(self, project: str) -> dict[str, Any]:
        """The deployment that is current."""
        listing = json.loads(self.cli("deployments", "list", "--project", project, "--json"))
        current: dict[str, Any] = next(d for d in listing["deployments"] if d["current"])
        return current

    def run(self, project: str, **input: Any) -> str:
        answer = self.http.post("/v1/runs", json={"project": project, "input": input})
        answer.raise_for_status()
        return str(answer.json()["id"])

    def wait(self, run_id: str) -> dict[str, Any]:
        """The run once it has ended."""
        while True:
            run: dict[str, Any] = self.http.get(f"/v1/runs/{run_id}", params={"wait": 30}).json()
            if run["status"] not in ("pending", "running"):
                return run

    def events(
        self, run_id: str, after: int = 0, accept: str = "text/event-stream"
    ) -> contextlib.AbstractContextManager[httpx.Response]:
        return self.http.stream(
            "GET", f"/v1/runs/{run_id}/events", params={"after": after}, headers={"Accept": accept}, timeout=None
        )

    @property
    def temporal(self) -> str:
        """Address of the workflow engine."""
        return f"127.0.0.1:{json.loads((self.data / 'dev.json').read_text())['temporal_port']}"

    def peak_memory_mb(self, child: str) -> float:
        """The most memory that a process had, in MB."""
        status = Path(f"/proc/{self.children[child]}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6

    @property
    def children(self) -> dict[str, int]:
        """Process ids of worker, api and temporal."""
        pids = {}
        listing = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        ).stdout
        for line in listing.splitlines():
            pid, _, command = line.strip().partition(" ")
            for name in ("worker", "api", "temporal"):
                if f"-m {name}" in command or (name == "temporal" and "start-dev" in command):
                    pids[name] = int(pid)
        return pids


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def platform(settings: Mapping[str, str] | None = None) -> Iterator[Platform]:
    """Start one, stop it in order, remove its state."""
    with tempfile.TemporaryDirectory(prefix="crewship-bench-") as folder:
        process = subprocess.Popen(
            [CREWSHIP, "dev", "--json", "--data", folder, "--port", str(free_port()), "--ui-port", str(free_port())],
            env={**os.environ, **(settings or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield Platform(ready["url"], (Path(folder) / "admin.key").read_text().strip(), Path(folder), process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def project(folder: Path, code: str, more: str = "") -> Path:
    """A plain Python project whose only module is ``code``; its name is the folder's. ``more`` goes into crewship.toml."""
    folder.mkdir()
    (folder / "main.py").write_text(code)
    (folder / "requirements.txt").write_text("")
    (folder / "crewship.toml").write_text(
        f'[project]\nname = "{folder.name}"\n[deployment]\nframework = "python"\nentrypoint = "main:kickoff"\n{more}'
    )
    return folder


def seconds_of(call: Any) -> float:
    """How long ``call()`` takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
