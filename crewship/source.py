"""Intake of a project's upload: what can be seen from the archive alone is checked here, before a deployment is made.

:func:`check` reads the stream once, while it comes in, and refuses what could not be unpacked safely (names that leave the
folder, links, devices, doubled names, bombs); it keeps the few small files that the platform itself reads. :func:`unpack`
goes by the same rules once more, so an archive that was not checked, or has changed, cannot do harm either.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from crewship.config_file import FILE_NAME
from crewship.errors import InvalidConfig, InvalidSource, TooLarge
from crewship.tar_stream import HOW_TO_PACK, Limits, TarStream, mebibytes, shown

__all__ = [
    "Limits", "SourceFile", "SourceSummary", "case_warnings", "check", "files_of", "unpack", "validated_name",
]  # fmt: skip

_MAX_PART_BYTES: Final = 255
_MAX_NAME_BYTES: Final = 4096
_MAX_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Of one file that is kept in memory; the largest lock files of real projects have 1 to 2 MB."""
_MAX_KEPT_TOTAL_BYTES: Final = 32 * 1024 * 1024
_MAX_CONFIG_BYTES: Final = 256 * 1024
_MAX_WARNINGS: Final = 10
_UNPACKED_AT: Final = 315_619_200
"""Modification time of what is unpacked, so that images do not depend on when they were built: 2 January 1980, because wheels
are zip files, which cannot hold earlier times in any time zone."""

_DEPENDENCY_FILE = re.compile(
    r"(?:requirements|constraints)[^/]*\.(?:txt|in)|requirements/[^/]+\.(?:txt|in)|"
    r"pyproject\.toml|uv\.lock|pylock(?:\.[^/]+)?\.toml|poetry\.lock|setup\.py|setup\.cfg|\.python-version"
)


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What an upload is."""

    sha256: str
    """Of the packed stream."""
    size_bytes: int
    unpacked_bytes: int
    names: frozenset[str]
    """Of all files."""
    config: bytes
    """Content of crewship.toml."""
    dependencies: Mapping[str, bytes]
    """Name → content of the files at the root that say which packages and which Python are wanted."""
    warnings: tuple[str, ...]

    def has_module(self, module: str) -> bool:
        """Whether the upload has the file (or the folder) of ``module``, at its root or under ``src/``.

        A module that is not there may still be one of an installed package; only an import can tell.
        """
        path = module.replace(".", "/")
        return any(
            f"{root}{path}{ending}" in self.names for root in ("", "src/") for ending in (".py", "/__init__.py")
        ) or any(name.startswith((f"{path}/", f"src/{path}/")) and name.endswith(".py") for name in self.names)


def check(stream: BinaryIO, limits: Limits | None = None) -> SourceSummary:
    """Verify an upload and say what is in it.

    Args:
        stream: The .tar.gz; read to its end, or as far as the first mistake.
        limits: How large it may be.

    Raises:
        InvalidSource: something in it cannot be accepted; names the member.
        InvalidConfig: there is no crewship.toml at its root.
        TooLarge: a limit is reached (code ``source_too_large``).
    """
    archive = TarStream(stream, limits or Limits())
    names: set[str] = set()
    kept: dict[str, bytes] = {}
    kept_bytes = 0
    for name, size_bytes, _ in _files(archive, limits or Limits()):
        names.add(name)
        if name == FILE_NAME or _DEPENDENCY_FILE.fullmatch(name):
            kept_bytes += size_bytes
            most = _MAX_CONFIG_BYTES if name == FILE_NAME else _MAX_KEPT_BYTES
            if size_bytes > most or kept_bytes > _MAX_KEPT_TOTAL_BYTES:
                raise InvalidSource(
                    f"{shown(name)} is larger than {mebibytes(most)}.",
                    hint="A file that the platform itself reads has no need of that size.",
                )
            kept[name] = b"".join(archive.data())
    if FILE_NAME not in kept:
        raise _without_config(names)
    return SourceSummary(
        sha256=archive.sha256,
        size_bytes=archive.size_bytes,
        unpacked_bytes=archive.unpacked_bytes,
        names=frozenset(names),
        config=kept.pop(FILE_NAME),
        dependencies=kept,
        warnings=tuple(case_warnings(names)),
    )


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of an upload."""

    sha256: str
    size_bytes: int
    is_executable: bool


def files_of(stream: BinaryIO, limits: Limits | None = None) -> dict[str, SourceFile]:
    """Name → file of all files in an upload that was checked.

    Raises:
        InvalidSource, TooLarge: as :func:`check`.
    """
    archive = TarStream(stream, limits or Limits())
    found = {}
    for name, size_bytes, is_executable in _files(archive, limits or Limits()):
        digest = hashlib.sha256()
        for piece in archive.data():
            digest.update(piece)
        found[name] = SourceFile(digest.hexdigest(), size_bytes, is_executable)
    return found


