"""The container engine: reachable, or installed and started where that is ours to do (root on Debian or Ubuntu).

A daemon that we start belongs to the machine: it outlives this process and every `crewship dev`. It runs with live-restore, so
that it may be restarted without ending what runs in containers, and with a containerd of its own: one that dockerd starts as
its child can hold up the next start for as long as it takes to die.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests

from crewship.docker_connection import DockerConnection
from crewship.errors import CrewshipError
from crewship.provision.commands import answers, locked, run
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress, Step

_ANSWER_SECONDS = 10
_WORK_SECONDS = 300
"""The longest silence of one call: the engine says nothing while it unpacks an image."""
_START_SECONDS = 60
_INSTALL_SECONDS = 900
_PACKAGES = ("docker.io", "iproute2", "iptables")
_DAEMON_CONFIG = Path("/etc/docker/daemon.json")
_CGROUPS = Path("/sys/fs/cgroup")
_PID_FILE = Path("/run/docker.pid")
_started: "list[subprocess.Popen[bytes]]" = []
"""Daemons that this process started. They outlive it; without a reference Python would complain that they do."""

FOREIGN_ERRORS = (docker.errors.DockerException, requests.RequestException, OSError)
"""What a call of the SDK's client may raise."""


@dataclass(frozen=True, slots=True)
class DaemonPaths:
    """Where a daemon that we start keeps its things.

    Attributes:
        run: Folder of its sockets and pid files.
        data: Its data folder; None: its own default.
        extra: More arguments for dockerd.
    """

    run: Path = Path("/run")
    data: Path | None = None
    extra: tuple[str, ...] = ()

    @property
    def socket(self) -> Path:
        return self.run / "docker.sock"


def connect(timeout_seconds: float = _WORK_SECONDS) -> Any:
    """The SDK's low-level client for the engine that the environment names (``DOCKER_HOST``), which answered.

    Args:
        timeout_seconds: Of the client that is returned; whether it answers at all is known sooner.

    Raises:
        ProvisionError: nothing answers there.
    """
    probe = DockerConnection(timeout_seconds=_ANSWER_SECONDS)
    try:
        probe.api.ping()
    except (CrewshipError, *FOREIGN_ERRORS):
        raise ProvisionError("the container engine cannot be reached", hint=_advice()) from None
    finally:
        probe.close()
    return DockerConnection(timeout_seconds=timeout_seconds).api


def ensure_engine(cache: Path, progress: Progress) -> Any:
    """A client (as of ``connect``) for a container engine that answers; installs and starts one where that is ours to do.

    Raises:
        ProvisionError: there is none, and it is not ours to install.
    """
    with contextlib.suppress(ProvisionError):
        return connect()
    with locked(cache, "engine"):
        try:
            return connect()
        except ProvisionError:
            if not is_ours_to_install():
                raise
        log = cache / "logs" / "engine-install.log"
        if shutil.which("dockerd") is None:
            with progress.step("Installing a container engine (docker.io)") as step:
                if not _DAEMON_CONFIG.exists():
                    _DAEMON_CONFIG.parent.mkdir(parents=True, exist_ok=True)
                    _DAEMON_CONFIG.write_text('{"live-restore": true}\n')
                install_packages(_PACKAGES, step, log=log)
        with progress.step("Starting the container engine") as step:
            if Path("/run/systemd/system").is_dir():
                run(["systemctl", "start", "docker"], step, log=log, timeout_seconds=_START_SECONDS)
            elif not _starts_already():
                _prepare_kernel(step, log)
                start_daemon(cache / "engine", DaemonPaths())
        return connect()


def _starts_already() -> bool:
    """Whether a daemon of this machine (one that its package started) runs, and answers within its time."""
    give_up = time.monotonic() + _START_SECONDS
    while _is_alive(_PID_FILE) and time.monotonic() < give_up:
        with contextlib.suppress(ProvisionError):
            connect().close()
            return True
        time.sleep(0.2)
    return False


def _is_alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def is_ours_to_install() -> bool:
    """Whether this is root on a Debian or Ubuntu, for the engine of this machine itself."""
    if os.environ.get("DOCKER_HOST") or platform.system() != "Linux" or os.geteuid() != 0:
        return False
    return shutil.which("apt-get") is not None


def install_packages(packages: Sequence[str], step: Step, *, log: Path, start: bool = True) -> None:
    """``apt-get install``, after an ``update`` when the lists are not enough.

    Args:
        packages: Their names.
        step: Where to show what it is at.
        log: File for what apt-get prints.
        start: Whether their services may be started where no systemd decides that.

    Raises:
        ProvisionError: apt-get failed.
    """
    env = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    if not start:
        env["RUNLEVEL"] = "1"  # in which invoke-rc.d starts nothing
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    try:
        run(install, step, log=log, timeout_seconds=_INSTALL_SECONDS, env=env)
        return
    except ProvisionError:
        step.detail("the package lists are old: updating them")
    # A source that is down is no reason to stop: what we need may be in another.
    with contextlib.suppress(ProvisionError):
        run(["apt-get", "update", "-q"], step, log=log, timeout_seconds=_INSTALL_SECONDS, env=env)
    run(install, step, log=log, timeout_seconds=_INSTALL_SECONDS, env=env, hint=f"run {' '.join(install)} and mend it")


