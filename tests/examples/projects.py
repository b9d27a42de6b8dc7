"""The examples as tests use them: a fresh copy, its requirements in a cached venv, and a call of its entrypoint."""

import json
import os
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.runtime.venvs import FRAMEWORKS, python_of

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("report-crew", "research-crew", "graph-agent")

# What the platform sets for every crew, so that CrewAI neither phones home nor asks anything.
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_TESTING": "true",
}


@dataclass(frozen=True)
class Called:
    """How a call went; ``output`` is None when the entrypoint raised."""

    folder: Path
    output: Any
    custom: list[Any]
    stdout: str
    stderr: str
    exit_code: int


def config(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "crewship.toml").read_text())


def requirements(folder: Path) -> tuple[str, ...]:
    if (folder / "requirements.txt").exists():
        return tuple((folder / "requirements.txt").read_text().split())
    return tuple(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"])


def interpreter(folder: Path) -> Path:
    """A venv that has the project's requirements; the one with all frameworks when these are among them."""
    wanted = requirements(folder)
    return python_of(FRAMEWORKS if set(wanted) <= set(FRAMEWORKS) else wanted)


def copy(name: str, to: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__", "artifacts", "report.md", ".venv")
    return shutil.copytree(EXAMPLES / name, to / name, ignore=ignore)


def call(folder: Path, inputs: dict[str, Any], env: dict[str, str] | None = None) -> Called:
    """Call the entrypoint of the project in ``folder`` with nothing of this process' environment but PATH."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [
            str(interpreter(folder)),
            str(Path(__file__).with_name("entrypoint.py")),
            config(folder)["deployment"]["entrypoint"],
            json.dumps(inputs),
        ],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", **QUIET, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1] if done.returncode == 0 else '{"output": null, "custom": []}'
    return Called(folder, **json.loads(last), stdout=done.stdout, stderr=done.stderr, exit_code=done.returncode)
