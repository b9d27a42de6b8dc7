"""``make demo``: the main job on real input, in front of a reader, by the real CLI against a real platform.

Starts ``crewship dev`` with a data folder and ports of its own, deploys ``examples/report-crew``, runs it, changes it, rolls it
back, and checks every claim that it makes. Whatever happens it stops the platform and removes what it made: its temporary
folder, and what carries the label of its own installation in the engine. Caches stay: base image, dependency images.

Exit codes: 0 all claims held · 1 one did not · 130 interrupted.
"""

import contextlib
import difflib
import itertools
import json
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
CLI = [sys.executable, "-m", "cli.main"]
PROJECT = "report-crew"
READY_TIMEOUT_SECONDS = 1800  # the very first start may build a base image and a Temporal server
STOP_TIMEOUT_SECONDS = 30
PACE_SECONDS = 0.5  # between the crew's steps in the first run, so that the timeline is seen to be live

TERMINAL = sys.stdout.isatty()
COLOR = TERMINAL and not os.environ.get("NO_COLOR")


class ClaimBroken(Exception):
    """Something that the demo says did not happen."""


# --- what the reader sees ---------------------------------------------------------------------------------------------


def paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if COLOR else text


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def heading(text: str) -> None:
    say(f"\n{paint('──', '2')} {paint(text, '1')} {paint('─' * max(0, 90 - len(text)), '2')}\n")


def claim(true: bool, text: str) -> None:
    """Say ``text``, which has to be true."""
    if not true:
        raise ClaimBroken(text)
    say(f"{paint('✓', '32')} {text}")


def dim(lines: list[str]) -> None:
    for line in lines:
        say(paint(f"  │ {line}", "2"))


# --- the platform -----------------------------------------------------------------------------------------------------


class Platform:
    """``crewship dev`` as a child, with state, ports and an installation's name of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "platform"
        self.instance = f"demo-{os.getpid()}-{int(time.time()):x}"
        ports = ["--port", str(free_port()), "--ui-port", str(free_port())]
        env = os.environ | {
            "CREWSHIP_INSTANCE": self.instance,
            "CREWSHIP_NETWORK": f"crewdemo{os.getpid() % 10**7}",  # an interface's name has 15 characters at most
            # Commands find a running crewship dev by the user's state folder; nobody's should find this one.
            "XDG_STATE_HOME": str(folder / "state"),
        }
        # A session of its own: Ctrl-C is for the demo, which then stops the platform in order.
        self.process = subprocess.Popen(
            [*CLI, "dev", "--json", "--data", str(self.data), *ports],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue()
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            threading.Thread(target=self._read, args=(name, stream), daemon=True).start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._lines.put((name, line.rstrip()))
        self._lines.put((name, ""))

    def wait_until_ready(self) -> dict[str, str]:
        """What it says when it is ready; until then its own words, and the seconds."""
        begun = time.monotonic()
        while True:
            seconds = time.monotonic() - begun
            try:
                stream, line = self._lines.get(timeout=1)
            except queue.Empty:
                if TERMINAL:
                    say_over(f"  … {seconds:.0f} s")
                if seconds > READY_TIMEOUT_SECONDS:
                    raise ClaimBroken(f"the platform is ready within {READY_TIMEOUT_SECONDS} s") from None
                continue
            if stream == "out" and line.startswith("{"):
                say_over("")
                ready: dict[str, str] = json.loads(line)
                return ready
            if line:
                say_over("")
                dim([line])
            elif self.process.poll() is not None:
                raise ClaimBroken("crewship dev starts")

    def last_words(self) -> list[str]:
        """The ends of its processes' logs, for the case that something goes wrong."""
        lines = []
        for path in sorted(self.data.glob("logs/*.log")):
            lines += ["", f"{path.name}:", *path.read_text(errors="replace").splitlines()[-15:]]
        return lines

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def sweep(self) -> None:
        """Remove what this installation has in the engine, but no dependency image: that is a cache for all."""
        import docker
        from docker.errors import DockerException

        from crewship.engine import LABEL_DEPLOYMENT, LABEL_INSTANCE

        ours = f"{LABEL_INSTANCE}={self.instance}"
        try:
            with contextlib.closing(docker.from_env()) as engine:
                for container in engine.containers.list(all=True, filters={"label": ours}):
                    container.remove(force=True, v=True)
                for image in engine.images.list(filters={"label": [ours, LABEL_DEPLOYMENT]}):
                    engine.images.remove(image.id, force=True)
                for volume in engine.volumes.list(filters={"label": ours}):
                    volume.remove()
                for network in engine.networks.list(filters={"label": ours}):
                    network.remove()
        except DockerException as error:
            say(f"could not remove all that is in the engine: {error}")


