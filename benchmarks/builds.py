"""Deploys against what does the same by hand: a change of the source against ``docker build``, a first deploy against ``uv``."""

import json
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.platform import Platform, seconds_of
from benchmarks.report import Row, ms, paired_ratio

CHANGES = 5
FIRSTS = 3
_SETTLE_SECONDS = 30
EXAMPLES = Path(__file__).parent.parent / "examples"
_BUILDER = os.environ | {"DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false"}
"""The engine's own builder, which every installation has."""
_VENV = "/opt/venv"


def changes(where: Platform, folder: Path) -> list[Row]:
    """A line more in a source file, deployed, and built by a Dockerfile that makes the same image: dependencies are there, the
    source is copied and compiled."""
    crew = folder / "report-crew"
    shutil.copytree(EXAMPLES / "report-crew", crew)
    parent = _parent(where.deploy(crew)["image"])
    (crew / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
    (crew / "Dockerfile").write_text(
        f"FROM {parent}\nUSER root\nCOPY . /opt/source\nRUN {_VENV}/bin/python -m compileall -q /opt/source\n"
    )
    _docker_build(crew)
    ours, theirs = [], []
    for n in range(CHANGES):
        change(crew, f"{n} {secrets.token_hex(8)}")  # or the builder may have had it before
        _settled(where, crew.name)
        ours.append(seconds_of(lambda: where.cli("deploy", str(crew))))
        _settled(where, crew.name)
        theirs.append(seconds_of(lambda: _docker_build(crew)))
    _run("docker", "image", "rm", "-f", _TAG)
    return [
        Row(
            "source-only redeploy of report-crew, upload to current",
            ms(ours) / 1000, "s", 3,
            f"slowest of {CHANGES}: {max(ours):.1f} s; the command as a whole",
        ),
        Row(
            "the same, against `docker build` of the change with a warm cache",
            paired_ratio(ours, theirs), "×", 1.5,
            f"{ms(ours) / 1000:.2f} s against {ms(theirs) / 1000:.2f} s; it also imports the crew in its image",
        ),
    ]  # fmt: skip


def _settled(where: Platform, project: str) -> None:
    """Wait until the containers are there that are started ahead, for the current deployment's next run and the next build: they
    would disturb what is measured."""
    for name in (f"crewship-spare-{where.current(project)['id'].replace('_', '-')}", "crewship-bench-"):
        _await_container(name)
    time.sleep(0.5)


def _await_container(name: str, *filters: str) -> str:
    """Ids of containers whose names begin with ``name``, when there are any."""
    give_up = time.monotonic() + _SETTLE_SECONDS
    while not (found := _run("docker", "ps", "--quiet", "--filter", f"name={name}", *filters)):
        if time.monotonic() > give_up:
            raise RuntimeError(f"no container {name} is started ahead; is CREWSHIP_SPARE_CONTAINERS 0?")
        time.sleep(0.1)
    return found


def change(crew: Path, what: str) -> None:
    """A line more in a source file."""
    with next(crew.rglob("__init__.py")).open("a") as file:
        file.write(f"\n# {what}\n")


def first(where: Platform, folder: Path) -> list[Row]:
    """The CrewAI example without an image of its dependencies, against ``uv pip install`` of its lock in a container and the copy
    of that as an image. Both find their packages in the same cache of downloads."""
    crew = folder / "research-crew"
    shutil.copytree(EXAMPLES / "research-crew", crew)
    deployment = where.deploy(crew)
    lock = folder / "requirements.lock"
    lock.write_text(where.cli("deployments", "show", deployment["id"], "--lock"))
    base = deployment["base_image"]
    cache = _cache(where)
    ours, bare, compiled = [], [], []
    for n in range(FIRSTS):
        _forget(_parent(deployment["image"]))
        name = f"crewship-bench-{os.getpid()}-{n}"
        os.sync()  # or each pays for what the one before it has written
        bare.append(seconds_of(lambda name=name: _install(name, base, cache, lock)))
        os.sync()
        ours.append(seconds_of(lambda: where.cli("deploy", "--force", str(crew))))
        os.sync()
        compiled.append(seconds_of(lambda name=name: _install(name, base, cache, lock, "--compile-bytecode")))
        deployment = where.current("research-crew")
    return [
        Row(
            "first deploy of research-crew (CrewAI), against `uv pip install` of its lock and the copy of the image",
            paired_ratio(ours, bare), "×", 1.15,
            f"{ms(ours) / 1000:.1f} s against {ms(bare) / 1000:.1f} s, which compiles no bytecode; downloads in the cache",
        ),
        Row(
            "the same, against an install that compiles bytecode too",
            paired_ratio(ours, compiled), "×", None, f"{ms(ours) / 1000:.1f} s against {ms(compiled) / 1000:.1f} s",
        ),
    ]  # fmt: skip


_TAG = "crewship-bench/change"


def _docker_build(crew: Path) -> None:
    _run("docker", "build", "--quiet", "--network", "none", "--tag", _TAG, str(crew), env=_BUILDER)


def _install(name: str, base: str, cache: str, lock: Path, *options: str) -> None:
    settings, network = _network_settings(), os.environ.get("CREWSHIP_NETWORK", "crewship0")
    install = " ".join(["uv pip install --quiet", *options, "-r /tmp/requirements.lock"])
    script = f"uv venv --quiet {_VENV} && {install}"
    environment = {
        "UV_CACHE_DIR": "/cache/uv", "UV_LINK_MODE": "copy", "VIRTUAL_ENV": _VENV, "UV_PYTHON_DOWNLOADS": "never",
        "PATH": "/opt/crewship/bin:/usr/local/bin:/usr/bin:/bin", **settings,
    }  # fmt: skip
    flags = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
    if bundle := _bundle():
        flags += ["--volume", f"{bundle}:/tmp/ca.pem:ro"]
    try:
        _run(
            "docker", "create", "--name", name, "--user", "0:0", "--network", network, "--volume", f"{cache}:/cache:nocopy",
            *flags, "--entrypoint", "sh", base, "-euc", script,
        )  # fmt: skip
        _run("docker", "cp", str(lock), f"{name}:/tmp/requirements.lock")
        _run("docker", "start", "--attach", name)
        _run("docker", "commit", name, f"{name}:latest")
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)
        subprocess.run(["docker", "image", "rm", "--force", f"{name}:latest"], capture_output=True)


