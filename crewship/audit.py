"""The audit log: who changed what, from where, and what it was before.

An entry is written in the transaction of the change it tells of, so neither is there without the other. Where the change is
not the database's (Temporal ends a run, a host loses an image), it is written before the change is asked for: the log may name
one that then failed, never miss one that happened. What was undone because Temporal was away has a second entry,
``<noun>.withdrawn``.

Entries never hold a value of a secret, an input or an output: ids, names, versions and counts only.
"""

from typing import Any

from sqlmodel import Session, col, select

from crewship.contracts import Actor
from crewship.models import AuditEntry


def record(
    session: Session,
    actor: Actor,
    action: str,
    *,
    project: str | None = None,
    target: str | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Add an entry to ``session``'s transaction.

    Args:
        session: That of the change.
        actor: Who makes it.
        action: ``<noun>.<past participle>``, such as ``env.changed``.
        project: Whose thing it is; None: the platform's.
        target: Id or name of the thing.
        before: What mattered of it before, in JSON's types; None: it was not there.
        after: The same after; None: it is gone.
    """
    session.add(
        AuditEntry(
            action=action,
            key_id=actor.key_id,
            actor=actor.name,
            address=actor.address,
            project=project,
            target=target,
            before=before,
            after=after,
        )
    )


def maker_of(session: Session, target: str) -> Actor | None:
    """Who made ``target``, by its first entry; None: it is older than the log."""
    entry = session.exec(
        select(AuditEntry)
        .where(AuditEntry.target == target, col(AuditEntry.action).endswith(".created"))
        .order_by(col(AuditEntry.id))
        .limit(1)
    ).first()
    return None if entry is None else Actor(key_id=entry.key_id, name=entry.actor, address=entry.address)