def unpack(stream: BinaryIO, folder: Path, limits: Limits | None = None) -> None:
    """Unpack an upload into ``folder``, which must be empty and nobody else's.

    Files are 0644, or 0755 when they are executable; folders 0755; times are all the same.

    Raises:
        InvalidSource, TooLarge: as :func:`check`; what was unpacked until then stays in the folder.
    """
    archive = TarStream(stream, limits or Limits())
    made: set[str] = set()
    for name, _, is_executable in _files(archive, limits or Limits()):
        parent = name.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(mode=0o755, parents=True, exist_ok=True)
            made.add(parent)
        # Nothing that is there is ever opened: the folder has what we made and no links.
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            for piece in archive.data():
                file.write(piece)
            file.flush()
            os.fchmod(descriptor, 0o755 if is_executable else 0o644)
            os.utime(descriptor, (_UNPACKED_AT, _UNPACKED_AT))


def validated_name(raw: bytes) -> str:
    """The path of a member, relative, without a leading ``./`` or a closing slash; empty for the root itself.

    Raises:
        InvalidSource: it could mean a place outside the folder, or cannot be a file's name everywhere.
    """
    if len(raw) > _MAX_NAME_BYTES:
        raise InvalidSource(
            f"{shown(raw)} is longer than {_MAX_NAME_BYTES} bytes.", hint="Make its folders' names shorter."
        )
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidSource(f"The name {shown(raw)} is not UTF-8.", hint="Rename the file.") from None
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise InvalidSource(f"The name {shown(raw)} has control characters.", hint="Rename the file.")
    if name.startswith("/"):
        raise InvalidSource(
            f"{shown(raw)} is an absolute path.", hint="Names in the archive are relative to the project's root."
        )
    name = name.removeprefix("./").removesuffix("/")
    if name in ("", "."):
        return ""
    for part in name.split("/"):
        if part == "..":
            raise InvalidSource(
                f"{shown(raw)} leaves the project's folder.", hint="Names in the archive must not contain “..”."
            )
        if part in ("", "."):
            raise InvalidSource(
                f"{shown(raw)} is not a plain path.", hint="Names in the archive are like “pkg/crew.py”."
            )
        if len(part.encode()) > _MAX_PART_BYTES:
            raise InvalidSource(
                f"{shown(raw)} has a part that is longer than {_MAX_PART_BYTES} bytes.", hint="Give it a shorter name."
            )
    return name


def case_warnings(names: Iterable[str]) -> list[str]:
    """A sentence for each file or folder whose path differs from another's in case only; some file systems hold one of them."""
    folded: dict[str, str] = {}
    warnings = []
    for name in sorted(names):
        path = name
        while path:
            other = folded.setdefault(path.casefold(), path)
            if other != path:
                warnings.append(f"{shown(other)} and {shown(path)} differ in case only.")
                break
            path = path.rpartition("/")[0]
    if len(warnings) > _MAX_WARNINGS:
        warnings[_MAX_WARNINGS:] = [f"… and {len(warnings) - _MAX_WARNINGS} more names that differ in case only."]
    return warnings


def _files(archive: TarStream, limits: Limits) -> Iterator[tuple[str, int, bool]]:
    """Name, size and whether executable of each file, all checked against those before it."""
    files: set[str] = set()
    folders: set[str] = set()
    count = 0
    for member in archive.members():
        name = validated_name(member.name)
        count += 1
        if count > limits.files:
            raise TooLarge(
                f"The upload has more than {limits.files:,} files and folders.",
                code="source_too_large",
                hint="Leave out what the crew does not need: [build] exclude in crewship.toml, or .gitignore.",
            )
        if not name:
            if not member.is_folder:
                raise InvalidSource("The archive has a file without a name.", hint=HOW_TO_PACK)
            continue
        parent = name
        while parent := parent.rpartition("/")[0]:
            if parent in folders:
                break
            if parent in files:
                raise InvalidSource(
                    f"{shown(parent)} is a file, and {shown(name)} is in it.",
                    hint="A name is a file's or a folder's; pack the project from one folder.",
                )
            folders.add(parent)
        if name in files or (name in folders and not member.is_folder):
            raise InvalidSource(
                f"{shown(name)} is in the archive twice.",
                hint="Pack it once; tar -r and two paths of one folder add a file again.",
            )
        if member.is_folder:
            folders.add(name)
        else:
            files.add(name)
            yield name, member.size_bytes, member.is_executable


def _without_config(names: set[str]) -> InvalidConfig:
    inner = next((name for name in sorted(names) if re.fullmatch(rf"[^/]+/{re.escape(FILE_NAME)}", name)), None)
    if inner is not None:
        folder = inner.partition("/")[0]
        return InvalidConfig(
            f"{FILE_NAME} is in {shown(folder)}, not at the archive's root.",
            hint=f"Pack the folder's content: tar -czf source.tar.gz -C {folder} .",
        )
    return InvalidConfig(f"The upload has no {FILE_NAME}.", hint="`crewship init` writes one.")
