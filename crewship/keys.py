"""API keys: making, storing and finding them.

A secret is 256 bits of chance, so its plain SHA-256 is stored: there is nothing to guess, and a slow hash would only slow
every call. A key is found by the secret's first characters and compared by hash in constant time. Scopes::

    read     everything but secrets            (contained in all others)
    invoke   start and cancel runs
    deploy   deployments, rollback, env vars, projects
    admin    everything, keys and deletion included
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from crewship.clock import now
from crewship.ids import new_id
from crewship.models import ApiKey

SCOPES = ("read", "invoke", "deploy", "admin")

_IMPLIED = {
    "read": frozenset({"read"}),
    "invoke": frozenset({"read", "invoke"}),
    "deploy": frozenset({"read", "deploy"}),
    "admin": frozenset(SCOPES),
}
_PREFIX_LENGTH = 16
"""Of a secret that was made here: the word and seven characters, enough to tell keys apart."""
_BOOTSTRAP_ID = "key_0bootstrap0"
"""The first key has a fixed id, so that two API processes that start at once store one."""
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


def store_first_key(session: Session, secret: str) -> bool:
    """Store ``secret`` as the admin key when there is no key yet; whether it was stored."""
    if session.exec(select(col(ApiKey.id)).limit(1)).first() is not None:
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
    return result.first() is not None


def _prefix(secret: str) -> str:
    """What of the secret is stored readable: never more than a third, should somebody choose a short one."""
    return secret[: min(_PREFIX_LENGTH, len(secret) // 3)]
