"""``crewship sealing``: the keys that seal environment variables, and putting a new one in their place.

For whoever runs the platform: it works on the key file and the database themselves, with the settings of the environment, and
needs no API. It may be interrupted at any moment and begun again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from crewship.keyring import Keyring
    from crewship.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="The keys that seal environment variables: show, rotate, retire. Works on the machine itself."
)  # fmt: skip

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="Data folder of a crewship dev; default: CREWSHIP_DATA_DIR, else its own."
    ),
]
_STARTING_SECONDS = 60
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class _Opened:
    settings: Settings
    ring: Keyring
    database: Engine


@app.command("status")
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show the keys by their ids, and how many values each has sealed."""
    from cli.output import data_json, say_next, say_warning, table

    with _opened(data) as parts:
        rows = _rows(parts)
    if as_json:
        data_json({"keys": rows})
        return
    table(
        ["key", "values", "what"],
        [[row["id"], str(row["values"]), row["note"]] for row in rows],
    )
    missing = [row for row in rows if row["missing"]]
    if missing:
        say_warning("values of a key that is not here cannot be read: put it back, or set the variables again")
    if any(row["values"] for row in rows if not row["current"] and not row["missing"]):
        say_next("crewship sealing rotate", "seal all values with the newest key")
    elif any(not row["current"] and not row["missing"] for row in rows):
        say_next("crewship sealing retire", "take the keys that no value needs out of the file")


@app.command("rotate")
def rotate(data: Data = None, as_json: AsJson = False) -> None:
    """Make a new key, and seal all values with it.

    A rotation that was begun is finished first, without a further key: so is one for which you put the new key in place
    yourself. The platform may run meanwhile. Former keys stay, for backups and for runs that are under way.
    """
    from cli.output import data_json, say, say_done, say_next
    from cli.screen import Screen
    from crewship.errors import CrewshipError
    from crewship.resealing import reseal, values_by_key

    with _opened(data) as parts:
        ring, known = parts.ring, {key.id for key in parts.ring.keys}
        current = ring.keys[0].id
        counts = values_by_key(parts.database)
        begun = any(count for key, count in counts.items() if key in known and key != current)
        if begun:
            say(f"Finishing the rotation to key {current}")
        else:
            current = ring.put_first().id
        seen = 0

        def progress(count: int) -> None:
            nonlocal seen
            seen = count

        with Screen(lambda: f"{seen} values so far"):
            done = reseal(parts.database, ring.sealer(), progress)
        where = "" if ring.path is None else f" in {ring.path}"
    if as_json:
        data_json({"key": current, "new": not begun, "resealed": done.count, "damaged": done.damaged})
    else:
        say_done(f"Key {current} seals{where}; {done.count} values have their new seal")
    if done.damaged:
        raise CrewshipError(
            f"{len(done.damaged)} values cannot be opened by any key here: {', '.join(done.damaged[:5])}"
            + (", …" if len(done.damaged) > 5 else ""),
            hint="put the key back that sealed them (crewship sealing status) and run this again, or set them again",
        )
    if not as_json:
        say_next("crewship sealing retire", "once no backup and no run needs the former keys")


@app.command("retire")
def retire(
    data: Data = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even while a run is under way that a former key was given to.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take the former keys out of the key file.

    Refused while a value needs one of them, or a run that began under it: its log could not be taken up again after a
    restart of the worker. A backup of the database that is older than the rotation needs them too; keep a copy with it.
    """
    from datetime import timedelta

    from cli.output import data_json, say, say_done
    from crewship.clock import rfc3339
    from crewship.errors import Conflict
    from crewship.resealing import launched_first, values_by_key

    with _opened(data) as parts:
        current, *former = parts.ring.keys
        counts = values_by_key(parts.database)
        needed = {key.id: counts[key.id] for key in former if counts.get(key.id)}
        if needed:
            raise Conflict(
                "; ".join(f"key {name} has sealed {count} values" for name, count in needed.items()),
                hint="crewship sealing rotate seals them anew",
            )
        first = launched_first(parts.database) if former else None
        # The worker sees a new key at once, but a start that was under way may have been given the former one.
        safe = current.since and current.since + timedelta(seconds=_STARTING_SECONDS)
        if first is not None and not force and (safe is None or first < safe):
            raise Conflict(
                f"A run is under way that began at {rfc3339(first)}, when a former key was in use.",
                hint="wait for its end (crewship runs list --status running); --force takes the keys nevertheless",
            )
        parts.ring.drop([key.id for key in former])
    if as_json:
        data_json({"key": current.id, "retired": [key.id for key in former]})
    elif former:
        say_done(f"Took {', '.join(key.id for key in former)} out; {current.id} is the only key now")
    else:
        say(f"{current.id} is the only key already")


@contextmanager
def _opened(data: Path | None) -> Iterator[_Opened]:
    """Keys and database of the settings; nothing is made that is not there.

    Raises:
        Usage: there is no installation.
        Unavailable: the keys or the database cannot be used.
    """
    from crewship.db import open_database
    from crewship.errors import Usage
    from crewship.keyring import open_keyring
    from crewship.settings import Settings

    settings = Settings()
    if data is not None:
        settings = settings.model_copy(update={"data_dir": data.absolute()})
    if settings.is_embedded and not Path(settings.database.removeprefix("sqlite:///")).is_file():
        raise Usage(
            f"there is no platform in {settings.data_dir}",
            hint="--data names its data folder; CREWSHIP_DATABASE_URL a database server",
        )
    ring = open_keyring(settings, make=False)
    database = open_database(settings.database)
    try:
        yield _Opened(settings, ring, database)
    finally:
        database.dispose()


def _rows(parts: _Opened) -> list[dict[str, Any]]:
    """The keys that are here, then those that only values know."""
    from crewship.clock import rfc3339
    from crewship.resealing import values_by_key

    counts = values_by_key(parts.database)
    rows: list[dict[str, Any]] = []
    for position, key in enumerate(parts.ring.keys):
        notes = ["seals" if position == 0 else "opens"]
        notes += [f"since {rfc3339(key.since)}"] if key.since else []
        notes += ["made for development"] if key.is_development else []
        rows.append(
            {
                "id": key.id,
                "current": position == 0,
                "missing": False,
                "development": key.is_development,
                "values": counts.pop(key.id, 0),
                "note": ", ".join(notes),
            }
        )
    for name, count in counts.items():
        rows.append(
            {"id": name or "?", "current": False, "missing": True, "development": False, "values": count, "note": "not here"}
        )  # fmt: skip
    return rows
