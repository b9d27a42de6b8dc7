"""Temporal's development server: finding its binary, and how it is started.

The binary is looked for where it costs least: what the settings name, PATH, our cache, the Temporal SDK's own download, and
last a build with Go (about 3 minutes, once). ``server_arguments`` holds what was measured to matter: as it comes, the server
does 20 queue loads a second, and a timer takes a whole second.
"""

import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from crewship.provision import go
from crewship.provision.commands import answers, locked, run
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress

VERSION = "v1.5.1"
"""Later releases carry a ``replace`` line in go.mod and cannot be installed with ``go install``."""
PACKAGE = f"github.com/temporalio/cli/cmd/temporal@{VERSION}"
DOWNLOAD_HOST = "temporal.download"

_REACH_SECONDS = 3.0
_DOWNLOAD_SECONDS = 300.0

SEARCH_ATTRIBUTES = ("CrewshipProject", "CrewshipDeployment", "CrewshipStatus")
"""All keywords; the same as in ``crewship.temporal``, which this package does not load for three words."""

_PRAGMAS = ("journal_mode=wal", "synchronous=1")
"""A committed WAL frame survives kill -9 of the server; synchronous=2 would cost 10-15 ms a workflow."""

DYNAMIC_CONFIG = {
    "history.transferProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxPollRPS": "2000",
    "history.timerProcessorMaxTimeShift": '"100ms"',
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
    "matching.enableFairness": "true",
    "history.MaxBufferedQueryCount": "100",
    "history.longPollExpirationInterval": '"2s"',
    "system.namespaceCacheRefreshInterval": '"60s"',
    "system.enableActivityEagerExecution": "true",
}
"""Values are JSON. ``deploy/temporal/dynamic-config.yaml`` says the same for production; a test compares them."""


def find_temporal(cache: Path, configured: Path | None = None) -> Path | None:
    """The binary, or None when this machine has none yet.

    Args:
        cache: Crewship's cache folder.
        configured: What ``CREWSHIP_TEMPORAL_BIN`` names; nothing else is taken then.

    Raises:
        ProvisionError: the configured one does not work.
    """
    if configured is not None:
        if answers([configured, "--version"]):
            return configured
        raise ProvisionError(
            f"CREWSHIP_TEMPORAL_BIN names {configured}, which is no working Temporal CLI",
            hint="unset it and Crewship finds or makes one",
        )
    return next((path for path in _candidates(cache) if answers([path, "--version"])), None)


def _candidates(cache: Path) -> Iterator[Path]:
    if found := shutil.which("temporal"):
        yield Path(found)
    if (cached := cache / "bin" / "temporal").is_file():
        yield cached


def ensure_temporal(cache: Path, progress: Progress, configured: Path | None = None) -> Path:
    """The binary; downloaded or built when it is missing.

    Raises:
        ProvisionError: it is not there and cannot be had.
    """
    if found := find_temporal(cache, configured):
        return found
    with locked(cache, "temporal"):
        if found := find_temporal(cache):  # somebody else made it while we waited
            return found
        binary = cache / "bin" / "temporal"
        log = cache / "logs" / "temporal.log"
        if _reachable(DOWNLOAD_HOST, 443):
            try:
                with progress.step("Downloading Temporal") as step:
                    run(
                        [sys.executable, "-m", "crewship.provision.temporal_download", VERSION, binary],
                        step,
                        log=log,
                        timeout_seconds=_DOWNLOAD_SECONDS,
                    )
                return binary
            except ProvisionError:
                if not go.has_go():
                    raise
        if go.has_go():
            with progress.step("Building Temporal (once, about 3 minutes)") as step:
                go.install(PACKAGE, binary, step, log=log)
            return binary
    raise ProvisionError(
        "Temporal's CLI is not on this machine and cannot be downloaded",
        hint="put `temporal` on PATH (https://docs.temporal.io/cli), or install Go: then it is built",
    )


def server_arguments(binary: Path, *, port: int, ui_port: int, database: Path) -> list[str]:
    """The command line of a development server.

    Args:
        binary: Temporal's CLI.
        port: Of its gRPC frontend, on the loopback address.
        ui_port: Of its web UI, on the loopback address: neither asks who is calling.
        database: SQLite file that holds all workflows.
    """
    command = [str(binary), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    command += ["--ui-ip", "127.0.0.1", "--ui-port", str(ui_port), "--db-filename", str(database)]
    command += ["--log-level", "warn", "--log-format", "json"]
    for pragma in _PRAGMAS:
        command += ["--sqlite-pragma", pragma]
    for key, value in DYNAMIC_CONFIG.items():
        command += ["--dynamic-config-value", f"{key}={value}"]
    for name in SEARCH_ATTRIBUTES:
        command += ["--search-attribute", f"{name}=Keyword"]
    return command


def is_serving(binary: Path, address: str) -> bool:
    """Whether the frontend at ``address`` says that it is healthy."""
    return answers([binary, "operator", "cluster", "health", "--address", address], timeout_seconds=5)


def listens(address: str) -> bool:
    """Whether anything takes connections at ``host:port``."""
    host, _, port = address.rpartition(":")
    return port.isdigit() and _reachable(host, int(port))


def _reachable(host: str, port: int) -> bool:
    """Whether a connection can be made quickly; without a network that is known at once."""
    try:
        socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
    except OSError:
        return False
    return True
