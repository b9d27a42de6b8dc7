"""Building a server program with the machine's Go toolchain, when it has one."""

import shutil
import tempfile
from pathlib import Path

from crewship.provision.commands import run
from crewship.provision.progress import Step

_BUILD_SECONDS = 1200
"""A cold build of Temporal takes 3 minutes on two cores; slow networks and small machines need more."""


def has_go() -> bool:
    """Whether a Go toolchain is on PATH."""
    return shutil.which("go") is not None


def install(package: str, into: Path, step: Step, *, log: Path) -> None:
    """``go install package`` and put the one binary it makes at ``into``, atomically.

    Args:
        package: Path and version, ``example.com/cmd/tool@v1.2.3``.
        into: The binary's final path.
        step: Where to show what it is at.
        log: File for the toolchain's output.

    Raises:
        ProvisionError: it could not be built.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".go-") as scratch:
        run(
            ["go", "install", "-v", package],
            step,
            log=log,
            timeout_seconds=_BUILD_SECONDS,
            env={"GOBIN": scratch},
            hint="go's log says why; the module proxy has to be reachable",
        )
        (binary,) = Path(scratch).iterdir()
        binary.replace(into)
