"""Which of a project's files decide what is installed, so that a change of any other file installs nothing.

The first of these that is there: ``pylock.toml``, ``uv.lock`` or ``poetry.lock`` beside its ``pyproject.toml``,
``requirements.txt``, ``pyproject.toml`` (PEP 621, or a build backend); none is fine too. A lock goes before what it was made
from, because it says more. What a requirements file names with ``-r`` or ``-c`` belongs to it. Where the answer depends on the
project's code (a requirement that is a path, dependencies that a build backend computes), the whole source decides.
"""

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crewship.builds import BuildFailed
from crewship.poetry_lock import constraints
from crewship.python_version import poetry_range

REQUIREMENTS = "requirements.txt"
PYPROJECT = "pyproject.toml"
UV_LOCK = "uv.lock"
POETRY_LOCK = "poetry.lock"
PYLOCK = "pylock.toml"
_INSTALLER_SETTINGS = "uv.toml"
_PYTHON_VERSION = ".python-version"

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?=\S))(\S.*)")
_LOCAL = re.compile(r"-e\b|--editable\b|file:|\.{0,2}/|\.{1,2}(?:$|\[)|\S+\s*@\s*(?:file:|\.{0,2}/)")
_OUTSIDE = re.compile(
    r"(?:(?:-e|--editable)[\s=]*)?(?:\S+\s*@\s*)?(?:file:)?((?:\.\.?)?/[^\s;\[#]*|\.\.?(?=$|[\s;\[#]))"
)
_GIT = re.compile(r"\bgit\+|\bgit\s*=")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What to install from a source folder."""

    file: str | None
    """The file that is followed, without its folder; None: there is nothing to install."""
    names: tuple[str, ...]
    """Files that decide, relative to the folder, sorted."""
    requires_python: str | None
    """Such as ``>=3.10,<3.14``."""
    python: str | None
    """Major and minor version that the project is pinned to by ``.python-version``."""
    constraints: str = ""
    """Of ``poetry.lock``: what is installed by ``pyproject.toml`` keeps to these."""
    notes: tuple[str, ...] = field(default=())
    """What the author should know, a sentence each."""
    is_poetrys: bool = False
    """Whether pyproject.toml says in Poetry's own way what is needed; its build backend tells that of packages only, and
    most such projects are applications."""
    uses_git: bool = False
    """Whether one of the files names a repository."""
    place: str = ""
    """The folder that the file is in, relative to the project's and with a closing slash; empty: the project's own."""

    @property
    def path(self) -> str | None:
        """The file that is followed, relative to the project's folder."""
        return None if self.file is None else f"{self.place}{self.file}"

    def digest(self, folder: Path) -> str:
        """SHA-256 (hex) over names and contents."""
        sha256 = hashlib.sha256()
        for name in self.names:
            content = (folder / name).read_bytes()
            sha256.update(f"{len(name.encode())} {len(content)} {name}".encode() + content)
        return sha256.hexdigest()


