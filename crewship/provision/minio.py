"""MinIO's server, for tests of the S3 adapter: on PATH, in the cache, or built with Go (about 90 s, once)."""

import shutil
from pathlib import Path

from crewship.provision import go
from crewship.provision.commands import answers, locked
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""Pinned: MinIO publishes neither binaries nor images any more. ``deploy/minio/Dockerfile`` builds the same; a test compares."""
PACKAGE = f"github.com/minio/minio@{VERSION}"


def find_minio(cache: Path) -> Path | None:
    """The server's binary, or None when this machine has none yet."""
    found = shutil.which("minio")
    candidates = ([Path(found)] if found else []) + [cache / "bin" / "minio"]
    return next((path for path in candidates if path.is_file() and answers([path, "--version"])), None)


def ensure_minio(cache: Path, progress: Progress) -> Path:
    """The server's binary, built when it is missing.

    Raises:
        ProvisionError: it is not there and cannot be built.
    """
    with locked(cache, "minio"):
        if found := find_minio(cache):
            return found
        if not go.has_go():
            raise ProvisionError(
                "MinIO's server is not on this machine",
                hint="put `minio` on PATH, or install Go: then it is built",
            )
        binary = cache / "bin" / "minio"
        with progress.step("Building MinIO (once, about 90 s)") as step:
            go.install(PACKAGE, binary, step, log=cache / "logs" / "minio-build.log")
        return binary
