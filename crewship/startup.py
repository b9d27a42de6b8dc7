"""What the API refuses to start with: no key, or a first one that can be guessed, where others can reach it.

On one's own machine everything is allowed. Two things make it more than that: an address that is not the loopback one, and a
database that several processes share, before which there is a proxy perhaps.
"""

from sqlalchemy.engine import Engine

from crewship import db
from crewship.addresses import is_loopback
from crewship.errors import Usage
from crewship.keys import any_key, weakness
from crewship.settings import Settings

_MAKE_KEY = "openssl rand -hex 32"


def check_first_key(settings: Settings) -> None:
    """Raise ``Usage`` when the API could be reached by others, and its first key be guessed."""
    is_private = is_loopback(settings.api_host) and settings.database.startswith("sqlite")
    if is_private or not settings.bootstrap_admin_key:
        return
    if (why := weakness(settings.bootstrap_admin_key)) is not None:
        raise Usage(
            f"CREWSHIP_BOOTSTRAP_ADMIN_KEY is not fit to be a key: {why}",
            hint=f"{_MAKE_KEY}   makes one; if this one was ever in use, revoke it: crewship keys list",
        )


def check_public_bind(settings: Settings, database: Engine) -> None:
    """Raise ``Usage`` when the API would listen for others without any key: somebody forgot something.

    Args:
        settings: The API's.
        database: Migrated.
    """
    if is_loopback(settings.api_host) or settings.bootstrap_admin_key:
        return
    with db.session(database) as session:
        if any_key(session):
            return
    raise Usage(
        f"The API would listen on {settings.api_host}, where others can reach it, and there is no API key yet",
        hint=f"set CREWSHIP_BOOTSTRAP_ADMIN_KEY ({_MAKE_KEY} makes one), or listen on 127.0.0.1",
    )
