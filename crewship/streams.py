"""An iterator of byte chunks as a file, so that what is produced piece by piece can be stored without being held whole."""

import io
from collections.abc import Iterator
from typing import BinaryIO, cast


class _ChunkReader(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def as_file(chunks: Iterator[bytes]) -> BinaryIO:
    """A readable, not seekable file of ``chunks``."""
    return cast(BinaryIO, io.BufferedReader(_ChunkReader(chunks), 256 * 1024))
