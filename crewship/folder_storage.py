"""The object store as a folder, for a platform on one machine.

A put writes an unfinished file, syncs it, renames it to its place and syncs the folder: when it returns the object is there
whatever happens to the machine, and before that nothing of it is seen. Unfinished files are in a folder of their own (no key
begins with a dot); what a crash leaves there, ``check`` removes after a day. An open file goes on being readable when it is
replaced or deleted, so readers need no locks.

The folder of unfinished files is also what tells a store from a folder that only has its place, as the mount point of a volume
that is not mounted.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from crewship.errors import Unavailable
from crewship.storage import ObjectInfo, ObjectMissing

CHUNK_BYTES: Final = 64 * 1024
_WORD = r"(?!\.)[A-Za-z0-9._-]{1,255}"
_KEY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_PREFIX = re.compile(rf"(?:{_WORD}/)*(?:{_WORD})?")
_MAX_KEY_BYTES: Final = 1024  # S3's limit
_LEFT_BEHIND_SECONDS: Final = 86_400.0


def validated_key(key: str) -> str:
    """``key`` itself.

    Raises:
        ValueError: it is not ``/``-separated words of ASCII letters, digits, ``.``, ``_`` and ``-`` that do not begin with a dot.
            Keys are made by us (``crewship.objects``), so this is a mistake in our own code.
    """
    if len(key) > _MAX_KEY_BYTES or not _KEY.fullmatch(key):
        raise ValueError(f"not an object key: {key!r}")
    return key


def validated_prefix(prefix: str) -> str:
    """``prefix`` itself; as :func:`validated_key`, but it may be empty or end with ``/``."""
    if len(prefix) > _MAX_KEY_BYTES or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"not a key prefix: {prefix!r}")
    return prefix


class FolderStore:
    """An ``ObjectStore`` under ``root``. No key may be another one's folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / ".unfinished"

    def create(self) -> None:
        with _translated():
            self._unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, key: str, data: bytes | BinaryIO) -> int:
        target = self._root / validated_key(key)
        unfinished = self._unfinished / secrets.token_hex(16)
        try:
            with _translated():
                file = unfinished.open("xb")
            with file:
                size_bytes = _copy(data, file)
                with _translated():
                    os.fsync(file.fileno())
            with _translated():
                made = _move(self._root, unfinished, target)
                # The innermost first: on a journaling file system its commit holds the others, which then cost nothing.
                for folder in (target.parent, *made):
                    with contextlib.suppress(FileNotFoundError):  # deleted already by somebody else
                        _sync_folder(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
        return size_bytes

    def open(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self._root / validated_key(key)
        with self._finding(key):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        chunks = _chunks(descriptor, offset, length)
        # Up to its first yield, so that the descriptor is closed also when nobody reads.
        next(chunks)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            chunks.close()
            raise ObjectMissing(key)
        return chunks

    def stat(self, key: str) -> ObjectInfo:
        path = self._root / validated_key(key)
        with self._finding(key):
            found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissing(key)
        return ObjectInfo(key, found.st_size)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder, slash, word = validated_prefix(prefix).rpartition("/")
        with _translated():
            self._unfinished.stat()
            yield from _walk(self._root / folder, folder + slash, word)

    def delete(self, key: str) -> None:
        path = self._root / validated_key(key)
        with contextlib.suppress(ObjectMissing), self._finding(key):
            path.unlink()
            with contextlib.suppress(OSError):
                # Folders that are empty now; the first that is not ends it.
                for folder in path.relative_to(self._root).parents[:-1]:
                    (self._root / folder).rmdir()

    def delete_prefix(self, prefix: str) -> None:
        for found in list(self.list(prefix)):
            self.delete(found.key)

    def check(self) -> None:
        """Also removes what crashes have left behind."""
        with _translated():
            probe = self._unfinished / secrets.token_hex(16)
            probe.touch()
            probe.unlink()
            expired = time.time() - _LEFT_BEHIND_SECONDS
            for path in self._unfinished.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < expired:
                        path.unlink()

    @contextlib.contextmanager
    def _finding(self, key: str) -> Iterator[None]:
        """An object that is not there as ``ObjectMissing``; when the store is not there, nothing can be said of its objects."""
        with _translated():
            try:
                yield
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._unfinished.stat()
                raise ObjectMissing(key) from None


def _move(root: Path, unfinished: Path, target: Path) -> list[Path]:
    """Rename, making folders as needed; the folders that got a new one, innermost first."""
    made: set[Path] = set()
    while True:
        try:
            unfinished.rename(target)
            return sorted(made, key=lambda folder: len(folder.parts), reverse=True)
        except FileNotFoundError:
            if not unfinished.exists():
                raise
        # Again as often as a delete in another thread removes a folder for being empty before ours is in it.
        with contextlib.suppress(FileNotFoundError):
            for folder in reversed(target.relative_to(root).parents[:-1]):  # never the root
                if not (root / folder).exists():
                    (root / folder).mkdir(exist_ok=True)
                    made.add((root / folder).parent)


def _copy(data: bytes | BinaryIO, file: BinaryIO) -> int:
    """Write ``data``; errors of a stream that is read are its own, those of the disk are the store's."""
    if isinstance(data, bytes):
        with _translated():
            file.write(data)
            file.flush()
        return len(data)
    while chunk := data.read(1024 * 1024):
        with _translated():
            file.write(chunk)
    with _translated():
        file.flush()
    return file.tell()


def _chunks(descriptor: int, offset: int, length: int | None) -> Generator[bytes, None, None]:
    """An empty piece, then those of the file."""
    try:
        yield b""
        left = length
        while left is None or left > 0:
            with _translated():
                chunk = os.pread(descriptor, CHUNK_BYTES if left is None else min(CHUNK_BYTES, left), offset)
            if not chunk:
                return
            offset += len(chunk)
            left = None if left is None else left - len(chunk)
            yield chunk
    finally:
        os.close(descriptor)


def _walk(folder: Path, prefix: str, word: str) -> Iterator[ObjectInfo]:
    """Objects under ``folder`` whose name in it begins with ``word``, in the order of their keys."""
    try:
        with os.scandir(folder) as scan:
            found = [entry for entry in scan if entry.name.startswith(word) and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    # A folder's keys go on with a slash, and are sorted by that.
    for entry in sorted(found, key=lambda entry: entry.name + "/" * entry.is_dir()):
        if entry.is_dir():
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", "")
        else:
            with contextlib.suppress(FileNotFoundError):
                yield ObjectInfo(f"{prefix}{entry.name}", entry.stat().st_size)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The system's errors as the port's."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unavailable(
            "The object store's folder is not there.", hint="Is its volume mounted? `crewship doctor` tells more."
        ) from error
    except OSError as error:
        raise Unavailable(
            f"The object store's folder cannot be used: {error.strerror}.",
            hint="Check the disk; `crewship doctor` tells more.",
        ) from error