def say_over(text: str) -> None:
    """A line that the next one replaces; nothing without a terminal."""
    if TERMINAL:
        sys.stdout.write(f"\r\x1b[K{text}")
        sys.stdout.flush()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the show ---------------------------------------------------------------------------------------------------------


class Show:
    """The reader's terminal, in the project's folder, with a platform behind it."""

    def __init__(self, folder: Path, ready: dict[str, str]) -> None:
        self.url, self.key = ready["url"], ready["api_key"]
        self.project = folder / PROJECT
        ignore = shutil.ignore_patterns("__pycache__", "artifacts", ".venv")
        shutil.copytree(ROOT / "examples" / PROJECT, self.project, ignore=ignore)
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)
        self.env = os.environ | {"CREWSHIP_URL": self.url, "CREWSHIP_API_KEY": self.key, "PYTHONPATH": str(ROOT)}
        if COLOR:
            self.env["FORCE_COLOR"] = "1"

    def crewship(self, *arguments: str) -> None:
        """Type a command and run it, in front of the reader."""
        say(f"{paint('$', '2')} {paint(f'crewship {shlex.join(arguments)}', '36')}")
        begun = time.monotonic()
        done = subprocess.run([*CLI, *arguments], cwd=self.project, env=self.env, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ClaimBroken(f"crewship {shlex.join(arguments)} succeeds (exit code {done.returncode})")
        say(paint(f"  {time.monotonic() - begun:.1f} s", "2"))

    def get(self, path: str, **query: str | int) -> Any:
        return self.http.get(f"/v1{path}", params=query).raise_for_status().json()

    def last_run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.get("/runs", project=PROJECT, limit=1)["runs"][0]
        return run

    def current(self) -> str:
        return str(self.get(f"/projects/{PROJECT}")["current_deployment_id"])

    def deploy(self) -> str:
        heading("Deploy: pack, upload, build, import once, switch")
        self.crewship("deploy")
        deployment = self.current()
        claim(self.get(f"/deployments/{deployment}")["status"] == "ready", f"{deployment} is current")
        return deployment

    def invoke(self, deployment: str) -> str:
        heading("Invoke: one container for this run, its events as they happen")
        given = real_input()
        (self.project.parent / "input.json").write_text(json.dumps(given))
        size = f"the README's {len(given['text']):,} characters and {len(given['rows'])} rows of file counts"
        say(f"The input is this repository: {size}.\n")
        self.crewship("invoke", "--stream", "--input", "@../input.json")
        run = self.last_run()
        claim(run["status"] == "succeeded" and run["deployment_id"] == deployment, f"{run['id']} ran on {deployment}")
        claim(run["output"]["rows"] == len(given["rows"]), "the crew measured every row it was given")
        return str(run["id"])

    def artifacts(self, run_id: str) -> None:
        heading("Artifacts: what the crew wrote, kept after its container is gone")
        self.crewship("runs", "artifacts", run_id)
        self.crewship("runs", "download", run_id, "report.md", "-o", "../report.md")
        report = (self.project.parent / "report.md").read_text()
        dim(report.splitlines()[:22])
        claim(report.startswith("# Report: The Crewship repository"), "report.md is whole and about the input")

    def change(self, before: str) -> str:
        heading("Change two lines and deploy again: only the source is built")
        edit(
            self.project / "report_crew" / "crew.py",
            {'VERSION = "1.0"': 'VERSION = "2.0"', '"Report: ': '"Field report: '},
        )
        self.crewship("deploy")
        deployment = self.current()
        claim(deployment != before, f"{deployment} is current now")
        self.answer("2.0", deployment)
        return deployment

    def roll_back(self, to: str) -> None:
        heading("Roll back: a switch of the pointer, nothing is built")
        self.crewship("deploy", "--rollback")
        claim(self.current() == to, f"{to} is current again")
        self.answer("1.0", to)

    def answer(self, version: str, deployment: str) -> None:
        self.crewship("invoke", "--input", '{"topic": "Which version answers?"}')
        run = self.last_run()
        same = run["output"]["version"] == version and run["deployment_id"] == deployment
        claim(same, f"version {version} answered, from {deployment}")

    def read_stream(self, run_id: str) -> None:
        heading("The first run's events again, by HTTP: numbered, without a gap")
        path = f"/v1/runs/{run_id}/events"
        command = f'curl -N {self.url}{path} -H "Authorization: Bearer $CREWSHIP_API_KEY"'
        say(f"{paint('$', '2')} {paint(command, '36')}")
        with self.http.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
            frames = "".join(response.iter_text()).strip().split("\n\n")
        dim([*"\n\n".join(frames[:3]).splitlines(), "", f"… {len(frames) - 4} more …", "", *frames[-1].splitlines()])
        ids = [int(number) for number in re.findall(r"^id: (\d+)$", "\n\n".join(frames), re.MULTILINE)]
        claim(ids == list(range(1, len(ids) + 1)), f"{len(ids)} events, none missing")
        claim("event: run.completed\n" in frames[-1], "the last one is run.completed, and the stream has closed")


def real_input() -> dict[str, Any]:
    """This repository, as text and rows."""
    rows = []
    for package in ("crewship", "workflows", "activities", "api", "worker", "cli", "runtime"):
        files = sorted((ROOT / package).rglob("*.py"))
        rows.append(
            {
                "package": package,
                "files": len(files),
                "lines": sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files),
            }
        )
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return {"topic": "The Crewship repository", "text": text, "rows": rows, "pace_seconds": PACE_SECONDS}


