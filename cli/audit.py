"""``crewship audit``: who changed what."""

from typing import Annotated, Any

import typer

from cli.options import Json, connect


def audit(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option("--project", "-p", metavar="PROJECT", help="Changes of this project; default: all.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="WHAT", help="Such as env.changed, or env for all about these.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Changes by this key: key_...")] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="ID", help="Changes of this: run_..., dep_..., key_..., a project."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help="24h, 7d, a day or a time.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then, as --since.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and from where, the newest first.

    The log has every change and cannot be changed itself. It never holds a value of a variable, an input or an output.
    """
    from cli.moments import ago
    from cli.output import data_json, say, table

    with connect(ctx) as client:
        listed = client.pages(
            "/audit", "audit", limit=limit, project=project, action=action, key_id=key, target=target,
            since=ago(since, "--since") if since else None, until=ago(until, "--until") if until else None,
        )  # fmt: skip
    if as_json:
        data_json(listed)
        return
    if not listed["audit"]:
        say("Nothing was changed")
        return
    table(
        ["when", "what", "of", "by", "from", "change"],
        [
            [
                item["at"][:19].replace("T", " "), item["action"], item["target"] or item["project"] or "-",
                item["actor"]["name"] or item["actor"]["key_id"] or "-", item["address"] or "-",
                change(item["before"], item["after"]),
            ]
            for item in listed["audit"]
        ],
    )  # fmt: skip
    if listed["next_cursor"]:
        say("  … and more: --limit, --since")


def change(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """``current_deployment_id: dep_1 → dep_2``; what is the same on both sides is left out."""
    if before is not None and after is None:
        return "was " + "; ".join(f"{name}: {_short(value)}" for name, value in before.items())
    old, new = before or {}, after or {}
    parts = []
    for name in [*new, *(name for name in old if name not in new)]:
        if name in old and name in new:
            if old[name] != new[name]:
                parts.append(f"{name}: {_short(old[name])} → {_short(new[name])}")
        elif name in new:
            parts.append(f"{name}: {_short(new[name])}")
        else:
            parts.append(f"{name}: {_short(old[name])} before")
    return "; ".join(parts)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        if any(not isinstance(item, str) for item in value) or len(value) > 5:
            return str(len(value))
        return ", ".join(value) or "none"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
