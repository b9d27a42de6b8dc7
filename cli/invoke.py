"""``crewship invoke``: start a run, and wait for it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import Name, Project, choose_project, connect

EXIT_FAILED = 7
EXIT_CANCELED = 8
EXIT_INTERRUPTED = 130

_INPUT_HINT = "name a file with a JSON object: -i @input.json"


def invoke(
    ctx: typer.Context,
    deployment: Annotated[
        str | None, typer.Argument(metavar="DEP", help="A deployment's id; default: the project's current one.")
    ] = None,
    name: Name = None,
    project: Project = None,
    input_: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON|@FILE|-", help="A JSON object, a file with one, or stdin.")
    ] = "{}",
    stream: Annotated[bool, typer.Option("--stream", "-s", help="Show the events as they happen.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the run's id and do not wait.")] = False,
    download: Annotated[
        Path | None, typer.Option("--download", metavar="DIR", help="Save the artifacts there when it has ended.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="K=V", help="Label the run; may be repeated.")
    ] = None,
    timeout: Annotated[
        int | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="End the run when it takes longer.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option("--priority", metavar="1-5", min=1, max=5, help="1 is most urgent; default: 3.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the Run as JSON; with --stream the events as NDJSON.")
    ] = False,
) -> None:
    """Run a crew and print what it returns.

    Exits 0 when the run succeeded, 7 when it failed, 8 when it was canceled. Ctrl-C cancels the run; a second one forces.

    Examples:

      crewship invoke -i '{"topic": "quantum computing"}' --stream

      crewship invoke dep_abc123 -i @input.json --download out
    """
    from cli.output import data, data_json, say, say_next
    from cli.watch import LeftRunning, Watch, print_output, say_end, say_next_step
    from crewship.errors import NotFound, Usage

    if detach and (stream or download):
        raise Usage(f"--detach does not go with {'--stream' if stream else '--download'}: it does not wait")
    if download is not None:
        from cli.artifacts import refuse_file

        refuse_file(download)  # before there is a run
    body: dict[str, Any] = {"input": read_input(input_)}
    if label:
        body["labels"] = read_labels(label)
    if timeout:
        body["timeout_seconds"] = timeout
    if priority:
        body["priority"] = priority
    chosen = None
    if deployment is not None:
        if not deployment.startswith("dep_"):
            raise Usage(
                f"{deployment} is not a deployment's id", hint=f"for a project: crewship invoke -p {deployment}"
            )
        if project or name:
            raise Usage("a deployment's id says its project already; leave -p and -n out")
        body["deployment_id"] = deployment
    else:
        chosen = choose_project(project, name)
        body["project"] = chosen.name
    with connect(ctx) as client:
        try:
            run = client.post_once("/runs", body)
        except NotFound as error:
            raise (chosen.explain(error) if chosen else error) from None
        if detach:
            if as_json:
                data_json(run)
            else:
                data(run["id"])
                say_next(f"crewship runs events {run['id']} --follow", "watch it")
            return
        if not as_json:
            target = f"{run['project']} · {run['deployment_id']}"
            say(f"{run['id']} on {target}")
        watch = Watch(client, run)
        try:
            run = watch.stream(ndjson=as_json) if stream else watch.until_end()
        except LeftRunning:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        say_end(run, drawn=stream and not as_json)
        if download is not None:
            from cli.artifacts import download_all

            download_all(client, run["id"], download, overwrite=True)
        if as_json and not stream:
            data_json(run)
        elif not as_json and run["status"] == "succeeded":
            print_output(run["output"])
        if not as_json:
            say_next_step(run, downloaded=download is not None)
    if watch.interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if run["status"] != "succeeded":
        raise typer.Exit(EXIT_FAILED if run["status"] == "failed" else EXIT_CANCELED)


def read_input(argument: str) -> dict[str, Any]:
    """The input object of ``-i``: JSON itself, ``@file``, or ``-`` for stdin.

    Raises:
        Usage: it cannot be read, is no JSON, or no object.
    """
    from crewship.errors import Usage

    if argument == "-":
        text, where = sys.stdin.read(), "stdin"
    elif argument.startswith("@"):
        where = argument[1:]
        try:
            text = Path(where).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise Usage(f"the input file {where or '@'} cannot be read: {error.strerror}", hint=_INPUT_HINT) from None
        except UnicodeDecodeError:
            raise Usage(f"the input file {where} is not UTF-8 text", hint=_INPUT_HINT) from None
    else:
        text, where = argument, "--input"
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # Python reads NaN and 1e999, which are no JSON
    except ValueError as error:
        hint = 'in a shell put it in single quotes: -i \'{"topic": "quantum computing"}\''
        if where == "--input" and Path(argument).is_file():
            hint = f"to read a file: -i @{argument}"
        raise Usage(f"the input ({where}) is not JSON: {error}", hint=hint) from None
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        raise Usage(
            f"the input ({where}) has to be a JSON object, not {kind}",
            hint="the crew gets it as a dictionary: -i '{\"topic\": ...}'",
        )
    return value


def read_labels(pairs: list[str]) -> dict[str, str]:
    """Labels of ``K=V`` arguments.

    Raises:
        Usage: one has no ``=`` or no key.
    """
    from crewship.errors import Usage

    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Usage(f"{pair!r} is not a label", hint="--label team=search")
        labels[key] = value
    return labels
