"""``crewship login``, ``logout``, ``whoami``: which platform the next commands use."""

import sys
from typing import Annotated

import typer

from cli.options import Globals, connect


def login(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Argument(metavar="URL", help="Address; asked for when left out.")] = None,
) -> None:
    """Store the address and API key of a platform.

    The key comes from --api-key or CREWSHIP_API_KEY, else it is asked for, else it is read from stdin. It is checked before
    it is stored.
    """
    import os

    from cli.client import Client
    from cli.credentials import Target, clean_url, running_dev, write_login
    from cli.output import can_ask, say, say_done, say_next
    from crewship.errors import Usage

    options = ctx.find_object(Globals) or Globals()
    address = url or options.url or os.environ.get("CREWSHIP_URL")
    if not address:
        running = running_dev()
        proposed = running[0][0] if running else "http://127.0.0.1:8700"
        if not can_ask():
            raise Usage("login needs the platform's address", hint=f"crewship login {proposed}")
        address = str(typer.prompt("Address of the platform", default=proposed, err=True))
    address = clean_url(address)
    key = options.api_key or os.environ.get("CREWSHIP_API_KEY")
    if not key and can_ask():
        key = typer.prompt("API key (not shown)", hide_input=True, err=True)
    elif not key:
        key = sys.stdin.readline()
    key = (key or "").strip()
    if not key:
        raise Usage("login needs an API key", hint="pass it on stdin, by --api-key or in CREWSHIP_API_KEY")
    with Client(Target(address, key, "login")) as client:
        client.get("/projects", limit=1)
    path = write_login(address, key)
    say_done(f"Logged in to {address}")
    say(f"  the key is in {path}")
    say_next("crewship deploy", "deploy the crew in this folder")


def logout() -> None:
    """Forget what login stored."""
    from cli.credentials import clear_login
    from cli.output import say, say_done

    if clear_login():
        say_done("Logged out")
    else:
        say("There was no login")


def whoami(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False
) -> None:
    """Say which platform and key are used, and whether they work."""
    from cli.human import until
    from cli.output import data_json, fields

    with connect(ctx) as client:
        target = client.target
        current = client.get("/keys/current")
        key = target.key()
        shown = f"{key[:13]}…" if len(key) > 24 else "…"
        if as_json:
            data_json({"url": target.url, "source": target.source, "api_key": shown, "key": current})
            return
        fields(
            [
                ("server", target.url),
                ("from", target.source),
                ("key", f"{shown} (works)"),
                ("name", f"{current['name']}, {current['id']}"),
                ("may", f"{', '.join(current['scopes'])} in {current['project'] or 'all projects'}"),
                ("ends", until(current["expires_at"])),
            ]
        )