def find(folder: Path, chosen: str | None = None) -> Dependencies:
    """Look into an unpacked source.

    Args:
        folder: Where it is.
        chosen: The file to follow (``[build] requirements``); the files beside it that belong to it count as they would at the
            project's root. None: the first of those there.

    Raises:
        BuildFailed: a file cannot be read as what it is, or wants what is not in the project (``dependency_resolution``).
    """
    prefix, _, name = (chosen or "").rpartition("/")
    prefix += "/" if prefix else ""
    place = folder / prefix
    if chosen is not None:
        _require(folder, folder / chosen, f"crewship.toml, [build] requirements: {chosen}")
    document = _toml(place, PYPROJECT)
    project = _project_table(document)
    names: set[str] = set()
    file = name or next((candidate for candidate in _candidates(place, project)), None)
    pins = ""
    notes = []
    requires = _requires_python(document)
    if file == PYLOCK:
        lock = _toml(place, PYLOCK)
        names = _everything(folder) if _has_local(lock, ("directory", "archive")) else {f"{prefix}{PYLOCK}"}
        requires = requires or _text(lock.get("requires-python"))
    elif file == UV_LOCK:
        lock = _toml(place, UV_LOCK)
        is_plain = _is_static(project) and not _has_local(lock, ("editable", "directory", "path", "virtual"))
        names = {f"{prefix}{PYPROJECT}", f"{prefix}{UV_LOCK}"} if is_plain else _everything(folder)
    elif file == POETRY_LOCK:
        pins, unsaid = constraints(_toml(place, POETRY_LOCK))
        if unsaid:
            notes.append(f"poetry.lock has several versions of {', '.join(unsaid)}: the resolver chooses among all")
        is_plain = _is_static(project) and _sources_are_remote(document)
        names = {f"{prefix}{PYPROJECT}", f"{prefix}{POETRY_LOCK}"} if is_plain else _everything(folder)
    elif file == PYPROJECT:
        is_plain = _is_static(project) and _sources_are_remote(document)
        names = {f"{prefix}{PYPROJECT}"} if is_plain else _everything(folder)
    elif file is not None and not _collect(folder, f"{prefix}{file}", names):
        names = _everything(folder)
    if file in (UV_LOCK, POETRY_LOCK):
        _require(folder, place / PYPROJECT, f"{prefix}{file} goes with a {PYPROJECT} beside it")
    is_poetrys = file in (POETRY_LOCK, PYPROJECT) and _poetry(document) is not None
    if file is not None:
        names |= {
            f"{where}{_INSTALLER_SETTINGS}"
            for where in {"", prefix}
            if (folder / where / _INSTALLER_SETTINGS).is_file()
        }
    others = [name for name in (POETRY_LOCK, REQUIREMENTS) if file is not None and (place / name).is_file()]
    if file in (PYLOCK, UV_LOCK, POETRY_LOCK) and (unused := [name for name in others if name != file]):
        notes.append(f"{file} decides what is installed; {' and '.join(unused)} is not looked at")
    decisive = [
        name
        for name in names
        if name.rpartition("/")[2] in (PYPROJECT, PYLOCK, UV_LOCK, POETRY_LOCK) or name.endswith(".txt")
    ]
    return Dependencies(
        file,
        tuple(sorted(names)),
        requires,
        _pinned_python(place) or _pinned_python(folder),
        pins,
        tuple(notes),
        is_poetrys=is_poetrys,
        uses_git=any(_GIT.search((folder / name).read_text("utf-8", "replace")) for name in decisive),
        place=prefix,
    )


def _candidates(folder: Path, project: dict[str, Any] | None) -> list[str]:
    """The files that could be followed, the first first."""
    there = [PYLOCK] if (folder / PYLOCK).is_file() else []
    if project is not None:
        there += [name for name in (UV_LOCK, POETRY_LOCK) if (folder / name).is_file()]
    if (folder / REQUIREMENTS).is_file():
        there.append(REQUIREMENTS)
    return there + ([PYPROJECT] if project is not None else [])


def _project_table(document: dict[str, Any]) -> dict[str, Any] | None:
    """``[project]`` of pyproject.toml; None when the file (or, for one that only configures tools, the table) is not there."""
    if "project" in document:
        table = document["project"]
        if not isinstance(table, dict):
            raise _broken(PYPROJECT, "[project] is not a table")
        if "dependencies" in table or "name" in table or "dynamic" in table:
            return table
    if _poetry(document) is not None:
        return {"dependencies": []}
    # Without the table a build backend knows the dependencies; without a backend there are none.
    return {"dynamic": ["dependencies"]} if "build-system" in document else document.get("project")


def _poetry(document: dict[str, Any]) -> dict[str, Any] | None:
    """``[tool.poetry]`` when the dependencies are there and not in ``[project]``."""
    tool, project = document.get("tool"), document.get("project")
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    if not isinstance(poetry, dict) or not isinstance(poetry.get("dependencies"), dict):
        return None
    is_standard = isinstance(project, dict) and "dependencies" in project
    return None if is_standard else poetry


def _is_static(project: dict[str, Any] | None) -> bool:
    """Whether the table itself says what is needed."""
    return project is not None and ("dependencies" in project or "dependencies" not in project.get("dynamic", []))


