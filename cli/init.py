"""``crewship init``: find the crew in a folder and write its ``crewship.toml``, or begin a new project from a template."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.detect import Candidate


def init(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="The project's folder; with --template the new one.")
    ] = ".",
    template: Annotated[
        str | None,
        typer.Option("--template", "-t", metavar="NAME", help="Make a new project: crewai, langgraph or python."),
    ] = None,
    entrypoint: Annotated[
        str | None, typer.Option("--entrypoint", metavar="MODULE:ATTRIBUTE", help="Take this one instead of looking.")
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option("--framework", metavar="NAME", help="crewai, langgraph or python; default: what the crew uses."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: take what fits best.")] = False,
) -> None:
    """Find the crew in a folder, or begin a new one.

    Nothing of the project is run. Only what cannot be told from its files is asked.

    Examples:

      crewship init

      crewship init --template crewai my-crew
    """
    from cli.detect import candidates, facts, framework_of, python_version
    from cli.output import say, say_done, say_next, say_warning
    from crewship.config import load
    from crewship.config_file import project_name
    from crewship.errors import Conflict, InvalidConfig, Usage

    if template is not None:
        if entrypoint or framework:
            raise Usage(
                f"--template does not go with {'--entrypoint' if entrypoint else '--framework'}",
                hint="the template has both; change its crewship.toml afterwards",
            )
        begin(template, path)
        return
    folder = Path(path)
    if not folder.is_dir():
        raise Usage(f"{folder} is not a folder")
    target = folder / "crewship.toml"
    if target.exists():
        raise Conflict(f"{target} is there already", hint="edit it, or delete it and run init again")
    if entrypoint is None:
        found = candidates(folder)
        if not found:
            raise InvalidConfig(
                "no crew was found in this folder",
                hint="write one, for example main.py with:\n"
                "    def kickoff(inputs: dict):\n"
                '        return {"hello": inputs.get("name")}\n'
                "or name it: crewship init --entrypoint module.path:attribute",
                code="entrypoint_not_found",
            )
        for fact in facts(folder):
            say(f"Found {fact}")
        best = choose(found, yes=yes)
        say(f"Found {best.what}: {best.entrypoint}")
        for other in [each for each in found if each is not best][:5]:
            say(f"  also {other.what}: {other.entrypoint}")
        entrypoint, framework = best.entrypoint, framework or best.framework
    else:
        framework = framework or framework_of(folder)
    lines = ["[deployment]", f'framework = "{framework}"', f'entrypoint = "{entrypoint}"']
    version = python_version(folder)
    if version:
        lines.append(f'python = "{version}"')
    text = "\n".join(lines) + "\n"
    load(text)  # says what is wrong with an entrypoint that was typed
    target.write_text(text, encoding="utf-8")
    say_done(f"Wrote {target} for the project {project_name(folder)}")
    for line in lines[1:]:
        say(f"    {line}")
    if framework != "python" and not any((folder / name).exists() for name in ("requirements.txt", "pyproject.toml")):
        say_warning(f"there is no requirements.txt and no pyproject.toml, and {framework} has to be installed by one")
    say_next("crewship deploy" + (f" {path}" if path != "." else ""), "deploy it")


def choose(found: "list[Candidate]", *, yes: bool) -> "Candidate":
    """The likeliest; a person is asked when several are as likely.

    Raises:
        Usage: several are, and there is nobody to ask.
    """
    from cli.detect import alternatives
    from cli.output import can_ask, say
    from crewship.errors import Usage

    between = alternatives(found)
    if len(between) == 1 or yes:
        return between[0]
    if not can_ask():
        raise Usage(
            f"there are several crews: {', '.join(each.entrypoint for each in between[:10])}",
            hint=f"say which one: crewship init --entrypoint {between[0].entrypoint}; or --yes for the first",
        )
    for number, each in enumerate(between, 1):
        say(f"  {number}  {each.entrypoint}  ({each.what})")
    while True:
        answer = str(typer.prompt("Which one", default=between[0].entrypoint, err=True))
        for number, each in enumerate(between, 1):
            if answer in (each.entrypoint, str(number)):
                return each
        say(f"{answer} is none of them")


def begin(template: str, path: str) -> None:
    """Make a new project, and say what to do with it."""
    from cli.output import say_done, say_next
    from cli.template import create
    from crewship.errors import Usage

    if path == ".":
        raise Usage("a new project needs a name", hint=f"crewship init --template {template} my-crew")
    project = create(template, Path(path))
    say_done(f"Made the project {project} in {path}; it runs without a model provider's key")
    say_next(f"cd {shlex.quote(path)} && crewship run --local", "try it here")
    say_next(f"crewship deploy {shlex.quote(path)}", "deploy it")
