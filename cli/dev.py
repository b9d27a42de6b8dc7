"""``crewship dev``: the whole platform on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from crewship.devserver import Running


def dev(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address that the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="Port of the API.", min=1, max=65535)] = 8700,
    ui_port: Annotated[int, typer.Option(metavar="PORT", help="Port of Temporal's web UI.", min=1, max=65535)] = 8701,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of all its state; default: CREWSHIP_DATA_DIR, else one in your home."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say as JSON that it is ready.")] = False,
) -> None:
    """Run the whole platform on this machine; Ctrl-C stops it."""
    import sys

    from cli.output import say, say_done
    from crewship.devserver import DevOptions, DevServer, Running
    from crewship.provision.progress import progress_for
    from crewship.settings import Settings

    settings = Settings()
    options = DevOptions((data or settings.data_dir).expanduser().absolute(), host, port, ui_port)

    def on_ready(running: Running) -> None:
        _announce(running, host, as_json)

    DevServer(options, settings, progress_for(sys.stderr), say).serve(on_ready)
    say_done("stopped")


def _announce(running: "Running", host: str, as_json: bool) -> None:
    """One line on stdout that says that it is ready; what to do now on stderr."""
    import json

    from cli.output import data, say, say_next, say_warning
    from crewship.addresses import is_loopback

    if as_json:
        told = {
            "url": running.url,
            "api_key": running.api_key,
            "temporal_ui": running.temporal_ui,
            "data": str(running.data),
        }
        data(json.dumps(told))
        return
    data(f"Crewship is ready at {running.url}")
    if not is_loopback(host):
        say_warning(f"it listens on {host}: others can reach it, and without TLS they can read the keys that pass by")
    if running.api_key:
        say(f"  admin key: {running.api_key}")
        say("             shown this once; the CLI on this machine has it already")
    say(f"  Temporal:  {running.temporal_ui}")
    say(f"  state:     {running.data}")
    say_next("crewship deploy examples/report-crew", "deploy an example, in another terminal")
    say_next("Ctrl-C", "stop")