def start_daemon(state: Path, paths: DaemonPaths) -> int:
    """Start containerd and dockerd, detached, and wait until the socket answers; dockerd's pid.

    Args:
        state: Folder for pid files and logs.
        paths: Where the daemon keeps its things.

    Raises:
        ProvisionError: it ended, or did not answer in time.
    """
    state.mkdir(parents=True, exist_ok=True)
    command = ["dockerd", "--host", f"unix://{paths.socket}", "--pidfile", str(paths.run / "docker.pid"), *paths.extra]
    if paths.data is not None:
        command += ["--data-root", str(paths.data), "--exec-root", str(paths.run / "docker")]
    if "live-restore" not in _daemon_config():  # a flag that the file has too stops the daemon
        command.append("--live-restore")
    if shutil.which("containerd"):
        command += ["--containerd", str(_start_containerd(state, paths))]
    log = state / "dockerd.log"
    began = log.stat().st_size if log.exists() else 0
    process = _spawn(command, log, state / "dockerd.pid")
    connection = DockerConnection(f"unix://{paths.socket}", _ANSWER_SECONDS)
    give_up = time.monotonic() + _START_SECONDS
    try:
        while True:
            with contextlib.suppress(CrewshipError, *FOREIGN_ERRORS):
                connection.api.ping()
                return process.pid
            ended = process.poll() is not None
            if ended or time.monotonic() > give_up:
                said = log.read_bytes()[began:].decode("utf-8", "replace").splitlines()[-8:]
                how = "ended" if ended else f"did not answer within {_START_SECONDS} s"
                raise ProvisionError(
                    f"the container engine {how} (log: {log})" + "".join(f"\n  {line[:300]}" for line in said),
                    hint="start dockerd by hand, or set DOCKER_HOST to an engine that runs",
                )
            time.sleep(0.1)
    finally:
        connection.close()


def _start_containerd(state: Path, paths: DaemonPaths) -> Path:
    """A containerd that listens, one that runs already or one of ours; its socket."""
    socket = paths.run / "containerd" / "containerd.sock"
    if answers(["ctr", "--address", str(socket), "--connect-timeout", "2s", "version"]):
        return socket
    root = (paths.data or Path("/var/lib")) / "containerd"
    command = ["containerd", "--address", str(socket), "--root", str(root), "--state", str(socket.parent)]
    socket.parent.mkdir(parents=True, exist_ok=True)
    _spawn(command, state / "containerd.log", state / "containerd.pid")
    return socket  # dockerd waits for it


def _spawn(command: list[str], log: Path, pid_file: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    pid_file.write_text(f"{process.pid}\n")
    _started.append(process)
    return process


def _prepare_kernel(step: Step, log: Path) -> None:
    """Make up for what a machine without a service manager may lack: cgroup mounts and an iptables that works."""
    if not any(_CGROUPS.iterdir()):
        step.detail("mounting cgroups")
        if "memory" in _unmounted_v2_controllers():
            run(["mount", "-t", "cgroup2", "cgroup2", str(_CGROUPS)], step, log=log, timeout_seconds=10)
        else:
            install_packages(["cgroupfs-mount"], step, log=log)
            run(["cgroupfs-mount"], step, log=log, timeout_seconds=30)
    # Old kernels have only the one table, new ones often only the other.
    works, legacy = answers(["iptables", "-t", "nat", "-S"]), "/usr/sbin/iptables-legacy"
    if not works and answers([legacy, "-t", "nat", "-S"]):
        run(["update-alternatives", "--set", "iptables", legacy], step, log=log, timeout_seconds=10)


def _unmounted_v2_controllers() -> set[str]:
    """Controllers that are in no version 1 hierarchy, so that version 2 would have them."""
    free = set()
    for line in Path("/proc/cgroups").read_text().splitlines():
        if not line.startswith("#"):
            name, hierarchy, _, enabled = line.split()
            if hierarchy == "0" and enabled == "1":
                free.add(name)
    return free


def _daemon_config() -> dict[str, Any]:
    try:
        config = json.loads(_DAEMON_CONFIG.read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _advice() -> str:
    """What to do about an engine that does not answer."""
    host = os.environ.get("DOCKER_HOST")
    if host:
        return f"DOCKER_HOST is {host}; nothing answers there"
    socket = Path("/var/run/docker.sock")
    if socket.exists() and not os.access(socket, os.W_OK):
        return "this user may not use it: add it to the group (`sudo usermod -aG docker $USER`) and log in again"
    if platform.system() != "Linux":
        return "start Docker Desktop, Colima or another engine, or set DOCKER_HOST"
    if socket.exists() or shutil.which("dockerd"):
        return "start it: `sudo systemctl start docker`"
    return (
        "install one (`sudo apt-get install docker.io`, or https://docs.docker.com/engine/install), or run as root once"
    )