def edit(path: Path, changes: dict[str, str]) -> None:
    """Replace each key by its value, and show it as a diff."""
    before = after = path.read_text()
    for old, new in changes.items():
        if old not in after:
            raise ClaimBroken(f"{path.name} has {old!r}")
        after = after.replace(old, new)
    path.write_text(after)
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    for line in itertools.islice(diff, 2, None):
        if not line.startswith("@@"):
            say(paint(f"  {line}", "32" if line.startswith("+") else "31"))
    say()


@contextlib.contextmanager
def platform(folder: Path) -> Iterator[Show]:
    """A running platform and the show on it; afterwards both are gone, whatever happened."""
    heading("Start the platform: crewship dev")
    running = Platform(folder)
    show: Show | None = None
    try:
        ready = running.wait_until_ready()
        show = Show(folder, ready)
        claim(show.http.get("/readyz").status_code == 200, f"API at {show.url}, Temporal UI at {ready['temporal_ui']}")
        yield show
    except ClaimBroken:
        dim(running.last_words())
        raise
    finally:
        heading("Stop and clean up")
        if show is not None:
            show.http.close()
        running.stop()
        running.sweep()
        say("platform stopped; its data, containers, images, volumes and bridge are gone")


def main() -> int:
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="crewship-demo-") as name, platform(Path(name)) as show:
            first = show.deploy()
            run_id = show.invoke(first)
            show.artifacts(run_id)
            show.change(first)
            show.roll_back(first)
            show.read_stream(run_id)
    except ClaimBroken as broken:
        say(f"\n{paint('✗', '31')} not true: {broken}")
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    say(f"\n{paint('✓', '32')} All of it in {time.monotonic() - begun:.1f} s. Next:\n")
    for command, why in (
        (".venv/bin/crewship dev", "the platform, until Ctrl-C"),
        (
            "cd examples/research-crew && ../../.venv/bin/crewship deploy",
            "in another terminal: two CrewAI agents and a tool",
        ),
        ('../../.venv/bin/crewship invoke --stream --input \'{"topic": "durable execution"}\'', "watch them"),
        ("docs/guides/deploying.md", "a crew of your own"),
    ):
        say(f"  {paint(command, '36')}\n      {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
