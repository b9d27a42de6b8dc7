"""``poetry.lock`` as a constraints file.

What a project depends on is in its ``pyproject.toml``, which Poetry's own library reads; what the lock adds is which
version of each, with its hashes. As constraints it says that and nothing more: groups, extras and markers need no
interpretation here (``docs/adr/0012``).
"""

import re
from collections import defaultdict
from typing import Any

from crewship.builds import BuildFailed

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]+")
_HASH = re.compile(r"(sha256|sha384|sha512):[0-9a-f]+")


def constraints(lock: dict[str, Any]) -> tuple[str, list[str]]:
    """The text of a constraints file, and the packages that it cannot say anything of.

    A package that is locked in several versions, for several Pythons or systems, is left to the resolver unless the lock says
    by markers which is for whom (lock files of Poetry 2).

    Args:
        lock: The parsed file.

    Raises:
        BuildFailed: it is no lock of Poetry's.
    """
    packages = lock.get("package", [])
    if not isinstance(packages, list) or not all(isinstance(package, dict) for package in packages):
        raise _broken("has no list of packages")
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for package in packages:
        name, version = package.get("name"), package.get("version")
        if not isinstance(name, str) or not isinstance(version, str) or not _NAME.fullmatch(name):
            raise _broken("has a package without name and version")
        by_name[re.sub(r"[-_.]+", "-", name).lower()].append(package)
    lines: list[str] = []
    unsaid: list[str] = []
    for name, versions in sorted(by_name.items()):
        marked = [(package, _marker(package)) for package in versions]
        if len(versions) > 1 and not all(marker for _, marker in marked):
            unsaid.append(name)
            continue
        lines += [line for package, marker in marked if (line := _line(name, package, marker))]
    return "".join(f"{line}\n" for line in lines), unsaid


def _line(name: str, package: dict[str, Any], marker: str) -> str | None:
    source = package.get("source") or {}
    kind, url = source.get("type"), str(source.get("url", ""))
    suffix = f" ; {marker}" if marker else ""
    if kind == "git":
        reference = source.get("resolved_reference") or source.get("reference") or ""
        subdirectory = f"#subdirectory={source['subdirectory']}" if source.get("subdirectory") else ""
        return _single(f"{name} @ git+{url}@{reference}{subdirectory}{suffix}")
    if kind == "url":
        return _single(f"{name} @ {url}{suffix}")
    if kind in ("directory", "file"):
        return None  # in the project itself: pyproject.toml says where
    version = str(package["version"])
    if not _VERSION.fullmatch(version):
        raise _broken(f"has {version!r} as the version of {name}")
    files = package.get("files") or []
    hashes = sorted({str(file.get("hash")) for file in files if isinstance(file, dict)} - {"None"})
    proven = "".join(f" --hash={value}" for value in hashes if _HASH.fullmatch(value))
    return _single(f"{name}=={version}{suffix}") + proven


def _marker(package: dict[str, Any]) -> str:
    """``markers``: text, or one for each group; the project's own dependencies are the group ``main``."""
    markers = package.get("markers")
    if isinstance(markers, dict):
        markers = markers.get("main")
    return markers if isinstance(markers, str) else ""


def _single(line: str) -> str:
    if not line.isprintable():
        raise _broken("has a line break where none can be")
    return line


def _broken(how: str) -> BuildFailed:
    return BuildFailed(
        "dependency_resolution",
        f"poetry.lock {how}",
        hint="Make it again with `poetry lock`, or leave it out: [build] exclude = ['poetry.lock'] in crewship.toml.",
    )
