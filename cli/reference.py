"""Writes ``docs/reference/cli.md`` from the app itself: ``python -m cli.reference`` (``--check`` only compares)."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

PATH = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"

_HEAD = """\
# The crewship command

Written by `python -m cli.reference` from the commands themselves.

Data goes to stdout, talk to stderr. Every reading command has `--json`, which prints the API's own object. The global
options may stand before or after any command. Colours are off when `NO_COLOR` is set or the output is not a terminal.

## Exit codes

| code | meaning |
|---|---|
| 0 | ok |
| 1 | an error; stderr says which |
| 2 | the command line cannot be understood |
| 3 | not authenticated, or not allowed |
| 4 | not found |
| 5 | conflict with what is there |
| 6 | the platform, or a part of it, cannot be reached |
| 7 | the run failed |
| 8 | the run was canceled |
| 130 | interrupted by Ctrl-C |

## Server and key

In this order: `--url` and `--api-key`; `CREWSHIP_URL` and `CREWSHIP_API_KEY`; what `crewship login` stored; a
`crewship dev` that runs on this machine. A key is only ever sent to the address that it was stored for.

## Which project

`--project/-p`, or `--name/-n` for a `[deployments.<name>]` table; else `[project] name` in `crewship.toml`, else the name
in `pyproject.toml`, else the folder's.

## Commands
"""


def render() -> str:
    """The page."""
    from cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("crewship", ["--help"], resilient_parsing=True)
    pages = [_HEAD]
    for path, command in _commands(group, context, "crewship"):
        context = type(context)(command, info_name=path)
        context.terminal_width = context.max_content_width = 100
        pages.append(f"### {path}\n\n```\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(pages)


def _commands(group: Any, context: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, context, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    page = render()
    if "--check" in sys.argv[1:]:
        if PATH.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PATH.name} is not current; run python -m cli.reference", file=sys.stderr)
        return 1
    PATH.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
