"""Finding a value in whatever a platform leaves behind: as it is and in its usual forms, also in what is packed or encoded.

What is looked through is taken apart first: base64 is decoded and zstd and gzip are unpacked wherever they begin, a few levels
deep, so that neither Temporal's payloads nor an archive hides anything.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

import zstandard

_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_ZSTD, _GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"
_MAX_BYTES = 64 * 1024 * 1024
_LEVELS = 4


def needles(value: str) -> dict[str, bytes]:
    """The forms of ``value``: name → bytes. Of base64 what is the same whatever stands around it."""
    raw = value.encode()
    found = {
        "clear": raw, "URL": quote(raw, safe="").encode(), "URL path": quote(raw).encode(), "form": quote_plus(raw).encode(),
        "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(), "UTF-16": value.encode("utf-16-le"),
    }  # fmt: skip
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        whole = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(raw)) % 3]]
        found[f"base64 at {shift}"] = whole
        found[f"URL-safe base64 at {shift}"] = whole.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def taken_apart(data: bytes, levels: int = _LEVELS) -> Iterator[bytes]:
    """``data``, and all that is encoded or packed in it."""
    yield data
    if not levels:
        return
    inner: list[bytes] = []
    for match in _BASE64.finditer(data):
        text = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        for shift in range(4):  # a run may begin with characters that are not its own
            whole = text[shift : len(text) - ((len(text) - shift) % 4 == 1)]
            try:
                inner.append(base64.b64decode(whole + b"=" * (-len(whole) % 4)))
            except binascii.Error:
                continue
    for magic, unpack in ((_ZSTD, _unzstd), (_GZIP, _gunzip)):
        start = data.find(magic)
        while start >= 0:
            inner.append(unpack(data[start:]))
            start = data.find(magic, start + 1)
    for piece in inner:
        # What base64 gives of ordinary text is noise, in which no further layer is to be looked for.
        deeper = levels - 1 if piece.startswith((_ZSTD, _GZIP)) or _is_text(piece) else 0
        if piece:
            yield from taken_apart(piece, deeper)


def found_in(places: Iterable[tuple[str, bytes]], secrets: Mapping[str, str]) -> list[str]:
    """Where a secret is: ``its name (its form) in the place``."""
    wanted = [
        (f"{name} ({form})", needle) for name, value in secrets.items() for form, needle in needles(value).items()
    ]
    found = []
    for place, data in places:
        hits = {label for piece in taken_apart(data) for label, needle in wanted if needle in piece}
        found += [f"{label} in {place}" for label in sorted(hits)]
    return found


def _is_text(data: bytes) -> bool:
    start = data[:200]
    return sum(32 <= byte < 127 or byte in b"\n\t" for byte in start) > 0.9 * len(start)


def _unzstd(data: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)[:_MAX_BYTES]
    except zstandard.ZstdError:
        return b""


def _gunzip(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _MAX_BYTES)
    except zlib.error:
        return b""
