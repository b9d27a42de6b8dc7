"""``crewship.toml`` as a file: which tables and keys it has, which deployment is meant, and what project a folder is.

What the values may be is :mod:`crewship.config`'s. Nothing here takes long to import, for nearly every command asks it which
project it is about.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from crewship.errors import InvalidConfig
from crewship.toml_text import at, decoded, kind, parsed

FILE_NAME: Final = "crewship.toml"

KEYS: Final[dict[str, list[str]]] = {
    "deployment": ["framework", "entrypoint", "python", "profile"],
    "project": ["name"],
    "build": ["exclude", "smoke", "apt", "extras", "requirements"],
    "run": ["timeout_seconds", "memory", "cpus", "pids", "disk", "log", "retries", "concurrency", "queue_timeout_seconds", "warm",
            "artifacts"],
    "network": ["mode", "allow"],
}  # fmt: skip
"""Of each table, in the order in which they are told."""
OPTIONS: Final = ("build", "run", "network")
"""Tables that hold for all deployments, and that each may have for itself."""
_TABLES: Final = ["deployment", "deployments", "project", *OPTIONS]
_MOST_FINDINGS: Final = 20
"""A file that is no crewship.toml at all has thousands, and each takes a look through it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One deployment of the file; no value was looked at."""

    text: str
    document: dict[str, Any]
    path: tuple[str, ...]
    """Of its table."""
    project: Any
    """What the file calls it, as it stands there; None: nothing."""
    table: dict[str, Any]
    """Its own keys, and ``build``, ``run`` and ``network`` as they hold for it."""


def choose(text: str | bytes, name: str | None = None) -> Chosen:
    """One deployment of the file.

    Args:
        text: The file's content.
        name: Which ``[deployments.<name>]``; may be left out when there is only one, or a ``[deployment]``.

    Raises:
        InvalidConfig: the file is no TOML, has tables or keys that have no place in it, or no such deployment.
    """
    text = decoded(text, FILE_NAME)
    document = parsed(text, FILE_NAME)
    _check_layout(document, text)
    shared = {key: document[key] for key in OPTIONS if key in document}
    path: tuple[str, ...] = ("deployment",)
    if "deployment" in document:
        if name is not None:
            raise InvalidConfig(
                f"{FILE_NAME} has one [deployment], and none that is called {name!r}.",
                hint="Leave the name out, or rename the table to [deployments.<name>].",
            )
        own, project = document["deployment"], document.get("project", {}).get("name")
    else:
        project = _choose(document["deployments"], name)
        path, own = ("deployments", project), document["deployments"][project]
    tables = {key: shared.get(key, {}) | own.get(key, {}) for key in OPTIONS}
    return Chosen(text, document, path, project, own | tables)


def deployment_names(text: str | bytes) -> list[str]:
    """Names of the ``[deployments.<name>]`` tables, as they are written, in the file's order; none with ``[deployment]``.

    Raises:
        InvalidConfig: the file is no TOML, or has both kinds of table, or none.
    """
    text = decoded(text, FILE_NAME)
    document = parsed(text, FILE_NAME)
    _check_layout(document, text)
    return list(document.get("deployments", {}))


def normalized_name(raw: str) -> str:
    """``raw`` as a project's name: lower case, everything but letters and digits as single hyphens (``My_Crew`` → ``my-crew``).

    Raises:
        InvalidConfig: nothing is left, or it is longer than 63 characters.
    """
    name = re.sub(r"[^a-z0-9]+", "-", raw.lower()).strip("-") if isinstance(raw, str) else ""
    hint = f'Set it in {FILE_NAME}: [project] name = "my-crew".'
    if not name:
        raise InvalidConfig(f"{raw!r} cannot be a project's name: it needs letters or digits (a-z, 0-9, -).", hint=hint)
    if len(name) > 63:
        raise InvalidConfig(f"{raw!r} cannot be a project's name: it is longer than 63 characters.", hint=hint)
    return name


def project_name(folder: Path, name: str | None = None) -> str:
    """The project that ``folder`` is deployed as.

    That is ``[deployments.<name>]`` (``name``, or the only one), else ``[project] name`` in crewship.toml, else the name in
    pyproject.toml, else the folder's. A folder without crewship.toml has a name too, so that ``env set`` works before ``init``.

    Raises:
        InvalidConfig: crewship.toml cannot be read, has several named deployments and none is meant, or the name cannot be
            a project's.
    """
    for file, find in (
        (FILE_NAME, lambda document: _named_by_config(document, name)),
        ("pyproject.toml", _named_by_pyproject),
    ):
        try:
            text = decoded((folder / file).read_bytes(), file)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        except OSError as error:
            raise InvalidConfig(f"{file} cannot be read: {error.strerror}.") from error
        document = parsed(text, file)
        if file == FILE_NAME:
            _check_layout(document, text)
        found = find(document)
        if found is not None:
            return normalized_name(found)
    return normalized_name(folder.resolve().name)


def _named_by_config(document: dict[str, Any], name: str | None) -> str | None:
    if "deployments" in document:
        return _choose(document["deployments"], name)
    found = document.get("project", {}).get("name")
    return found if isinstance(found, str) else None


def _named_by_pyproject(document: dict[str, Any]) -> str | None:
    tool = document.get("tool")
    for table in (document.get("project"), tool.get("poetry") if isinstance(tool, dict) else None):
        if isinstance(table, dict) and isinstance(table.get("name"), str):
            return str(table["name"])
    return None


# --- what may stand where ---------------------------------------------------------------------------------------------


def _check_layout(document: dict[str, Any], text: str) -> None:
    """Refuse what has no place in the file; afterwards all tables are there that must be, and are tables."""
    _refuse_unknown(document, text)
    for key in _TABLES:
        _require_table(document, (key,), text)
    if "deployment" in document and "deployments" in document:
        raise InvalidConfig(
            f"{FILE_NAME} has both [deployment] and [deployments.<name>].",
            hint="Keep [deployment] for one deployment, or give each a name: [deployments.<name>].",
        )
    if not document.get("deployment") and not document.get("deployments"):
        raise InvalidConfig(
            f"{FILE_NAME} has no [deployment].",
            hint="Add [deployment] with framework and entrypoint; `crewship init` writes one.",
        )
    if "name" in document.get("project", {}) and not isinstance(document["project"]["name"], str):
        raise InvalidConfig(
            at(FILE_NAME, text, ("project", "name"), "a project's name is a string"),
            hint='For example name = "my-crew".',
        )
    taken: dict[str, str] = {}
    for name in document.get("deployments", {}):
        path = ("deployments", name)
        _require_table(document, path, text)
        for key in OPTIONS:
            _require_table(document, (*path, key), text)
        first = taken.setdefault(normalized_name(name), name)
        if first != name:
            raise InvalidConfig(
                f"{FILE_NAME}: deployments {first!r} and {name!r} would be the same project.",
                hint="Rename one of them.",
            )


def _choose(deployments: Mapping[str, Any], name: str | None) -> str:
    names = list(deployments)
    listed = ", ".join(names)
    if name is None:
        if len(names) == 1:
            return names[0]
        raise InvalidConfig(
            f"{FILE_NAME} has several deployments: {listed}.", hint=f"Pick one by its name, for example -n {names[0]}."
        )
    for candidate in names:
        if name == candidate or name == normalized_name(candidate):
            return candidate
    likely = nearest(name, names)
    raise InvalidConfig(
        f"{FILE_NAME} has no deployment {name!r}; it has {listed}.",
        hint=f"Did you mean {likely}?" if likely else "Pick one of these by its name.",
    )


def _require_table(document: dict[str, Any], path: tuple[str, ...], text: str) -> None:
    value: Any = document
    for key in path:
        if key not in value:
            return
        value = value[key]
    if not isinstance(value, dict):
        raise InvalidConfig(
            at(FILE_NAME, text, path, f"{path[-1]} is a table, not {kind(value)}"),
            hint=f"Write it as [{'.'.join(path)}].",
        )


def _refuse_unknown(document: dict[str, Any], text: str) -> None:
    """Name the tables and keys that have no place in the file, each with what was probably meant."""
    found = list(islice(_unknown(document, text), _MOST_FINDINGS))
    if found:
        hints = [hint if len(found) == 1 else f"{key}: {hint}" for key, _, hint in found]
        raise InvalidConfig("\n".join(detail for _, detail, _ in found), hint="\n".join(hints))


def _unknown(document: dict[str, Any], text: str) -> Iterator[tuple[str, str, str]]:
    """Key, what is wrong with it and what can be done, of each that has no place."""
    for path, table, known in _tables(document):
        for key in table if isinstance(table, dict) else ():
            if key in known:
                continue
            what = "table" if not path and isinstance(table[key], dict) else "key"
            likely = nearest(key, known)
            home = next((name for name, keys in KEYS.items() if key in keys), None)
            if home is not None and likely is None:
                hint = f"{key} belongs in [{home}]."
            elif likely is not None:
                hint = f"Did you mean {likely}?"
            else:
                hint = f"Known here: {', '.join(known)}."
            yield key, at(FILE_NAME, text, (*path, key), f"unknown {what} {key!r}"), hint


def _tables(document: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, list[str]]]:
    """Path, content and known keys of each table that may be there; whether it is one is not known yet."""
    yield (), document, _TABLES
    for key in ("deployment", "project", *OPTIONS):
        yield (key,), document.get(key), KEYS[key]
    named = document.get("deployments")
    for name, table in named.items() if isinstance(named, dict) else ():
        yield ("deployments", name), table, [*KEYS["deployment"], *OPTIONS]
        for key in OPTIONS if isinstance(table, dict) else ():
            yield ("deployments", name, key), table.get(key), KEYS[key]


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that was probably meant."""
    return next(iter(difflib.get_close_matches(word.lower(), known, 1, 0.6)), None)
