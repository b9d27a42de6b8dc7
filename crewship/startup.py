"""What a process of the platform refuses to start with: keys that others have or can guess, where others can reach it.

On one's own machine everything is allowed. Two things make it more than that: an address that is not the loopback one, and
production, which is a database that several processes share, or ``CREWSHIP_PRODUCTION``.
"""

from sqlalchemy.engine import Engine

from crewship import db
from crewship.addresses import is_loopback
from crewship.errors import Usage
from crewship.keys import any_key, weakness
from crewship.settings import Settings

_MAKE_KEY = "openssl rand -hex 32"
_LEAST_VARIETY = 16
"""Different bytes in a sealing key; of 32 random ones some 30 differ, and fewer than 16 never."""


def check_sealing_key(settings: Settings) -> None:
    """Raise ``Usage`` when a production process would seal with a key of development, or with one that it makes itself."""
    if not settings.is_production:
        return
    path = settings.secret_key_file
    if path is None:
        raise Usage(
            "CREWSHIP_SECRET_KEY_FILE is not set: each process would seal environment variables with a key of its own",
            hint=f"{_MAKE_KEY} > secret.key   and give the same file to all processes of the platform",
        )
    if not path.exists():
        raise Usage(
            f"The key file {path} is not there: it is not made in production",
            hint=f"{_MAKE_KEY} > {path.name}   once, or put the former one back: without it nothing that is sealed can be read",
        )
    if (path.parent / "dev.json").exists():
        raise Usage(
            f"The key file {path} is that of a crewship dev: it is for development",
            hint=f"{_MAKE_KEY} > secret.key   makes one for production; set the variables anew there",
        )
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError):
        return  # said better where it is opened
    if len(set(key)) < _LEAST_VARIETY:
        raise Usage(f"The key file {path} holds no random key", hint=f"{_MAKE_KEY} > {path.name}")


def check_first_key(settings: Settings) -> None:
    """Raise ``Usage`` when the API could be reached by others, and its first key be guessed."""
    if (is_loopback(settings.api_host) and not settings.is_production) or not settings.bootstrap_admin_key:
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
