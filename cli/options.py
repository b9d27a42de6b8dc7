"""Options that many commands share, and what stands behind them: the connection and the project that is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crewship.errors import InvalidConfig, NotFound, Usage

if TYPE_CHECKING:
    from cli.client import Client

Json = Annotated[bool, typer.Option("--json", help="Print the API's own JSON.")]
Project = Annotated[
    str | None, typer.Option("--project", "-p", metavar="PROJECT", help="The project; default: the one of this folder.")
]
Name = Annotated[
    str | None,
    typer.Option("--name", "-n", metavar="NAME", help="The project of a [deployments.NAME] in crewship.toml."),
]


@dataclass(frozen=True, slots=True)
class Globals:
    """Options before or after any command."""

    url: str | None = None
    api_key: str | None = None
    verbose: bool = False
    debug: bool = False


def connect(ctx: typer.Context) -> Client:
    """A client for the server that the options, the environment or this machine name."""
    from cli.client import Client
    from cli.credentials import find_target

    options = ctx.find_object(Globals) or Globals()
    target = find_target(options.url, options.api_key)
    if options.verbose:
        from cli.output import say

        say(f"server {target.url} (from {target.source})")
        for other in target.others:
            say(f"another crewship dev runs at {other}; --url chooses")
    return Client(target)


@dataclass(frozen=True, slots=True)
class ProjectChoice:
    """A project's name, and whether it was only guessed from the folder."""

    name: str
    guessed: bool

    def explain(self, error: NotFound) -> NotFound:
        """Say where the name came from, when the platform does not know the project."""
        if not self.guessed or error.code != "project_not_found":
            return error
        return NotFound(
            error.detail,
            hint=f"the name {self.name} comes from this folder: crewship deploy makes the project, -p names another",
            code=error.code,
        )


def choose_project(project: str | None, name: str | None, folder: Path | None = None) -> ProjectChoice:
    """Which project a command means: ``-p``, else ``-n``, else what the folder says.

    Raises:
        Usage: the folder has several named deployments and nobody to ask which.
        InvalidConfig: its ``crewship.toml`` cannot be read.
    """
    from crewship.config_file import choose, deployment_names, normalized_name, project_name

    if project:
        return ProjectChoice(project, guessed=False)
    folder = folder or Path.cwd()
    text = config_text(folder)
    if text is None:
        return ProjectChoice(normalized_name(name) if name else project_name(folder), guessed=name is None)
    names = deployment_names(text)
    if names:
        return ProjectChoice(project_name(folder, name or pick(names)), guessed=False)
    if name:
        choose(text, name)  # says that there is no such table
    return ProjectChoice(project_name(folder), guessed=True)


def config_text(folder: Path) -> bytes | None:
    """``crewship.toml`` in ``folder``, or None when there is none."""
    try:
        return (folder / "crewship.toml").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidConfig(f"crewship.toml cannot be read: {error.strerror}") from None


def pick(names: list[str]) -> str:
    """The one of several ``[deployments.<name>]`` tables; a terminal is asked.

    Raises:
        Usage: there is nobody to ask.
    """
    from cli.output import can_ask, say

    if len(names) == 1:
        return names[0]
    if not can_ask():
        raise Usage(
            f"crewship.toml has several deployments: {', '.join(names)}",
            hint=f"say which one: -n {names[0]}",
        )
    for number, name in enumerate(names, 1):
        say(f"  {number}  {name}")
    while True:
        answer: Any = typer.prompt("Which deployment", default=names[0], err=True)
        if answer in names:
            return str(answer)
        if str(answer).isdigit() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        say(f"{answer} is none of them")