def _network_settings() -> dict[str, str]:
    """What builds are told of the index and of certificates."""
    settings = {}
    if url := os.environ.get("CREWSHIP_BUILD_INDEX_URL"):
        settings["UV_DEFAULT_INDEX"] = url
    if _bundle():
        settings["SSL_CERT_FILE"] = "/tmp/ca.pem"
    return settings


def _bundle() -> str:
    """File with the certificates that are trusted, where builds are given one: as ``crewship dev`` finds it."""
    return os.environ.get("CREWSHIP_BUILD_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE", "")


def _cache(where: Platform) -> str:
    """The volume with the packages that the project's builds have downloaded."""
    instance = json.loads((where.data / "dev.json").read_text())["instance"]
    return f"crewship-{instance}-cache-research-crew"


def _parent(image: str) -> str:
    """What an image was made on."""
    return _run("docker", "image", "inspect", "--format", "{{.Parent}}", image)


def _forget(image: str) -> None:
    """Take the names of an image of dependencies away, so that nobody finds it, and what was started ahead of it."""
    for bench in _await_container("crewship-bench-", "--filter", f"ancestor={image}").split():
        _run("docker", "rm", "--force", bench)
    for tag in json.loads(_run("docker", "image", "inspect", "--format", "{{json .RepoTags}}", image)):
        _run("docker", "image", "rm", tag)


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()
