"""Which server a command talks to, and with which key.

In this order: ``--url/--api-key``; ``CREWSHIP_URL``/``CREWSHIP_API_KEY``; the file that ``crewship login`` wrote; a ``crewship
dev`` that runs on this machine. The address is settled first. A key that was not given beside it is taken from whatever
knows that address: a key is never sent to a server that it was not stored for.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_config_dir, user_state_dir

from crewship.errors import Unauthorized, Unavailable, Usage


@dataclass(frozen=True, slots=True)
class Target:
    """A server and how it was found."""

    url: str
    api_key: str | None
    source: str
    """For people: ``--url``, ``CREWSHIP_URL``, ``crewship login`` or ``crewship dev``."""
    others: tuple[str, ...] = ()
    """Addresses of other running ``crewship dev``, which lost against a younger one."""

    def key(self) -> str:
        """The API key.

        Raises:
            Unauthorized: there is none for this server.
        """
        if not self.api_key:
            raise Unauthorized(
                f"there is no API key for {self.url}",
                hint=f"crewship login --url {self.url}   (or set CREWSHIP_API_KEY)",
            )
        return self.api_key


def login_file() -> Path:
    """Where ``crewship login`` keeps address and key; readable by its owner alone."""
    return Path(user_config_dir("crewship")) / "credentials.json"


def read_login() -> tuple[str, str] | None:
    """Address and key of ``crewship login``, or None."""
    try:
        stored = json.loads(login_file().read_text())
        return str(stored["url"]), str(stored["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_login(url: str, api_key: str) -> Path:
    """Store address and key for the next commands."""
    path = login_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_suffix(".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": url, "api_key": api_key}, file, indent=2)
    scratch.replace(path)
    return path


def clear_login() -> bool:
    """Forget address and key; whether there were any."""
    try:
        login_file().unlink()
    except FileNotFoundError:
        return False
    return True


def running_dev() -> list[tuple[str, str | None]]:
    """Address and admin key of each ``crewship dev`` that runs on this machine, the youngest first."""
    found = []
    for path in Path(user_state_dir("crewship"), "dev").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stored = json.loads(path.read_text())
            if _is_alive(int(stored["pid"])):
                found.append((path.stat().st_mtime, str(stored["url"]), Path(str(stored["data"])) / "admin.key"))
    found.sort(reverse=True, key=lambda item: item[0])
    return [(url.rstrip("/"), _read_key(key)) for _, url, key in found]


def find_target(url: str | None = None, api_key: str | None = None) -> Target:
    """The server to talk to; ``url`` and ``api_key`` are what the command line gave.

    Raises:
        Usage: the address is none.
        Unavailable: nothing says where a platform is.
    """
    login = read_login()
    given = url or os.environ.get("CREWSHIP_URL")
    key = api_key or os.environ.get("CREWSHIP_API_KEY")
    if given:
        given = clean_url(given)
        if not key and login and login[0] == given:
            key = login[1]
        if not key:
            key = next((found for address, found in running_dev() if address == given), None)
        return Target(given, key, "--url" if url else "CREWSHIP_URL")
    if login:
        return Target(login[0], key or login[1], "crewship login")
    running = running_dev()
    if running:
        address, found = running[0]
        return Target(address, key or found, "crewship dev", tuple(other for other, _ in running[1:]))
    raise Unavailable(
        "no platform was found: crewship dev does not run on this machine, and there is no login",
        hint="crewship dev     starts one here\ncrewship login   uses one that runs elsewhere",
    )


def clean_url(url: str) -> str:
    """``url`` without a slash at its end.

    Raises:
        Usage: it is no http(s) address.
    """
    url = url.strip().rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")) or url.endswith("//"):
        raise Usage(f"{url!r} is not an address", hint="an address looks like http://127.0.0.1:8700")
    return url


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_key(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
