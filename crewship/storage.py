"""The object store's port. Adapters: ``crewship.folder_storage`` (embedded), ``crewship.s3_storage`` (MinIO, any S3).

Keys are ``/``-separated ASCII words made by us. A put is atomic: a reader sees the whole object or none. Both adapters pass
``tests/crewship/test_storage.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size_bytes: int


class ObjectStore(Protocol):
    """Blocking; async callers go through a thread.

    Every method raises ``Unavailable`` when the store cannot be reached, or is not there: only ``create`` makes it, so that one
    whose volume is not mounted does not pass for an empty one. ``open`` and ``stat`` raise ``ObjectMissing``.
    """

    def create(self) -> None:
        """Make the store; fine when it is there."""
        ...

    def put(self, key: str, data: bytes | BinaryIO) -> int:
        """Store ``data`` (a stream is read to its end, never held whole) under ``key``, durably; its size in bytes."""
        ...

    def open(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object's bytes from ``offset``, ``length`` of them at most, in chunks of about 64 KiB."""
        ...

    def stat(self, key: str) -> ObjectInfo: ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    def delete(self, key: str) -> None:
        """Remove; fine when it is not there."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything whose key begins with ``prefix``."""
        ...

    def check(self) -> None:
        """Raise ``Unavailable`` unless the store is there, answers and can be written to."""
        ...


class ObjectMissing(KeyError):
    """No object has that key."""


def read(store: ObjectStore, key: str, offset: int = 0, length: int | None = None) -> bytes:
    """The whole of an object (or of a range) that is known to be small."""
    return b"".join(store.open(key, offset, length))
