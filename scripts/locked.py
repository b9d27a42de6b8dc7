"""Prints a package of ``uv.lock`` as a requirement with its hashes, to install uv itself: ``python scripts/locked.py uv``.

Standard library only: it runs before there is anything else.
"""

import sys
import tomllib
from pathlib import Path

LOCK = Path(__file__).parent.parent / "uv.lock"


def requirement(name: str, lock: Path = LOCK) -> str:
    """``name==version --hash=... ...``.

    Raises:
        LookupError: the lock file has no such package, or no hash of it.
    """
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    package = next((package for package in packages if package["name"] == name), None)
    if package is None:
        raise LookupError(f"{lock.name} has no package {name}")
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    hashes = sorted({f"--hash={file['hash']}" for file in files})
    if not hashes:
        raise LookupError(f"{lock.name} has no hash of {name}")
    return " ".join([f"{name}=={package['version']}", *hashes])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(requirement(name))  # noqa: T201
