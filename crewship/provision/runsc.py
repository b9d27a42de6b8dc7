"""gVisor's ``runsc``, for tests of runs under another kernel: on PATH, in the cache, or built with Go (about a minute, once)."""

import shutil
from pathlib import Path

from crewship.provision import go
from crewship.provision.commands import answers, locked
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress

PACKAGE = "gvisor.dev/gvisor/runsc@v0.0.0-20260905035102-160fafc42237"
"""Pinned to a commit of gVisor's ``go`` branch, the only one that Go's own tools can build."""


def find_runsc(cache: Path) -> Path | None:
    """The binary, or None when this machine has none yet."""
    found = shutil.which("runsc")
    candidates = ([Path(found)] if found else []) + [cache / "bin" / "runsc"]
    return next((path for path in candidates if path.is_file() and answers([path, "--version"])), None)


def ensure_runsc(cache: Path, progress: Progress) -> Path:
    """The binary, built when it is missing.

    Raises:
        ProvisionError: it is not there and cannot be built.
    """
    with locked(cache, "runsc"):
        if found := find_runsc(cache):
            return found
        if not go.has_go():
            raise ProvisionError(
                "gVisor's runsc is not on this machine",
                hint="put `runsc` on PATH, or install Go: then it is built",
            )
        binary = cache / "bin" / "runsc"
        with progress.step("Building gVisor's runsc (once, about a minute)") as step:
            go.install(PACKAGE, binary, step, log=cache / "logs" / "runsc-build.log")
        return binary
