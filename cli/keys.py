"""``crewship keys``: make, list and revoke API keys."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.options import Json, connect

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")


class Scope(StrEnum):
    """What a key may do."""

    read = "read"
    invoke = "invoke"
    deploy = "deploy"
    env = "env"
    admin = "admin"


@app.command("create")
def create_key(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is for, such as ci; lists and the audit log show it.")
    ],
    scopes: Annotated[list[Scope], typer.Option("--scope", "-s", help="What it may do; may be repeated.")],
    project: Annotated[
        str | None, typer.Option("--project", "-p", metavar="PROJECT", help="Bind it to this project; default: all.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="WHEN", help="90d, or a time; default: it does not expire.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create an API key. It is printed on stdout, this once.

    read: everything but secrets. invoke: start and cancel runs. deploy: deployments, rollback, projects. env: environment
    variables. admin: all of that, keys, the audit log and deletion. Each of them contains read.
    """
    from cli.human import until
    from cli.moments import ahead
    from cli.output import data, data_json, say, say_done, say_next

    body = {
        "name": name,
        "scopes": [scope.value for scope in scopes],
        "project": project,
        "expires_at": ahead(expires, "--expires") if expires else None,
    }
    with connect(ctx) as client:
        made = client.post("/keys", body)
        if as_json:
            data_json(made)
            return
        say_done(f"{made['id']} may {', '.join(made['scopes'])} in {made['project'] or 'all projects'}")
        say(f"  the key below is shown this once; it {until(made['expires_at'])}")
        data(made["key"])
        say_next(f"crewship login {client.target.url}", "use it on another machine")


@app.command("list")
def list_keys(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Those that are revoked, too.")] = False,
    as_json: Json = False,
) -> None:
    """List API keys, the newest first; never their secrets."""
    from cli.human import age, until
    from cli.output import data_json, status, table

    with connect(ctx) as client:
        listed = client.pages("/keys", "keys", include_revoked=True if all_ else None)
    if as_json:
        data_json(listed)
        return
    table(
        ["key", "name", "begins", "scopes", "project", "last used", "status"],
        [
            [
                item["id"], item["name"], f"{item['prefix']}…", ",".join(item["scopes"]), item["project"] or "all",
                age(item["last_used_at"]),
                until(item["expires_at"]) if item["status"] == "active" else status(item["status"]),
            ]
            for item in listed["keys"]
        ],
    )  # fmt: skip


@app.command("revoke")
def revoke_key(
    ctx: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_..., or its name if only one is called so.")],
) -> None:
    """Revoke an API key: from the next call on it is refused, for ever."""
    from cli.client import segment
    from cli.output import say_done

    with connect(ctx) as client:
        found = client.get(f"/keys/{segment(key)}") if key.startswith("key_") else _named(client, key)
        client.delete(f"/keys/{segment(found['id'])}")
    say_done(f"{found['id']} ({found['name']}) is revoked")


def _named(client: Any, name: str) -> dict[str, Any]:
    from crewship.errors import Conflict, NotFound

    found: list[dict[str, Any]] = [item for item in client.pages("/keys", "keys")["keys"] if item["name"] == name]
    if not found:
        raise NotFound(f"there is no key called {name!r}", hint="crewship keys list")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} keys are called {name!r}",
            hint="say which: crewship keys revoke " + " | ".join(k["id"] for k in found),
        )
    return found[0]
