"""``crewship deployments``: list, show, compare, promote, cancel; the history of what was current."""

import sys
from typing import Annotated, Any

import typer

from cli.options import Json, Name, Project, ProjectChoice, choose_project, connect

Deployment = Annotated[str, typer.Argument(metavar="DEP", help="The deployment's id: dep_...")]

app = typer.Typer(no_args_is_help=True, help="List, show, compare, promote and cancel deployments.")


def _listed(
    ctx: typer.Context, project: str | None, name: str | None, noun: str, limit: int
) -> tuple[ProjectChoice, dict[str, Any]]:
    """What a project has of ``noun``, the newest first, and which project that is."""
    from cli.client import segment
    from crewship.errors import NotFound

    chosen = choose_project(project, name)
    with connect(ctx) as client:
        try:
            return chosen, client.pages(f"/projects/{segment(chosen.name)}/{noun}", noun, limit=limit)
        except NotFound as error:
            raise chosen.explain(error) from None


@app.command("list")
def list_deployments(
    ctx: typer.Context,
    project: Project = None,
    name: Name = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List a project's deployments, the newest first.

    ● is the current one.
    """
    from cli.human import age
    from cli.output import data_json, say, status, table

    chosen, listed = _listed(ctx, project, name, "deployments", limit)
    if as_json:
        data_json(listed)
        return
    if not listed["deployments"]:
        say(f"{chosen.name} has no deployments yet; crewship deploy makes one")
        return
    table(
        ["", "deployment", "status", "created", "entrypoint"],
        [
            ["●" if item["current"] else "", item["id"], status(item["status"]), age(item["created_at"]),
             str((item.get("config") or {}).get("entrypoint", ""))]
            for item in listed["deployments"]
        ],
    )  # fmt: skip
    if listed["next_cursor"]:
        say("  … and more: --limit")


@app.command("show")
def show_deployment(
    ctx: typer.Context,
    deployment: Deployment,
    lock: Annotated[
        bool, typer.Option("--lock", help="Print the Python packages that it was built with, a requirement a line.")
    ] = False,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Print its bill of materials: CycloneDX JSON, with base and system packages.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a deployment: its build, what it runs, what it is made of."""
    from cli.client import segment
    from cli.output import data, data_json
    from crewship.errors import Usage

    if lock + sbom + as_json > 1:
        raise Usage("--lock, --sbom and --json are three documents: ask for one at a time")
    path = f"/deployments/{segment(deployment)}"
    with connect(ctx) as client:
        if lock or sbom:
            text = client.text(f"{path}/{'lock' if lock else 'sbom'}")
        else:
            found = client.get(path)
    if lock or sbom:
        data(text.removesuffix("\n"))
    elif as_json:
        data_json(found)
    else:
        print_deployment(found)


@app.command("diff")
def diff_deployments(
    ctx: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help="A deployment's id.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one's, which is compared with it.")],
    as_json: Json = False,
) -> None:
    """Show what differs between two deployments.

    That is files, packages, config, base image, and env vars (names only).
    """
    from cli.client import segment
    from cli.diff import lines
    from cli.output import data, data_json, paint_for, say

    with connect(ctx) as client:
        found = client.get(f"/deployments/{segment(before)}/diff/{segment(after)}")
    if as_json:
        data_json(found)
        return
    for line in lines(found, paint_for(sys.stdout)):
        data(line)
    if found["same"]:
        say(f"{before} and {after} have the same files, packages and config")


@app.command("cancel")
def cancel_deployment(ctx: typer.Context, deployment: Deployment, as_json: Json = False) -> None:
    """Stop a build; what was current stays current."""
    from cli.client import segment
    from cli.output import data_json, say, say_done, say_next

    with connect(ctx) as client:
        found = client.post(f"/deployments/{segment(deployment)}/cancel")
    if as_json:
        data_json(found)
    elif found["status"] in ("ready", "failed"):
        say(f"{found['id']} is {found['status']} already")
    else:
        say_done(f"{found['id']} is being canceled")
        say_next(f"crewship deployments show {found['id']}", "see how it ends")


def _image(found: dict[str, Any]) -> str:
    removed = found.get("image_removed_at")
    return f"removed {removed}; deploy that version again to go back to it" if removed else found.get("image") or ""


def print_deployment(found: dict[str, Any]) -> None:
    """A deployment for people."""
    from cli.human import age, duration, parse_time
    from cli.output import fields, status

    config = found.get("config") or {}
    error = found.get("error") or {}
    built = ""
    if found.get("ready_at"):
        took = parse_time(found["ready_at"]) - parse_time(found["created_at"])
        built = f"in {duration(took.total_seconds() * 1000)}"
    fields(
        [
            ("deployment", found["id"] + (" (current)" if found.get("current") else "")),
            ("project", found["project"]),
            ("status", status(found["status"])),
            ("created", f"{age(found['created_at'])}  {found['created_at']}"),
            ("built", built),
            ("framework", str(config.get("framework") or "")),
            ("entrypoint", str(config.get("entrypoint") or "")),
            ("python", str(found.get("python") or config.get("python") or "")),
            ("base", found.get("base_image") or ""),
            ("image", _image(found)),
            ("source", found.get("source_sha256") or ""),
            ("error", f"{error.get('message', '')} [{error.get('code', '')}]" if error else ""),
            ("hint", error.get("hint") or ""),
            ("traceback", error.get("traceback") or ""),
        ]
    )


@app.command("promote")
def promote_deployment(
    ctx: typer.Context,
    deployment: Deployment,
    with_env: Annotated[
        bool, typer.Option("--with-env", help="Restore the env vars too, as it last ran with them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a ready deployment its project's current one.

    Nothing is built. It may be one that was deployed with --no-activate, or an earlier one.
    """
    from cli.client import segment
    from cli.deploy import say_switched

    with connect(ctx) as client:
        done = client.post(f"/deployments/{segment(deployment)}/promote", {"with_env": True} if with_env else {})
    say_switched(done, "is on {} now", as_json=as_json)


@app.command("history")
def show_history(
    ctx: typer.Context,
    project: Project = None,
    name: Name = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what was current when, the newest first.

    That is each deploy, rollback and promotion, with who made it.
    """
    from cli.human import age
    from cli.output import data_json, say, table

    chosen, listed = _listed(ctx, project, name, "activations", limit)
    if as_json:
        data_json(listed)
        return
    if not listed["activations"]:
        say(f"{chosen.name} has had no current deployment yet; crewship deploy makes one")
        return
    table(
        ["when", "what", "from", "to", "env", "by"],
        [
            [age(item["at"]), item["kind"], item["previous_deployment_id"] or "-", item["deployment_id"],
             _env_step(item), item["by_name"] or item["by"]]
            for item in listed["activations"]
        ],
    )  # fmt: skip
    if listed["next_cursor"]:
        say("  … and more: --limit")


def _env_step(activation: dict[str, Any]) -> str:
    """The env version of a switch; both when it restored another one."""
    before, after = activation["previous_env_version"], activation["env_version"]
    if after is None:
        return "-"
    return f"v{after}" if before == after else f"v{before} → v{after}"
