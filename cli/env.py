"""``crewship env``: environment variables of a project. Values go to the platform and never come back."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import Json, Name, Project, choose_project, connect

app = typer.Typer(no_args_is_help=True, help="Set, list and unset a project's environment variables.")

_IN_LOGS = {True: "redacted", False: "as it is", None: "?"}
Build = Annotated[
    bool,
    typer.Option(
        "--build", help="Secrets of the project's builds (a private index, a CA bundle); runs never have them."
    ),
]

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"


@app.command("set")
def set_env(
    ctx: typer.Context,
    pairs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="K=V...", help="Name and value; of a name alone the value is asked for, or read from stdin."
        ),
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="FILE", help="Take all variables of a .env file.")
    ] = None,
    build: Build = False,
    project: Project = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Set variables; all or none. The next run has them.

    Works before the first deploy too: it makes the project.

    Examples:

      crewship env set OPENAI_API_KEY=sk-...

      crewship env set --build UV_INDEX_URL=https://user:token@pypi.corp/simple

      crewship env set --build CA_BUNDLE < corp-ca.pem
    """
    from cli.client import segment
    from cli.output import data_json, say_done, say_warning
    from crewship.errors import Usage

    values = read_file(from_file) if from_file else {}
    values |= read_pairs(pairs or [])
    if not values:
        raise Usage("env set needs at least one variable", hint="crewship env set OPENAI_API_KEY=sk-...")
    chosen = choose_project(project, name)
    with connect(ctx) as client:
        answer = client.patch(f"/projects/{segment(chosen.name)}/{_noun(build)}", {"set": values, "unset": []})
    if as_json:
        data_json(answer)
        return
    has = f"the next {'build' if build else 'run'} has {'it' if len(values) == 1 else 'them'}"
    say_done(f"Set {', '.join(sorted(values))} on {chosen.name}; {has}")
    if shown := answer.get("shown"):
        say_warning(
            f"logs will show {', '.join(shown)} as {'it is' if len(shown) == 1 else 'they are'}: what is shorter than 8 "
            "characters, a number, a common word or no secret by its name is not redacted"
        )


@app.command("list")
def list_env(
    ctx: typer.Context,
    build: Build = False,
    project: Project = None,
    name: Name = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=0, help="As they were; default: as they are.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the variables' names; a value is never shown.

    The version that runs use is named, or the one that is asked for is listed.
    """
    from cli.client import segment
    from cli.human import age
    from cli.output import data_json, say, table
    from crewship.errors import NotFound

    chosen = choose_project(project, name)
    with connect(ctx) as client:
        try:
            answer = client.get(f"/projects/{segment(chosen.name)}/{_noun(build)}", version=version)
        except NotFound as error:
            raise chosen.explain(error) from None
    if as_json:
        data_json(answer)
        return
    if build:
        rows = [[item["name"], age(item["updated_at"])] for item in answer["build_secrets"]]
        table(["name", "updated"], rows) if rows else say(f"{chosen.name} has no build secrets")
        return
    if answer["env"]:
        table(
            ["name", "value", "in logs", "updated"],
            [
                [item["name"], item.get("preview") or "…", _IN_LOGS[item.get("redacted")], age(item["updated_at"])]
                for item in answer["env"]
            ],
        )
    if answer["version"] != answer["current_version"]:
        say(f"Version {answer['version']} of {chosen.name}; runs use version {answer['current_version']}")
    elif answer["env"]:
        say(f"Version {answer['version']}, which runs of {chosen.name} use from their start on")
    else:
        say(f"{chosen.name} has no variables; crewship env set NAME=VALUE")


@app.command("unset")
def unset_env(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="K...", help="Their names.")],
    build: Build = False,
    project: Project = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Remove variables; all or none."""
    from cli.client import segment
    from cli.output import data_json, say, say_done
    from crewship.errors import NotFound

    chosen = choose_project(project, name)
    path = f"/projects/{segment(chosen.name)}/{_noun(build)}"
    with connect(ctx) as client:
        try:
            found = client.get(path)["build_secrets" if build else "env"]  # removing must not make a project
            there = {item["name"] for item in found}
        except NotFound as error:
            raise chosen.explain(error) from None
        answer = client.patch(path, {"set": {}, "unset": names})
    if as_json:
        data_json(answer)
        return
    removed = sorted(there & set(names))
    if removed:
        say_done(f"Removed {', '.join(removed)} from {chosen.name}")
    for name_ in sorted(set(names) - there):
        say(f"{name_} was not set on {chosen.name}")


def _noun(build: bool) -> str:
    """Where the variables are, below their project."""
    return "build-secrets" if build else "env"


def read_pairs(pairs: list[str]) -> dict[str, str]:
    """Variables of ``K=V`` arguments; the value of a ``K`` alone is asked for, or is all of stdin.

    Raises:
        Usage: a name is none, or stdin would have to give several values.
    """
    from cli.output import can_ask
    from crewship.errors import Usage

    values: dict[str, str] = {}
    asked = [pair for pair in pairs if "=" not in pair]
    if len(asked) > 1 and not can_ask():
        raise Usage("stdin can give the value of one variable only", hint="crewship env set --from-file .env")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not re.fullmatch(_NAME, name):
            # The argument may be a value that got torn from its name, so it is not shown.
            raise Usage(
                "a variable's name has letters, digits and _ alone, and no digit first",
                hint="crewship env set OPENAI_API_KEY=sk-...",
            )
        if equals:
            values[name] = value
        elif can_ask():
            answer: Any = typer.prompt(f"{name} (not shown)", hide_input=True, err=True)
            values[name] = str(answer)
        else:
            values[name] = sys.stdin.read().removesuffix("\n").removesuffix("\r")
            if not values[name]:
                raise Usage(f"{name} has no value, and stdin is empty", hint=f"crewship env set {name}=VALUE")
    return values


def read_file(path: Path) -> dict[str, str]:
    """Variables of a ``.env`` file; ``-`` is stdin. Nothing is interpolated from this machine's environment.

    Raises:
        Usage: it cannot be read, or one line of it.
    """
    import io

    from dotenv.parser import parse_stream

    from crewship.errors import Usage

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"{path} is not UTF-8 text") from None
    values: dict[str, str] = {}
    for key, value, original, is_broken in parse_stream(io.StringIO(text)):
        if is_broken:
            mistake, hint = "not NAME=VALUE", "a quote that is opened has to be closed; a comment begins with #"
        elif key is None:
            continue
        elif not re.fullmatch(_NAME, key):
            mistake, hint = "a variable's name has letters, digits and _ alone, and no digit first", "write NAME=VALUE"
        elif value is None:
            mistake, hint = "a name without a value", "write NAME=VALUE, or NAME= for an empty one"
        else:
            values[key] = value
            continue
        # The line itself may be a secret, so it is not shown; the parser counts the empty ones above as part of it.
        raw = original.string
        line = original.line + raw[: len(raw) - len(raw.lstrip())].count("\n")
        raise Usage(f"{'stdin' if str(path) == '-' else path}, line {line}: {mistake}; nothing was set", hint=hint)
    if not values:
        raise Usage(f"{path} has no variables", hint="write one a line: NAME=VALUE")
    return values
