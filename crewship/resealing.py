"""Sealing stored values anew with the newest key, one small transaction after another.

It may be killed between any two of them and begun again: a value that has its new seal is not looked at any more, and one is
replaced only while it is still what was read. What it seals is a row's value under the same context, so who reads meanwhile
gets the same value by either seal.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from sqlalchemy.engine import Engine
from sqlmodel import col, func, select, update

from crewship import build_secrets
from crewship.db import session
from crewship.errors import Unavailable
from crewship.models import BuildSecret, EnvVar, Run
from crewship.sealing import Sealer, sealed_with

_BATCH: Final = 200


@dataclass
class Resealed:
    """What was done.

    Attributes:
        count: Values that were sealed anew.
        damaged: ``project/NAME`` of those that no key opens; they stay as they are.
    """

    count: int = 0
    damaged: list[str] = field(default_factory=list)


def values_by_key(database: Engine) -> dict[str, int]:
    """How many stored values, those of earlier versions too, there are by the id of the key that sealed them.

    Raises:
        Unavailable: the database cannot be reached.
    """
    counts: dict[str, int] = {}
    with session(database) as opened:
        for column in (EnvVar.sealed, BuildSecret.sealed):
            prefix = func.substr(column, 1, len("v1:") + 8 + 1)
            for start, count in opened.exec(select(prefix, func.count()).group_by(prefix)):
                counts[sealed_with(start)] = counts.get(sealed_with(start), 0) + count
    return counts


def reseal(database: Engine, sealer: Sealer, on_progress: Callable[[int], None] = lambda _: None) -> Resealed:
    """Seal with the first key what another one has sealed.

    Args:
        on_progress: Told how many values were looked at.

    Raises:
        Unavailable: the database cannot be reached; what was done until then stays done.
    """
    done = Resealed()
    current = f"v1:{sealer.key_id}:"
    after, seen = 0, 0
    while True:
        with session(database) as opened:
            rows = list(
                opened.exec(
                    select(EnvVar.id, EnvVar.project, EnvVar.name, EnvVar.sealed)
                    .where(col(EnvVar.id) > after, ~col(EnvVar.sealed).startswith(current, autoescape=True))
                    .order_by(col(EnvVar.id))
                    .limit(_BATCH)
                )
            )
        if not rows:
            break
        fresh: dict[int, tuple[str, str]] = {}
        for row_id, project, name, sealed in rows:
            assert row_id is not None
            after = row_id
            context = f"{project}/{name}"
            try:
                fresh[row_id] = sealed, sealer.seal(sealer.open(sealed, context), context)
            except Unavailable:
                done.damaged.append(context)
        with session(database) as opened:
            for row_id, (former, new) in fresh.items():
                changed = opened.exec(
                    update(EnvVar).where(col(EnvVar.id) == row_id, col(EnvVar.sealed) == former).values(sealed=new)
                )
                done.count += changed.rowcount
        seen += len(rows)
        on_progress(seen)
    if looked_at := _reseal_build_secrets(database, sealer, done):
        on_progress(seen + looked_at)
    return done


def _reseal_build_secrets(database: Engine, sealer: Sealer, done: Resealed) -> int:
    """The same for the secrets of builds, of which there are few; how many were looked at."""
    with session(database) as opened:
        former = ~col(BuildSecret.sealed).startswith(f"v1:{sealer.key_id}:", autoescape=True)
        rows = [(row.project, row.name, row.sealed) for row in opened.exec(select(BuildSecret).where(former))]
    for project, name, sealed in rows:
        context = build_secrets.context(project, name)
        try:
            new = sealer.seal(sealer.open(sealed, context), context)
        except Unavailable:
            done.damaged.append(f"{project}/{name} (build)")
            continue
        one = (col(BuildSecret.project) == project, col(BuildSecret.name) == name, col(BuildSecret.sealed) == sealed)
        with session(database) as opened:
            done.count += opened.exec(update(BuildSecret).where(*one).values(sealed=new)).rowcount
    return len(rows)


def launched_first(database: Engine) -> datetime | None:
    """When the container of the run that is under way for longest was started; None when none is under way."""
    with session(database) as opened:
        query = select(func.min(Run.launched_at)).where(col(Run.last_seq).is_(None))
        first = opened.exec(query).one()
    return first.replace(tzinfo=UTC) if first is not None and first.tzinfo is None else first
