"""The ``crewship`` command: composition of its commands, nothing else.

Every module that is imported here is light; what a command needs it imports when it runs, so that ``--help`` is instant.
The CLI speaks HTTP to the platform (:mod:`cli.client`) and never to its parts.
"""

import gc as collector
import os
import sys
from typing import Annotated

import typer

from cli import deployments, env, keys, projects, runs, sealing
from cli.audit import audit
from cli.deploy import deploy
from cli.dev import dev
from cli.doctor import doctor
from cli.gc import gc
from cli.init import init
from cli.invoke import invoke
from cli.login import login, logout, whoami
from cli.netguard import netguard
from cli.options import Globals
from cli.root import RootGroup
from cli.run import run

# httpx brings a command line of its own, whose terminal toolkit and highlighter take half of the time of a short command of ours.
# Where they are missing it does without, and so it does when it finds that this module cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

app = typer.Typer(
    name="crewship", cls=RootGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def print_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import version

        from cli.output import data

        data(version("crewship"))
        raise typer.Exit


@app.callback(epilog="These options may stand after the command too. crewship COMMAND --help tells more of each.")
def root(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Address of the platform; default: CREWSHIP_URL, else that of the login, else a crewship dev here.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", help="Its API key; default: CREWSHIP_API_KEY, else the stored one."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more: the server used, what a build prints.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version.")
    ] = False,
) -> None:
    """Deploy Python agent crews with one command, and run each invocation in a container of its own."""
    ctx.obj = Globals(url=url, api_key=api_key, verbose=verbose, debug=debug)


for command in (dev, doctor, init, login, logout, whoami, deploy, run, invoke, gc, audit, netguard):
    app.command(command.__name__)(command)
app.add_typer(runs.app, name="runs")
app.add_typer(deployments.app, name="deployments")
app.add_typer(env.app, name="env")
app.add_typer(projects.app, name="projects")
app.add_typer(keys.app, name="keys")
app.add_typer(sealing.app, name="sealing")


def main() -> None:
    """Entry point of the ``crewship`` script."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for some takes 20 ms
    try:
        app()
    finally:
        collector.freeze()  # what lives to the end need not be looked at then: 50 ms


if __name__ == "__main__":
    main()
