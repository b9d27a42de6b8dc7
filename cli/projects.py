"""``crewship projects``: list and delete."""

from typing import Annotated

import typer

from cli.options import Json, connect

app = typer.Typer(no_args_is_help=True, help="List and delete projects.")


@app.command("list")
def list_projects(
    ctx: typer.Context,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many; default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List projects."""
    from cli.human import age
    from cli.output import data_json, say, table

    with connect(ctx) as client:
        listed = client.pages("/projects", "projects", limit=limit)
    if as_json:
        data_json(listed)
        return
    if not listed["projects"]:
        say("No projects yet; crewship deploy makes one")
        return
    table(
        ["project", "current", "created"],
        [
            [item["name"], item.get("current_deployment_id") or "-", age(item["created_at"])]
            for item in listed["projects"]
        ],
    )


@app.command("delete")
def delete_project(
    ctx: typer.Context,
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Its name.")],
    force: Annotated[bool, typer.Option("--force", help="Even while runs are active: they are ended.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a project and all it has.

    That is its deployments, runs, logs, artifacts and environment variables.
    """
    from cli.client import segment
    from cli.output import can_ask, say_done
    from crewship.errors import Usage

    with connect(ctx) as client:
        client.get(f"/projects/{segment(project)}")
        if not yes:
            if not can_ask():
                raise Usage("deleting a project has to be confirmed", hint=f"crewship projects delete {project} --yes")
            typed = typer.prompt(f"This deletes everything {project} has. Type its name to go on", err=True)
            if typed.strip() != project:
                raise Usage("that is not the project's name; nothing was deleted")
        client.delete(f"/projects/{segment(project)}", force=True if force else None)
    say_done(f"{project} is being deleted")
