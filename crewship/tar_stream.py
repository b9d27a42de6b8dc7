"""A strict reader of .tar.gz streams that come from strangers.

``tarfile`` takes whatever looks like an archive: it goes on silently after damage, follows headers of any length into memory, and
knows sparse files, links and devices. This one reads what a project can be made of (regular files and folders, in the ustar,
pax and GNU formats), says of everything else which member it is, holds 64 KiB at a time and stops at its limits while the stream
is still coming in. Both the check of an upload and its unpacking read through here, so what was checked is what is unpacked.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from crewship.errors import InvalidSource, TooLarge

_BLOCK: Final = 512
_CHUNK: Final = 64 * 1024
_MAX_EXTENSION_BYTES: Final = 64 * 1024
"""Of a pax header or a GNU long name; a name of 4096 bytes and what tools add needs a tenth."""
_MAX_EXTENSIONS: Final = 4
"""Headers before one member (a pax and a GNU one each for name and link are the most that tools write)."""
_RATIO: Final = 100
"""Of unpacked to packed size. Source packs 3 to 20 times, logs 30; more than this over the slack is a bomb."""
_RATIO_SLACK_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an upload may be. ``unpacked_bytes`` counts the archive's headers too."""

    packed_bytes: int = 200 * 1024 * 1024
    unpacked_bytes: int = 10 * 200 * 1024 * 1024
    files: int = 20_000

    @classmethod
    def of(cls, max_source_bytes: int) -> "Limits":
        """Those that follow from the setting ``max_source_bytes``: unpacked ten times that."""
        return cls(max_source_bytes, 10 * max_source_bytes)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of the archive; ``name`` is raw, as it came."""

    name: bytes
    is_folder: bool
    is_executable: bool
    size_bytes: int


class TarStream:
    """Reads ``stream`` once, member by member.

    Raises (all methods):
        InvalidSource: it is no gzip, no tar, damaged, cut off, or has a member that is neither file nor folder.
        TooLarge: a limit is reached; nothing more is read then.
    """

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._digest = hashlib.sha256()
        self._gunzip = zlib.decompressobj(wbits=31)
        self._buffer = bytearray()
        self._left = 0
        """Bytes of the current member that were not read, with its padding."""
        self._padding = 0
        self.size_bytes = 0
        """Of the packed stream, as far as it was read."""
        self.unpacked_bytes = 0

    @property
    def sha256(self) -> str:
        """Digest of the packed stream; of all of it after the last member."""
        return self._digest.hexdigest()

    def members(self) -> Iterator[Member]:
        """Each member; its data may be read (:meth:`data`) before the next is asked for."""
        while True:
            for _ in self.data():
                pass
            self._take(self._padding)
            member = self._next()
            if member is None:
                self._finish()
                return
            self._left = 0 if member.is_folder else member.size_bytes
            self._padding = -self._left % _BLOCK
            yield member

    def data(self) -> Iterator[bytes]:
        """The current member's bytes, in pieces."""
        while self._left:
            piece = self._take(min(self._left, _CHUNK))
            self._left -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        long_name: bytes | None = None
        pax: dict[bytes, bytes] = {}
        for _ in range(_MAX_EXTENSIONS + 1):
            header = self._take(_BLOCK, at_the_end_of_a_member=long_name is None and not pax)
            if not header or not any(header):
                return None
            kind, size_bytes = header[156:157], _number(header[124:136])
            if not _has_right_checksum(header) or size_bytes < 0:
                raise InvalidSource("The upload is not a tar archive, or it is damaged.", hint=HOW_TO_PACK)
            if kind not in (b"x", b"g", b"L"):
                return self._member(header, kind, size_bytes, long_name, pax)
            if size_bytes > _MAX_EXTENSION_BYTES:
                raise InvalidSource("A member of the archive has a header that is too long.", hint=HOW_TO_PACK)
            extension = self._take(size_bytes)
            self._take(-size_bytes % _BLOCK)
            if kind == b"L":
                long_name = extension.partition(b"\0")[0]
            elif kind == b"x":
                pax |= _pax_records(extension)
            elif {b"path", b"size", b"linkpath"} & _pax_records(extension).keys():
                raise InvalidSource("The archive has a global header that renames its members.", hint=HOW_TO_PACK)
        raise InvalidSource("A member of the archive has too many headers.", hint=HOW_TO_PACK)

    def _member(
        self, header: bytes, kind: bytes, size_bytes: int, long_name: bytes | None, pax: dict[bytes, bytes]
    ) -> Member:
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        name = pax.get(b"path", name if long_name is None else long_name)
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            kind = b"S"
        if b"size" in pax:
            if not pax[b"size"].isdigit() or len(pax[b"size"]) > 18:
                raise InvalidSource(f"{shown(name)} has no proper size in the archive.", hint=HOW_TO_PACK)
            size_bytes = int(pax[b"size"])
        if kind in _REFUSED:
            raise InvalidSource(f"{shown(name)} is {_REFUSED[kind]}.", hint=_HINTS.get(kind))
        if kind not in (b"0", b"\0", b"5", b"7"):
            raise InvalidSource(f"{shown(name)} is of a type that cannot be unpacked.", hint=_HINTS[b"3"])
        is_folder = kind == b"5" or name.endswith(b"/")  # the oldest tars tell a folder by its slash
        return Member(name, is_folder, bool(_number(header[100:108]) & 0o100), size_bytes)

    def _finish(self) -> None:
        """Read to the end of the stream: only padding may come."""
        while piece := self._take(_CHUNK, at_most=True):
            if any(piece):
                raise InvalidSource("The archive is damaged: there is data after its end.", hint=HOW_TO_PACK)
        if not self._gunzip.eof:
            raise InvalidSource(_CUT_OFF, hint=_WHOLE)
        if self._gunzip.unused_data or self._read():
            raise InvalidSource("The upload is damaged: there is data after the archive.", hint=_WHOLE)

    def _take(self, size: int, *, at_most: bool = False, at_the_end_of_a_member: bool = False) -> bytes:
        """``size`` unpacked bytes; fewer only at the stream's end, where that may be."""
        while len(self._buffer) < size and not self._gunzip.eof:
            packed = self._gunzip.unconsumed_tail or self._read()
            try:
                unpacked = self._gunzip.decompress(packed, _CHUNK)
            except zlib.error:
                raise InvalidSource("The upload is not a gzip file, or it is damaged.", hint=HOW_TO_PACK) from None
            # Without input it may still give what it had no room for before.
            if not packed and not unpacked and not self._gunzip.eof:
                raise InvalidSource(_CUT_OFF if self.size_bytes else "The upload is empty.", hint=HOW_TO_PACK)
            self._buffer += unpacked
            self.unpacked_bytes += len(unpacked)
            self._check_limits()
        if len(self._buffer) < size and not at_most and not (at_the_end_of_a_member and not self._buffer):
            raise InvalidSource(_CUT_OFF, hint=_WHOLE)
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read(self) -> bytes:
        packed = self._stream.read(_CHUNK)
        self._digest.update(packed)
        self.size_bytes += len(packed)
        if self.size_bytes > self._limits.packed_bytes:
            raise TooLarge(
                f"The upload is larger than {mebibytes(self._limits.packed_bytes)}.",
                code="source_too_large",
                hint=_EXCLUDE,
            )
        return packed

    def _check_limits(self) -> None:
        if self.unpacked_bytes > self._limits.unpacked_bytes:
            raise TooLarge(
                f"The upload unpacks to more than {mebibytes(self._limits.unpacked_bytes)}.",
                code="source_too_large",
                hint=_EXCLUDE,
            )
        if self.unpacked_bytes > _RATIO_SLACK_BYTES + _RATIO * self.size_bytes:
            raise TooLarge(
                f"The upload unpacks to more than {_RATIO} times its size.", code="source_too_large", hint=_EXCLUDE
            )


