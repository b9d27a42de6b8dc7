"""``crewship doctor``: checks every dependency and says how to mend each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Globals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crewship.provision.checks import Check


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON object.")] = False,
) -> None:
    """Check everything that the platform needs, and say how to mend it."""
    from dataclasses import asdict

    from cli.output import data_json, say

    checks = []
    for check in _checks(ctx.find_object(Globals) or Globals()):
        checks.append(check)
        if not as_json:
            _print(check)
    failed = [check for check in checks if check.status == "fail"]
    if as_json:
        data_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    elif failed:
        say(f"{len(failed)} of {len(checks)} checks failed")
    if failed:
        raise typer.Exit(1)


def _checks(options: Globals) -> Iterator[Check]:
    """All checks, of the platform that runs here if one does, else of what the settings say."""
    from pathlib import Path

    from crewship.devstate import read_kept_state, registrations
    from crewship.provision.checks import check_machine, check_stores, check_temporal
    from crewship.settings import Settings

    settings = Settings()
    runs_here = False
    for entry in registrations():
        folder = Path(str(entry.get("data")))
        kept = read_kept_state(folder)
        if kept is not None and ("data_dir" not in settings.model_fields_set or folder == settings.data_dir):
            runs_here = True
            changes: dict[str, Any] = {"data_dir": folder}
            if "temporal_address" not in settings.model_fields_set:
                changes["temporal_address"] = f"127.0.0.1:{kept.temporal_port}"
            settings = settings.model_copy(update=changes)
            break
    yield from check_machine(settings)
    yield from check_stores(settings)
    yield check_temporal(settings, expected=runs_here or "temporal_address" in settings.model_fields_set)
    yield from _platform(options)


def _platform(options: Globals) -> Iterator[Check]:
    """The platform that commands would talk to, and what it says of its own dependencies."""
    import httpx

    from cli.credentials import find_target
    from crewship.errors import CrewshipError
    from crewship.provision.checks import Check

    try:
        target = find_target(options.url, options.api_key)
    except CrewshipError:
        yield Check("platform", "warn", "none runs here, and there is no login", "start one: crewship dev")
        return
    where = f"{target.url} (from {target.source})"
    try:
        answer = httpx.get(f"{target.url}/readyz", timeout=10)
        rows = answer.json()["dependencies"]
        found = [(str(row["name"]), bool(row["ok"]), row.get("detail"), row.get("hint")) for row in rows]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        yield Check("platform", "fail", f"no Crewship answers at {where}", "start it, or name another one: --url")
        return
    if answer.is_success:
        yield Check("platform", "ok", where)
    else:
        yield Check("platform", "fail", f"{where} is not ready", "see the checks below")
    for name, is_ok, detail, hint in found:
        if not is_ok:
            yield Check(f"its {name.replace('_', ' ')}", "fail", str(detail or "does not answer"), hint)


def _print(check: Check) -> None:
    import sys

    from cli.output import CYAN, DIM, GREEN, RED, YELLOW, data, paint_for

    paint = paint_for(sys.stdout)
    mark, colour = {"ok": ("✓", GREEN), "warn": ("!", YELLOW), "fail": ("✗", RED)}[check.status]
    first, *rest = check.detail.splitlines()
    data(f"{paint(mark, colour)} {check.name.ljust(24)} {first}")
    for line in rest:
        data(paint(f"    {line.strip()}", DIM))
    if check.hint and check.status != "ok":
        data(f"    {paint(check.hint, CYAN)}")
