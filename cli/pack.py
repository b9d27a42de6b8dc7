"""Packs a project's folder into the .tar.gz that is uploaded.

What goes in is decided, in this order, by: what never does (version control, secrets, virtual environments, caches); ``[build]
exclude``, whose ``!pattern`` brings back what the others leave out; ``.gitignore`` files, nested ones too; ``.dockerignore``.
The archive is a function of names, contents and executable bits alone, so the same project has the same digest wherever and
whenever it is packed.
"""

import contextlib
import errno
import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Final, cast

from cli.ignore import DockerIgnore, GitIgnore
from crewship.config_file import FILE_NAME
from crewship.errors import CrewshipError, InvalidConfig, InvalidSource, TooLarge
from crewship.source import Limits, case_warnings, validated_name
from crewship.tar_stream import mebibytes, shown

_NEVER: Final = (
    ".git", ".hg", ".svn", ".env", ".env.*", ".envrc", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", "*.pyo",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".tox", ".nox", ".ipynb_checkpoints", ".DS_Store",
)  # fmt: skip
_EXAMPLES: Final = (".env.example", ".env.sample", ".env.template")
"""Meant to be shared, so they are no secrets."""
_LARGEST: Final = 10


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive that is ready to be uploaded."""

    path: Path
    sha256: str
    size_bytes: int
    files: int
    warnings: tuple[str, ...]
    largest: str
    """The largest files with their sizes, a line each."""


def pack(
    folder: Path,
    exclude: Sequence[str],
    *,
    target: Path | None = None,
    limits: Limits | None = None,
    before: Callable[[int], object] = lambda size_bytes: None,
) -> Packed:
    """Pack the project in ``folder``.

    Args:
        folder: The project's root, which has crewship.toml.
        exclude: ``[build] exclude`` of the deployment.
        target: Where the archive goes; None: a temporary file, which is the caller's to delete.
        limits: How large it may be; None: the platform's defaults.
        before: Called with the files' size, in bytes, before they are packed.

    Raises:
        InvalidConfig: there is no crewship.toml.
        InvalidSource: a link leaves the project or loops, a file cannot be read, or has a name that cannot be uploaded.
        TooLarge: it is larger than the limits; the hint names the largest files.
    """
    limits = limits or Limits()
    if not (folder / FILE_NAME).is_file():
        raise InvalidConfig(f"There is no {FILE_NAME} in {folder}.", hint="`crewship init` writes one.")
    walk = _Walk(folder, exclude)
    walk.run()
    found = sorted(walk.found, key=lambda file: os.fsencode(file.name))
    for file in found:
        validated_name(os.fsencode(file.name))
    size_bytes = sum(file.size_bytes for file in found)
    if size_bytes > limits.unpacked_bytes or len(found) > limits.files:
        raise _too_large(f"has {len(found):,} files of {mebibytes(size_bytes)}", found)
    before(size_bytes)
    if target is None:
        descriptor, name = tempfile.mkstemp(prefix="crewship-", suffix=".tar.gz")
        os.close(descriptor)
        target = Path(name)
    try:
        with target.open("wb") as output:
            archive = _Metered(output, limits.packed_bytes)
            _write(cast(BinaryIO, archive), found)
    except _OverLimit:
        _discard(target)
        raise _too_large(f"is larger than {mebibytes(limits.packed_bytes)} when packed", found) from None
    except BaseException as error:
        _discard(target)
        if isinstance(error, OSError):
            raise CrewshipError(f"The archive cannot be written: {error.strerror}.") from error
        raise
    warnings = (*walk.warnings, *case_warnings(file.name for file in found))
    return Packed(target, archive.sha256, archive.size_bytes, len(found), warnings, _largest(found))


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    """In the archive; relative, with slashes."""
    path: Path
    """Where its content is; another than ``name`` says when it is a link."""
    size_bytes: int
    is_executable: bool


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the walk."""

    place: Path
    """Where it really is."""
    name: str
    """What it is called, with a closing slash; empty for the root."""
    git: tuple[GitIgnore, ...]
    """The .gitignore files of the folders above it."""
    is_git_ignored: bool
    """As a whole."""
    verdict: bool | None
    """What ``[build] exclude`` says of it: leave it out, bring it back, or nothing."""
    above: tuple[Path, ...]
    """Where it and the folders above it really are."""


