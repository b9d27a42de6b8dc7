"""New projects from templates: a folder of ``cli/templates`` copied under another name.

A template is a project that works as it stands, called ``my-crew``; its three names (``my-crew``, ``my_crew``, ``MyCrew``)
are replaced in file names and contents.
"""

import keyword
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from crewship.config_file import normalized_name
from crewship.errors import Conflict, Usage

_RENAMED = {"gitignore": ".gitignore"}
"""So called here, or they would hold for the template itself."""
_TAKEN = {"crewai", "langgraph", "langchain", "crewship", "crewship_runtime", "src", "tests", "config", "artifacts"}
"""Package names that would hide another one."""


def names() -> list[str]:
    """The templates there are."""
    return sorted(folder.name for folder in _templates().iterdir() if folder.is_dir() and folder.name[0].isalpha())


def create(template: str, target: Path) -> str:
    """Make the project in ``target``, whose last part is its name; the project's name as the platform spells it.

    All or nothing: it is written beside its place and moved there.

    Raises:
        Usage: there is no such template, or no project can have that name.
        Conflict: ``target`` is there and not empty.
    """
    if template not in names():
        raise Usage(f"there is no template {template!r}", hint=f"there are {', '.join(names())}")
    target = Path(os.path.abspath(target))
    project = normalized_name(target.name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"{target} is there already", hint="name another folder, or run init without --template in it")
    if not target.parent.is_dir():
        raise Usage(f"{target.parent} is not a folder", hint="make it first, or name another place")
    spelling = {"my-crew": project, "my_crew": package_name(project), "MyCrew": class_name(project)}
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{project}-", dir=target.parent))
        try:
            for name, content in _files(_templates() / template):
                path = draft / _spelled(name, spelling)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(_spelled(content, spelling), encoding="utf-8")
            draft.chmod(0o777 & ~_umask())
            if target.exists():
                target.rmdir()
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise Usage(f"{target} cannot be made: {error.strerror}") from error
    return project


def package_name(project: str) -> str:
    """``2nd-crew`` → ``crew_2nd_crew``: a package of that name can be imported and hides no other."""
    name = project.replace("-", "_")
    if name[0].isdigit():
        name = f"crew_{name}"
    if name in _TAKEN or name in sys.stdlib_module_names or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        name = f"{name}_crew"
    return name


def class_name(project: str) -> str:
    """``my-crew`` → ``MyCrew``; ``weather`` → ``WeatherCrew``."""
    name = "".join(part.capitalize() for part in project.split("-"))
    if name[0].isdigit():
        return f"Crew{name}"
    return name if "crew" in project.split("-") else f"{name}Crew"


def _templates() -> Traversable:
    return resources.files("cli") / "templates"


def _files(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, f"{above}{entry.name}/")
        elif not entry.name.endswith(".pyc"):
            yield above + _RENAMED.get(entry.name, entry.name), entry.read_text(encoding="utf-8")


def _spelled(text: str, spelling: dict[str, str]) -> str:
    for placeholder, name in spelling.items():
        text = text.replace(placeholder, name)
    return text


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
