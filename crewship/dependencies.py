"""Which of a project's files decide what is installed, so that a change of any other file installs nothing.

``requirements.txt`` is taken when there is one, ``pyproject.toml`` (PEP 621) otherwise, and neither is fine too. What a
requirements file names with ``-r`` or ``-c`` belongs to it. Where the answer depends on the project's code (a requirement
that is a path, dependencies that a build backend computes), the whole source decides.
"""

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crewship.builds import BuildFailed

REQUIREMENTS = "requirements.txt"
PYPROJECT = "pyproject.toml"
_INSTALLER_SETTINGS = "uv.toml"
_PYTHON_VERSION = ".python-version"

_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s*=\s*|\s+|(?=\S))(\S.*)")
_LOCAL = re.compile(r"-e\b|--editable\b|file:|\.{0,2}/|\.{1,2}(?:$|\[)|\S+\s*@\s*(?:file:|\.{0,2}/)")


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What to install from a source folder."""

    file: str | None
    """What is handed to the installer; None: there is nothing to install."""
    names: tuple[str, ...]
    """Files that decide, relative to the folder, sorted."""
    requires_python: str | None
    """Such as ``>=3.10,<3.14``."""
    python: str | None
    """Major and minor version that the project is pinned to by ``.python-version``."""

    def digest(self, folder: Path) -> str:
        """SHA-256 (hex) over names and contents."""
        sha256 = hashlib.sha256()
        for name in self.names:
            content = (folder / name).read_bytes()
            sha256.update(f"{len(name.encode())} {len(content)} {name}".encode() + content)
        return sha256.hexdigest()


def find(folder: Path) -> Dependencies:
    """Look into an unpacked source.

    Raises:
        BuildFailed: a file cannot be read as what it is (``dependency_resolution``).
    """
    project = _project_table(folder)
    requires = project.get("requires-python") if isinstance(project, dict) else None
    requires_python = requires if isinstance(requires, str) and requires.strip() else None
    names: set[str] = set()
    file = None
    if (folder / REQUIREMENTS).is_file():
        file = REQUIREMENTS
        if not _collect(folder, REQUIREMENTS, names):
            names = _everything(folder)
    elif project is not None:
        file = PYPROJECT
        is_static = "dependencies" in project or "dependencies" not in project.get("dynamic", [])
        names = {PYPROJECT} if is_static and _sources_are_remote(folder) else _everything(folder)
    if file is not None and (folder / _INSTALLER_SETTINGS).is_file():
        names.add(_INSTALLER_SETTINGS)
    return Dependencies(file, tuple(sorted(names)), requires_python, _pinned_python(folder))


def _project_table(folder: Path) -> dict[str, Any] | None:
    """``[project]`` of pyproject.toml; None when the file (or, for one that only configures tools, the table) is not there."""
    document = _pyproject(folder)
    if "project" in document:
        table: dict[str, Any] = document["project"]
        return table
    # Without the table a build backend knows the dependencies; without a backend there are none.
    return {"dynamic": ["dependencies"]} if "build-system" in document else None


def _pyproject(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / PYPROJECT).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BuildFailed("dependency_resolution", f"{PYPROJECT} is not TOML: {error}") from error


def _sources_are_remote(folder: Path) -> bool:
    """Whether no package of ``[tool.uv.sources]`` is a path in the project."""
    sources = _pyproject(folder).get("tool", {}).get("uv", {}).get("sources", {})
    rows = [row for value in sources.values() for row in (value if isinstance(value, list) else [value])]
    return not any(isinstance(row, dict) and ("path" in row or row.get("workspace")) for row in rows)


def _collect(folder: Path, name: str, names: set[str]) -> bool:
    """Add ``name`` and what it includes to ``names``; False when a requirement is a path in the project."""
    if name in names:
        return True
    names.add(name)
    text = (folder / name).read_text("utf-8", "replace").replace("\\\n", "")
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if included := _INCLUDE.match(line):
            path = (folder / name).parent / included[1].strip()
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                if not _collect(folder, path.resolve().relative_to(folder.resolve()).as_posix(), names):
                    return False
        elif line and (_LOCAL.match(line) or _is_path(folder, line.partition(";")[0].strip())):
            return False
    return True


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
    version = re.match(r"(?:cpython-)?(3\.\d{1,2})(?:\.\d+)?$", text.strip())
    return version[1] if version else None
