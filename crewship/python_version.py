"""Which Python a project gets, and why.

``python`` in crewship.toml is what is wanted, ``requires-python`` is what must hold, ``.python-version`` is what the author's
machine happens to have. So the first decides but may not contradict the second; the second decides where the first is silent,
with the platform's own version where it allows that; the third chooses within the second and gives way to it.
"""

import re
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from crewship.builds import BuildFailed
from crewship.provision.base_image import DEFAULT_PYTHON

_MINORS = range(8, 20)
_PATCHES = range(40)
"""More than any release series had."""


@dataclass(frozen=True, slots=True)
class PythonChoice:
    """The version, and the file that asks for it."""

    version: str | None
    """Major and minor; None: whatever the platform has."""
    source: str
    """For a person, such as ``crewship.toml: python = "3.11"``; empty when nothing asks."""
    note: str | None = None
    """What was asked for and is not followed."""


def choose_python(configured: str | None, requires: str | None, pinned: str | None) -> PythonChoice:
    """Choose by ``python`` of crewship.toml, ``requires-python``, and ``.python-version``, in this order.

    Args:
        configured: ``3.11`` or None; ``pinned`` likewise.
        requires: A PEP 440 specifier set, or None.

    Raises:
        BuildFailed: they contradict each other, or no Python satisfies ``requires`` (``python_version``).
    """
    needs = f'requires-python = "{requires}"'
    if not requires:
        asked = (
            f'crewship.toml: python = "{configured}"' if configured else f".python-version: {pinned}" if pinned else ""
        )
        return PythonChoice(configured or pinned, asked, _unfollowed(configured, pinned))
    allowed = allowed_minors(requires)
    if not allowed:
        raise BuildFailed(
            "python_version",
            f"No release of Python is within {needs} of pyproject.toml",
            hint='Write it as a range of versions, such as requires-python = ">=3.10,<3.14".',
        )
    if configured is not None:
        source = f'crewship.toml: python = "{configured}"'
        if configured not in allowed:
            raise BuildFailed(
                "python_version",
                f'crewship.toml says python = "{configured}", and pyproject.toml says {needs}, which excludes it',
                hint=f'Set python = "{_nearest(allowed)}" in crewship.toml, or widen requires-python in pyproject.toml.',
            )
        return PythonChoice(configured, source, _unfollowed(configured, pinned))
    if pinned is not None and pinned in allowed:
        return PythonChoice(pinned, f".python-version: {pinned}")
    note = f".python-version says {pinned}, which {needs} excludes; it is not followed" if pinned else None
    if DEFAULT_PYTHON in allowed:
        return PythonChoice(None, "", note)
    return PythonChoice(_nearest(allowed), f"pyproject.toml: {needs}", note)


def _unfollowed(configured: str | None, pinned: str | None) -> str | None:
    """What to say of a ``.python-version`` that crewship.toml overrules."""
    if configured is None or pinned in (None, configured):
        return None
    return f".python-version says {pinned}; Python {configured} is taken, as crewship.toml says"


def allowed_minors(requires: str) -> list[str]:
    """The minor versions with a release in ``requires``, the oldest first.

    Raises:
        BuildFailed: it is no specifier set.
    """
    try:
        specifiers = SpecifierSet(requires)
    except InvalidSpecifier:
        raise BuildFailed(
            "python_version",
            f'requires-python = "{requires}" in pyproject.toml is not a range of versions',
            hint='For example requires-python = ">=3.10,<3.14".',
        ) from None
    return [f"3.{minor}" for minor in _MINORS if any(specifiers.contains(f"3.{minor}.{patch}") for patch in _PATCHES)]


def poetry_range(constraint: str) -> str | None:
    """Poetry's ``python = "^3.10"`` as a specifier set; None when it is written in a way that has no such form."""
    parts = []
    for part in re.split(r"\s*,\s*|\s+(?=[<>=!^~])", constraint.strip()):
        caret = re.fullmatch(r"(\^|~)\s*(\d+)(?:\.(\d+))?((?:\.\d+)*)", part)
        if caret is None:
            parts.append(f"=={part}.*" if re.fullmatch(r"\d+(\.\d+)?", part) else re.sub(r"\s+", "", part))
            continue
        sign, major, minor, rest = caret.groups()
        most = f"{int(major) + 1}" if sign == "^" or minor is None else f"{major}.{int(minor) + 1}"
        parts.append(f">={major}.{minor or 0}{rest},<{most}")
    text = ",".join(parts)
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return None
    return text


def _nearest(allowed: list[str]) -> str:
    """The one that is nearest to what the platform has, newer before older."""
    order = [int(version.partition(".")[2]) for version in allowed]
    default = int(DEFAULT_PYTHON.partition(".")[2])
    newer = [minor for minor in order if minor >= default]
    return f"3.{min(newer) if newer else max(order)}"
