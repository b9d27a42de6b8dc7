"""Building a server program with the machine's Go toolchain, when it has one."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from crewship.provision.commands import answers, locked, run
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress, Step

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


@dataclass(frozen=True, slots=True)
class Program:
    """One that is on PATH, in the cache, or built.

    Attributes:
        name: Of the binary, which says its version when it is asked.
        package: Path and version, as ``install`` takes it.
        called: What people call it.
        takes: How long a build takes, in words.
    """

    name: str
    package: str
    called: str
    takes: str

    def find(self, cache: Path) -> Path | None:
        """The binary, or None when this machine has none yet."""
        found = shutil.which(self.name)
        candidates = ([Path(found)] if found else []) + [cache / "bin" / self.name]
        return next((path for path in candidates if path.is_file() and answers([path, "--version"])), None)

    def ensure(self, cache: Path, progress: Progress) -> Path:
        """The binary, built when it is missing.

        Raises:
            ProvisionError: it is not there and cannot be built.
        """
        with locked(cache, self.name):
            if found := self.find(cache):
                return found
            if not has_go():
                raise ProvisionError(
                    f"{self.called} is not on this machine",
                    hint=f"put `{self.name}` on PATH, or install Go: then it is built",
                )
            binary = cache / "bin" / self.name
            with progress.step(f"Building {self.called} (once, about {self.takes})") as step:
                install(self.package, binary, step, log=cache / "logs" / f"{self.name}-build.log")
            return binary
