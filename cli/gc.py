"""``crewship gc``: take what retention does not keep, or show it."""

from typing import Annotated, Any

import typer

from cli.options import Json, connect


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, and why.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what retention does not keep: old images, logs, runs.

    It does so by itself every ten minutes; the settings say what is kept.
    """
    from cli.human import count, size
    from cli.output import data_json, say, say_done, say_next, say_warning, table
    from cli.screen import Screen

    removals: list[dict[str, Any]] = []
    with connect(ctx) as client, Screen(lambda: f"{count(len(removals), 'thing')} so far"):
        while True:
            found = client.post("/gc", dry_run=True if dry_run else None)
            removals += found["removals"]
            if dry_run or not found["more"] or not found["removals"]:
                break
    total = sum(removal["bytes"] or 0 for removal in removals)
    if as_json:
        data_json(found | {"removals": removals, "bytes": total})
        return
    for host in found["unreachable_hosts"]:
        say_warning(f"host {host} does not answer; what is on it stays until it does")
    if not removals:
        say("Nothing to remove")
        return
    table(
        ["kind", "size", "name", "why"],
        [
            [item["kind"], "-" if item["bytes"] is None else size(item["bytes"]), item["name"], item["why"]]
            for item in removals
        ],
    )
    more = " and more" if found["more"] else ""
    if dry_run:
        say(f"{count(len(removals), 'thing')}{more}, {size(total)} would go")
        say_next("crewship gc", "remove it")
    else:
        say_done(f"{count(len(removals), 'thing')} removed, {size(total)}")
