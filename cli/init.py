"""``crewship init``: find the crew in a folder and write its ``crewship.toml``."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The project's folder.")] = ".",
    entrypoint: Annotated[
        str | None, typer.Option("--entrypoint", metavar="MODULE:ATTRIBUTE", help="Take this one instead of looking.")
    ] = None,
    framework: Annotated[
        str | None,
        typer.Option("--framework", metavar="NAME", help="crewai, langgraph or python; default: what the crew uses."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: take what fits best.")] = False,
) -> None:
    """Find the crew in a folder and write crewship.toml."""
    from cli.detect import candidates, framework_of, python_version
    from cli.output import can_ask, say, say_done, say_next, say_warning
    from crewship.config import load, project_name
    from crewship.errors import Conflict, InvalidConfig, Usage

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
        best = found[0]
        say(f"Found {best.what}: {best.entrypoint}")
        for other in found[1:6]:
            say(f"  also {other.what}: {other.entrypoint}")
        entrypoint, framework = best.entrypoint, framework or best.framework
        if not yes and can_ask():
            entrypoint = str(typer.prompt("Entrypoint", default=entrypoint, err=True))
            framework = next((each.framework for each in found if each.entrypoint == entrypoint), framework)
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