def _requires_python(document: dict[str, Any]) -> str | None:
    project = document.get("project")
    if isinstance(project, dict) and (requires := _text(project.get("requires-python"))):
        return requires
    poetry = document.get("tool", {}).get("poetry", {}) if isinstance(document.get("tool"), dict) else {}
    wanted = poetry.get("dependencies", {}) if isinstance(poetry, dict) else {}
    python = _text(wanted.get("python")) if isinstance(wanted, dict) else None
    return poetry_range(python) if python and python != "*" else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _toml(folder: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / name).read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _broken(name, f"it is not TOML: {error}") from error


def _broken(name: str, how: str) -> BuildFailed:
    remedy = "Correct the file" if name == PYPROJECT else "Make the file again with the tool that wrote it"
    return BuildFailed("dependency_resolution", f"{name} cannot be read: {how}", hint=f"{remedy}, then deploy again.")


def _sources_are_remote(document: dict[str, Any]) -> bool:
    """Whether no package of ``[tool.uv.sources]`` or of Poetry's dependencies is a path in the project."""
    tool = document.get("tool", {})
    sources = {
        **tool.get("uv", {}).get("sources", {}),
        **tool.get("poetry", {}).get("dependencies", {}),
    }
    rows = [row for value in sources.values() for row in (value if isinstance(value, list) else [value])]
    return not any(isinstance(row, dict) and ("path" in row or row.get("workspace")) for row in rows)


def _has_local(lock: dict[str, Any], kinds: tuple[str, ...]) -> bool:
    """Whether a lock has a package, besides the project itself, that is in the project's folder."""
    for package in lock.get("package", lock.get("packages", [])):
        source = package.get("source", package) if isinstance(package, dict) else {}
        for kind in kinds:
            place = source.get(kind) if isinstance(source, dict) else None
            if isinstance(place, dict):
                place = place.get("path")
            if isinstance(place, str) and place != ".":
                return True
    return False


def _collect(folder: Path, name: str, names: set[str]) -> bool:
    """Add ``name`` and what it includes to ``names``; False when a requirement is a path in the project."""
    if name in names:
        return True
    names.add(name)
    is_remote = True
    text = (folder / name).read_text("utf-8", "replace").replace("\\\n", " ")
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if included := _INCLUDE.match(line):
            target = included[1].strip()
            if "://" in target or "$" in target:
                continue
            path = (folder / name).parent / target
            _require(folder, path, f"{name}, line {number}: {line}")
            if not _collect(folder, path.resolve().relative_to(folder.resolve()).as_posix(), names):
                is_remote = False
        elif line and (_LOCAL.match(line) or _is_path((folder / name).parent, line.partition(";")[0].strip())):
            is_remote = False
            if place := _OUTSIDE.match(line):
                beside = (folder / name).parent / place[1]
                _require(folder, beside if beside.exists() else folder / place[1], f"{name}, line {number}: {line}")
    return is_remote


def _require(folder: Path, path: Path, where: str) -> None:
    """Refuse what a requirements file names and the upload does not have.

    Raises:
        BuildFailed: it is outside the project, or not there.
    """
    if not Path(os.path.normpath(path)).is_relative_to(folder):
        raise BuildFailed(
            "dependency_resolution",
            f"{where}: this is outside the project's folder, so it is not uploaded",
            hint="Move it into the project, or deploy from the folder that has both: crewship.toml belongs there then.",
        )
    if not path.exists():
        raise BuildFailed(
            "dependency_resolution",
            f"{where}: there is no such file among what was uploaded",
            hint="Correct the path; .gitignore, .dockerignore and [build] exclude may leave the file out.",
        )


def _is_path(folder: Path, requirement: str) -> bool:
    """Whether it is a path that does not begin like one; a bare name is a package's, whatever folders there are."""
    return ("/" in requirement or requirement.endswith((".whl", ".tar.gz", ".zip"))) and (folder / requirement).exists()


def _everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _pinned_python(folder: Path) -> str | None:
    try:
        text = (folder / _PYTHON_VERSION).read_text("utf-8", "replace")
    except OSError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    version = re.match(r"(?:cpython-)?(3\.\d{1,2})(?:\.\d+)?$", lines[0]) if lines else None
    return version[1] if version else None