def shown(name: bytes | str) -> str:
    """A member's name for a message: control characters and what is not UTF-8 escaped, not too long."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f"“{text}”" if len(text) <= 200 else f"“{text[:120]}…{text[-60:]}”"


def mebibytes(size_bytes: int) -> str:
    """A size for a message: ``200 MiB``, ``1.5 MiB``, ``0.1 KiB``."""
    unit, factor = ("MiB", 1 << 20) if size_bytes >= 1 << 20 else ("KiB", 1 << 10)
    return f"{size_bytes / factor:.1f}".removesuffix(".0") + f" {unit}"


HOW_TO_PACK: Final = "`crewship deploy` packs it right; by hand: tar -czf source.tar.gz -C PROJECT ."
_EXCLUDE: Final = "Leave out what the crew does not need: [build] exclude in crewship.toml, or .gitignore."
_CUT_OFF: Final = "The upload is cut off."
_WHOLE: Final = "Send one archive, whole and with nothing behind it; `crewship deploy` does."
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a link",
    b"K": "a link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_HINTS: Final = {
    b"1": "Pack with --hard-dereference; `crewship deploy` does.",
    b"2": "Pack the file that it means (tar -h); `crewship deploy` does so for links that stay inside the project.",
    b"K": "Pack the file that it means (tar -h); `crewship deploy` does so for links that stay inside the project.",
    b"3": "Only regular files and folders can be uploaded.",
    b"4": "Only regular files and folders can be uploaded.",
    b"6": "Only regular files and folders can be uploaded.",
    b"S": "Pack without --sparse.",
}


def _number(field: bytes) -> int:
    """A header's number: octal, or GNU's base 256; -1 when it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(0x30 <= digit <= 0x37 for digit in digits) else -1


def _has_right_checksum(header: bytes) -> bool:
    """The sum of all bytes, with the checksum's own as blanks; some old tars took them as signed."""
    found = _number(header[148:156])
    blanked = header[:148] + b" " * 8 + header[156:]
    unsigned = sum(blanked)
    return found == unsigned or found == unsigned - 256 * sum(byte > 0x7F for byte in blanked)


def _pax_records(extension: bytes) -> dict[bytes, bytes]:
    """``<length> <key>=<value>\\n``, one after another; ``length`` counts its own record."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(extension):
        blank = extension.find(b" ", position, position + 8)
        digits = extension[position:blank] if blank > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        if not blank < end <= len(extension) or extension[end - 1 : end] != b"\n":
            raise InvalidSource("A member of the archive has a damaged header.", hint=HOW_TO_PACK)
        key, equals, value = extension[blank + 1 : end - 1].partition(b"=")
        if not equals:
            raise InvalidSource("A member of the archive has a damaged header.", hint=HOW_TO_PACK)
        records[key] = value
        position = end
    return records
