"""Ignore files, rule by rule: ``pathspec`` reads the patterns, and here is what git and docker make of a list of them.

``pathspec``'s own lists also take what is in a folder for matched by the folder's pattern. Git does not: there a folder that is
ignored is not entered, so ``!folder`` does not bring back a file in it that another pattern ignores. Packing goes by what git
would do, and is tested against it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from re import Pattern

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from crewship.errors import InvalidSource


class GitIgnore:
    """Patterns in gitignore syntax, relative to the folder ``base`` (empty, or with a closing slash).

    Raises:
        InvalidSource: a pattern cannot be understood; names ``where`` it is.
    """

    def __init__(self, base: str, lines: Sequence[str], where: str) -> None:
        self._base = base
        self._rules = [rule for line in lines if (rule := _rule(line, where)) is not None]
        self.brings_back = any(not rule.ignores for rule in self._rules)
        """Whether there is a ``!pattern``."""

    def verdict(self, name: str, is_folder: bool) -> bool | None:
        """Whether the file or folder itself is ignored (True) or brought back (False); None when nothing matches it.

        The last match counts. What follows for a folder's content is the caller's to say.
        """
        path = name.removeprefix(self._base)
        for rule in reversed(self._rules):
            if (is_folder or not rule.is_of_folders) and rule.matches(path):
                return rule.ignores
        return None


class DockerIgnore:
    """``.dockerignore``: patterns are from the root, a folder's match holds for all in it, and the last match counts."""

    def __init__(self, lines: list[str]) -> None:
        self._rules: list[_Rule] = []
        for line in lines:
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            mark = "!" if pattern.startswith("!") else ""
            pattern = os.path.normpath(pattern.removeprefix("!").strip().lstrip("/") or ".")
            if pattern != "." and (rule := _rule(f"{mark}/{pattern}", ".dockerignore")) is not None:
                self._rules.append(rule)
        self.brings_back = any(not rule.ignores for rule in self._rules)
        """Whether there is a ``!pattern``."""

    def ignores(self, name: str) -> bool:
        """Whether the file or folder is left out; a left out folder may have files that are not."""
        parts = name.split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for rule in reversed(self._rules):
            if any(map(rule.matches, paths)):
                return rule.ignores
        return False


@dataclass(frozen=True, slots=True)
class _Rule:
    ignores: bool
    is_of_folders: bool
    """It ends with a slash."""
    regex: Pattern[str]
    is_of_content: bool
    """It ends with ``/**``, or is ``*`` or ``**``: ``regex`` says how the path begins, and not how it ends."""

    def matches(self, path: str) -> bool:
        found = self.regex.search(path)
        return found is not None and (self.is_of_content or found.end() == len(path))


def _rule(line: str, where: str) -> _Rule | None:
    """None for blank lines and comments."""
    stripped = line.rstrip(" ")
    is_of_folders = stripped.endswith("/")
    if is_of_folders:
        line = stripped.rstrip("/")
        if line in ("", "!"):
            return None  # "/" and "!/" match nothing
    try:
        pattern = GitIgnoreSpecPattern(line)
    except ValueError as error:
        raise InvalidSource(f"A pattern in {where} cannot be understood: {line}") from error
    if pattern.include is None or pattern.regex is None:
        return None
    is_of_content = pattern.regex.pattern == "." or stripped.rstrip("/").endswith("/**")
    return _Rule(pattern.include, is_of_folders, pattern.regex, is_of_content)
