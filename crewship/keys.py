"""API keys: making, storing and finding them.

A secret is 256 bits of chance, so its plain SHA-256 is stored: there is nothing to guess, and a slow hash would only slow
every call. A key is found by the secret's first characters and compared by hash in constant time. Scopes::

    read     everything but secrets            (contained in all others)
    invoke   start and cancel runs
    deploy   deployments, rollback, projects
    env      set and unset env vars, see the previews of their values
    admin    everything, keys, audit log and deletion included

``deploy`` does not contain ``env``: what builds in CI need not change secrets. It is no wall between the two, for deployed code
is given the values when it runs.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select, update

from crewship import audit
from crewship.clock import now
from crewship.contracts import Actor
from crewship.errors import Conflict
from crewship.ids import new_id
from crewship.models import ApiKey

SCOPES = ("read", "invoke", "deploy", "env", "admin")

_IMPLIED = {
    "read": frozenset({"read"}),
    "invoke": frozenset({"read", "invoke"}),
    "deploy": frozenset({"read", "deploy"}),
    "env": frozenset({"read", "env"}),
    "admin": frozenset(SCOPES),
}
_PREFIX_LENGTH = 16
"""Of a secret that was made here: the word and seven characters, enough to tell keys apart."""
_BOOTSTRAP_ID = "key_0bootstrap0"
"""The first key has a fixed id, so that two API processes that start at once store one."""
_LEAST_LENGTH = 32
_LEAST_VARIETY = 10
"""64 hex digits have 16 different ones, and fewer than 10 once in 10^13."""
_PLACEHOLDERS = ("change-me", "changeme", "change_me", "example", "password", "secret-key")
_REVOKE_LOCK = 0x6B657973
"""Key of a PostgreSQL advisory lock ("keys")."""
_USE_NOTED_EVERY = timedelta(minutes=1)
"""``last_used_at`` is this coarse, so that reading does not become writing."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made; ``secret`` is nowhere else."""

    secret: str
    row: ApiKey


def new_secret() -> str:
    """A secret such as ``crewship_Jb3…``; 256 bits of chance."""
    return f"crewship_{secrets.token_urlsafe(32)}"


def make_key(name: str, scopes: list[str], *, project: str | None = None, expires_at: datetime | None = None) -> NewKey:
    """A new key; the caller stores ``row``."""
    secret = new_secret()
    row = ApiKey(
        id=new_id("key"),
        name=name,
        prefix=_prefix(secret),
        hash=hash_secret(secret),
        scopes=scopes,
        project=project,
        expires_at=expires_at,
    )
    return NewKey(secret, row)


def hash_secret(secret: str) -> str:
    """SHA-256 of ``secret``, in hex."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def granted(scopes: list[str]) -> frozenset[str]:
    """All that ``scopes`` allow; unknown ones allow nothing."""
    return frozenset().union(*(_IMPLIED.get(scope, frozenset()) for scope in scopes))


def find_key(session: Session, secret: str) -> ApiKey | None:
    """The valid key of that secret, or None: unknown, revoked or expired. Its use is noted, to the minute."""
    if not (secret.isascii() and secret.isprintable()):
        return None
    digest = hash_secret(secret)
    found = None
    for row in session.exec(select(ApiKey).where(ApiKey.prefix == _prefix(secret))):
        if hmac.compare_digest(row.hash, digest):
            found = row
    moment = now()
    if found is None or found.revoked_at is not None:
        return None
    if found.expires_at is not None and found.expires_at <= moment:
        return None
    if found.last_used_at is None or moment - found.last_used_at > _USE_NOTED_EVERY:
        found.last_used_at = moment
        session.add(found)
    return found


def weakness(secret: str) -> str | None:
    """Why ``secret`` is not fit to be a key that others can try, or None. Those made by :func:`new_secret` are."""
    if len(secret) < _LEAST_LENGTH:
        return f"it has {len(secret)} characters; {_LEAST_LENGTH} are needed"
    if len(set(secret)) < _LEAST_VARIETY:
        return f"it is made of {len(set(secret))} different characters only"
    if any(word in secret.lower() for word in _PLACEHOLDERS):
        return "it is a placeholder"
    return None


def any_key(session: Session) -> bool:
    """Whether there is a key, valid or not."""
    return session.exec(select(col(ApiKey.id)).limit(1)).first() is not None


def revoke(session: Session, key: ApiKey) -> bool:
    """Revoke ``key`` from now on; False when it was already.

    Raises:
        Conflict: nobody would be left who can make keys.
    """
    # A write comes first: it keeps two apart that would each revoke the other of two admin keys.
    if session.get_bind().dialect.name == "sqlite":
        session.exec(update(ApiKey).where(col(ApiKey.id) == key.id).values(name=ApiKey.name))
    else:
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _REVOKE_LOCK})
    session.refresh(key)
    if key.revoked_at is not None:
        return False
    if _can_always_manage(key):
        rows = session.exec(select(ApiKey).where(col(ApiKey.revoked_at).is_(None), col(ApiKey.id) != key.id))
        if not any(map(_can_always_manage, rows)):
            raise Conflict(
                "This is the last admin key that holds for all projects and does not expire",
                code="last_admin_key",
                hint="make another one first: crewship keys create NAME --scope admin",
            )
    key.revoked_at = now()
    session.add(key)
    return True


def _can_always_manage(key: ApiKey) -> bool:
    return "admin" in key.scopes and key.project is None and key.expires_at is None


def store_first_key(session: Session, secret: str) -> bool:
    """Store ``secret`` as the admin key when there is no key yet; whether it was stored."""
    if any_key(session):
        return False
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = ApiKey(
        id=_BOOTSTRAP_ID,
        name="admin",
        prefix=_prefix(secret),
        hash=hash_secret(secret),
        scopes=["admin"],
    )
    result = session.execute(
        insert(ApiKey).values(**row.model_dump()).on_conflict_do_nothing().returning(col(ApiKey.id))
    )
    if result.first() is None:
        return False
    audit.record(session, Actor(), "key.created", target=row.id, after={"name": row.name, "scopes": row.scopes})
    return True


def _prefix(secret: str) -> str:
    """What of the secret is stored readable: never more than a third, should somebody choose a short one."""
    return secret[: min(_PREFIX_LENGTH, len(secret) // 3)]
