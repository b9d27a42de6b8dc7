"""``crewship doctor``: checks every dependency and says how to mend each.

It looks at the platform that commands would talk to. When that is a ``crewship dev`` of this machine, or there is none yet,
this machine is checked, with that one's data folder and Temporal. Any other platform tells of its own dependencies; this
machine is checked besides only when the settings in the environment say that it is a part of one.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import Globals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.credentials import Target
    from crewship.provision.checks import Check


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as one JSON object.")] = False,
) -> None:
    """Check what the platform needs, and say how to mend it."""
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


_SERVER_SETTINGS = {"data_dir", "database_url", "object_store", "temporal_address"}
"""A person who only uses a platform sets none of these."""

_MEND = {
    "database": "its server has to be up, and the API's CREWSHIP_DATABASE_URL right",
    "object_store": "the store has to be up and writable, and the API's CREWSHIP_OBJECT_STORE right",
    "temporal": "Temporal has to be up, and CREWSHIP_TEMPORAL_ADDRESS of API and worker right",
    "container_engine": "start the engine on the worker's host; `docker info` there says what is wrong",
    "worker": "start it: python -m worker",
    "network": "start the guard on the worker's host, as root: crewship netguard; its log says what is wrong",
}
"""For what a platform says is down, where its own advice is to ask the doctor."""


def _checks(options: Globals) -> Iterator[Check]:
    """All checks, of the platform that commands would talk to."""
    from crewship.devstate import read_kept_state
    from crewship.provision.checks import check_machine, check_stores, check_temporal
    from crewship.settings import Settings

    target, settings = _target(options), Settings()
    data = None if target is None else _dev_folder(target.url)
    kept = None if data is None else read_kept_state(data)
    if data is not None:
        changes: dict[str, Any] = {"data_dir": data}
        if kept is not None and "temporal_address" not in settings.model_fields_set:
            changes["temporal_address"] = f"127.0.0.1:{kept.temporal_port}"
        settings = settings.model_copy(update=changes)
    if target is None or data is not None or _SERVER_SETTINGS & settings.model_fields_set:
        yield from check_machine(settings)
        yield from check_stores(settings)
        temporal = check_temporal(settings, expected=bool(kept) or "temporal_address" in settings.model_fields_set)
        yield temporal if data is None else replace(temporal, hint=_dev_advice(data, "temporal"))
    yield from _platform(target, data)


def _target(options: Globals) -> Target | None:
    """The platform that commands would talk to; None when there is none."""
    from cli.credentials import find_target
    from crewship.errors import Unavailable

    try:
        return find_target(options.url, options.api_key)
    except Unavailable:
        return None


def _dev_folder(url: str) -> Path | None:
    """The data folder of the ``crewship dev`` of this machine that listens at ``url``; None when none does."""
    from crewship.devstate import registrations

    return next((Path(str(entry.get("data"))) for entry in registrations() if entry.get("url") == url), None)


def _dev_advice(data: Path, name: str) -> str:
    process = {"temporal": "temporal", "worker": "worker", "network": "netguard"}.get(name, "api")
    log = data / "logs" / f"{process}.log"
    return f"stop crewship dev and start it again; its log is {log}"


def _platform(target: Target | None, data: Path | None) -> Iterator[Check]:
    """What the platform says of its own dependencies: those that are down."""
    import httpx

    from crewship.provision.checks import Check

    if target is None:
        yield Check("platform", "warn", "none runs here, and there is no login", "start one: crewship dev")
        return
    where = f"{target.url} (from {target.source})"
    try:
        answer = httpx.get(f"{target.url}/readyz", timeout=10)
        rows = [row for row in answer.json()["dependencies"] if not row["ok"]]
        network = next((row for row in answer.json()["dependencies"] if row["name"] == "network"), None)
        down = {str(row["name"]): (str(row.get("detail") or "does not answer"), row.get("hint")) for row in rows}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        start = "crewship dev starts one here" if data is None else _dev_advice(data, "api")
        yield Check("platform", "fail", f"no Crewship answers at {where}", f"{start}; --url names another one")
        return
    if answer.is_success:
        yield Check("platform", "ok", where)
    else:
        names = ", ".join(name.replace("_", " ") for name in down)
        yield Check("platform", "fail", f"{where} is not ready: {names}")
    if network is not None and network["ok"]:
        # It says something only when it is less than it could be.
        loosened = network.get("detail")
        closed = "runs reach neither their hosts, nor private networks, nor each other"
        yield Check(
            "its network",
            "warn" if loosened else "ok",
            str(loosened or closed),
            "unset what is not needed, install what is",
        )
    for name, (detail, hint) in down.items():
        # "crewship doctor" in an error of the API leads here, where it would lead nowhere.
        own = "; ".join(part for part in str(hint or "").split("; ") if "crewship doctor" not in part)
        fallback = _MEND.get(name) if data is None else _dev_advice(data, name)
        yield Check(f"its {name.replace('_', ' ')}", "fail", detail, own or fallback)


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
