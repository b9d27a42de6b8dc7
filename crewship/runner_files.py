"""The runner's files, as they are installed here and as they are put into images."""

import hashlib
import importlib.util
import py_compile
import sys
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path


def runner_files() -> list[Path]:
    """The sources."""
    folder = Path(str(resources.files("runtime")))
    return sorted(path for path in folder.iterdir() if path.suffix == ".py")


def digest() -> str:
    """SHA-256 over names and contents."""
    sha256 = hashlib.sha256()
    for path in runner_files():
        content = path.read_bytes()
        sha256.update(f"{path.name} {len(content)} ".encode() + content)
    return sha256.hexdigest()


def bytecode(python: str, folder: str) -> dict[str, bytes]:
    """The files' bytecode with unchecked hashes, by its names below ``folder``; nothing when this Python makes another one.

    Args:
        python: Version of the Python that will run it, such as ``3.11.2``.
        folder: Where the sources will be.
    """
    return _bytecode(folder) if python.split(".")[:2] == [str(part) for part in sys.version_info[:2]] else {}


@cache
def _bytecode(folder: str) -> dict[str, bytes]:
    compiled = {}
    with tempfile.NamedTemporaryFile(suffix=".pyc") as file:
        for path in runner_files():
            # As a Python without options reads it, whichever this one was given.
            name = importlib.util.cache_from_source(path.name, optimization="")
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(
                str(path), file.name, f"{folder}/{path.name}", doraise=True, optimize=0, invalidation_mode=mode
            )
            compiled[name] = Path(file.name).read_bytes()
    return compiled