class _Walk:
    """Finds a project's files."""

    def __init__(self, root: Path, exclude: Sequence[str]) -> None:
        self.found: list[_File] = []
        self.warnings: list[str] = []
        self._root = Path(os.path.realpath(root))
        self._exclude = GitIgnore("", exclude, f"[build] exclude in {FILE_NAME}")
        self._docker = DockerIgnore(_lines(self._root / ".dockerignore"))

    def run(self) -> None:
        self._folder(_Folder(self._root, "", (), False, None, (self._root,)))

    def _folder(self, folder: "_Folder") -> None:
        if lines := _lines(folder.place / ".gitignore"):
            own = GitIgnore(folder.name, lines, f"{folder.name}.gitignore")
            folder = replace(folder, git=(*folder.git, own))
        with _reading(folder.name or "The project's folder"), os.scandir(folder.place) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        for entry in entries:
            if not _is_never(entry.name):
                self._entry(entry, folder)

    def _entry(self, entry: "os.DirEntry[str]", folder: "_Folder") -> None:
        name = folder.name + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)  # to git a link is a file, whatever it means
        is_git_ignored = folder.is_git_ignored or _is_git_ignored(folder.git, name, is_folder)
        verdict = self._exclude.verdict(name, is_folder)
        if verdict is None:
            verdict = folder.verdict
        is_left_out = is_git_ignored or self._docker.ignores(name) if verdict is None else verdict
        if is_left_out and name != FILE_NAME:
            # A folder may still have files that are brought back.
            may_hold = self._exclude.brings_back or (not is_git_ignored and self._docker.brings_back)
            if not (is_folder and may_hold and os.access(entry.path, os.R_OK | os.X_OK)):
                return
        place = Path(entry.path)
        if entry.is_symlink():
            meaning = self._meaning(place, name)
            if meaning is None:
                return
            place, is_folder = meaning, meaning.is_dir()
        if is_folder:
            if place in folder.above:
                raise InvalidSource(
                    f"The link {shown(name)} loops: it leads to a folder that it is in.", hint=_LINK_HINT
                )
            if not (place / "pyvenv.cfg").exists():
                above = (*folder.above, place)
                self._folder(_Folder(place, f"{name}/", folder.git, is_git_ignored, verdict, above))
            return
        with _reading(name):
            facts = place.stat()
        if stat.S_ISREG(facts.st_mode):
            self.found.append(_File(name, place, facts.st_size, bool(facts.st_mode & 0o100)))
        else:
            self.warnings.append(f"{shown(name)} is neither file nor folder and is left out.")

    def _meaning(self, link: Path, name: str) -> Path | None:
        """The file or folder that a link means; None when that does not exist."""
        try:
            target = Path(os.path.realpath(link, strict=True))
        except FileNotFoundError:
            if not Path(os.path.realpath(link)).is_relative_to(self._root):
                raise InvalidSource(f"The link {shown(name)} leaves the project.", hint=_LINK_HINT) from None
            self.warnings.append(f"The link {shown(name)} leads to nothing and is left out.")
            return None
        except OSError as error:
            reason = "loops" if error.errno == errno.ELOOP else f"cannot be followed: {error.strerror}"
            raise InvalidSource(f"The link {shown(name)} {reason}.", hint=_LINK_HINT) from None
        if not target.is_relative_to(self._root):
            raise InvalidSource(f"The link {shown(name)} leaves the project.", hint=_LINK_HINT)
        inside = target.relative_to(self._root)
        if any(_is_never(part) for part in inside.parts):
            raise InvalidSource(
                f"The link {shown(name)} leads to {shown(str(inside))}, which is never uploaded.", hint=_LINK_HINT
            )
        return target


def _is_never(name: str) -> bool:
    return name not in _EXAMPLES and any(fnmatchcase(name, pattern) for pattern in _NEVER)


def _is_git_ignored(files: tuple[GitIgnore, ...], name: str, is_folder: bool) -> bool:
    """By the innermost .gitignore that has a word on it."""
    for file in reversed(files):
        verdict = file.verdict(name, is_folder)
        if verdict is not None:
            return verdict
    return False


def _lines(file: Path) -> list[str]:
    """The lines of an ignore file; none when it is not there."""
    try:
        return file.read_bytes().decode("utf-8-sig", "surrogateescape").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return []
    except OSError as error:
        raise InvalidSource(f"{file.name} cannot be read: {error.strerror}.") from error


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidSource(
            f"{shown(name)} cannot be read: {error.strerror}.",
            hint="Make it readable, or leave it out with [build] exclude.",
        ) from error


# --- writing ----------------------------------------------------------------------------------------------------------


def _write(output: BinaryIO, files: list[_File]) -> None:
    """The same bytes for the same files: no times, no owners, two modes."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=output, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive,
    ):
        for file in files:
            member = tarfile.TarInfo(file.name)
            member.size = file.size_bytes
            member.mode = 0o755 if file.is_executable else 0o644
            with _reading(file.name):
                content = file.path.open("rb")
            with content:
                archive.addfile(member, cast(BinaryIO, _Content(file, content)))


def _discard(target: Path) -> None:
    """Remove what was written, when it is a file; a caller may have named a device."""
    if target.is_file():
        target.unlink()


class _Content:
    """A file's content, as long as it was when it was found."""

    def __init__(self, file: _File, content: BinaryIO) -> None:
        self._file, self._content = file, content

    def read(self, size: int) -> bytes:
        with _reading(self._file.name):
            data = self._content.read(size)
        if len(data) < size:
            raise InvalidSource(f"{shown(self._file.name)} changed while it was packed.", hint="Try again.")
        return data


class _Metered:
    """A file that counts and digests what is written, up to a limit."""

    def __init__(self, output: BinaryIO, limit_bytes: int) -> None:
        self._output, self._limit_bytes = output, limit_bytes
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise _OverLimit
        self._digest.update(data)
        return self._output.write(data)

    def flush(self) -> None:
        self._output.flush()


class _OverLimit(Exception):
    """The archive has become larger than it may be."""


def _too_large(how: str, files: list[_File]) -> TooLarge:
    return TooLarge(f"The project {how}, which is too large.", code="source_too_large", hint=leave_out(_largest(files)))


def leave_out(largest: str) -> str:
    """What to do about a project that is too large."""
    return f"Leave out what the crew does not need ([build] exclude in {FILE_NAME}, or .gitignore). Largest:\n{largest}"


def _largest(files: list[_File]) -> str:
    largest = sorted(files, key=lambda file: file.size_bytes, reverse=True)[:_LARGEST]
    width = max((len(mebibytes(file.size_bytes)) for file in largest), default=0)
    return "\n".join(f"  {mebibytes(file.size_bytes):>{width}}  {file.name}" for file in largest)


_LINK_HINT: Final = "Replace the link by what it means, or leave it out with [build] exclude."
