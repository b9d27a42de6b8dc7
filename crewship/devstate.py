"""What ``crewship dev`` keeps on disk: a data folder that one process at a time holds, and a file that tells where it runs.

In the data folder: ``dev.json`` with what must not change between two starts, ``admin.key`` for the CLI on this machine,
``dev.lock``. In the user's state folder: ``dev/<pid>.json`` while it runs.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from platformdirs import user_state_dir

from crewship.errors import Conflict, Usage
from crewship.settings import Settings

LOOPBACK = "127.0.0.1"
_KEPT = "dev.json"
_LOCK = "dev.lock"
_KEY = "admin.key"


class PortInUse(Conflict):
    """Somebody else listens where this should."""

    exit_code, default_code = 1, "port_in_use"


class DataInUse(Conflict):
    """Another ``crewship dev`` runs on the same data folder."""

    exit_code, default_code = 1, "data_in_use"


@dataclass(frozen=True, slots=True)
class KeptState:
    """What stays the same over restarts on one data folder.

    Attributes:
        instance: Name of the installation.
        temporal_port: Of the gRPC frontend.
        key_shown: Whether the admin key has been shown.
    """

    instance: str
    temporal_port: int
    key_shown: bool = False


def read_kept_state(data: Path) -> KeptState | None:
    """That of a data folder, or None when nothing was started on it yet."""
    try:
        stored = json.loads((data / _KEPT).read_text())
        return KeptState(str(stored["instance"]), int(stored["temporal_port"]), bool(stored.get("key_shown")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def kept_state(data: Path) -> KeptState:
    """That of the folder, made at its first start; Temporal's port is chosen anew when somebody took it meanwhile.

    A folder whose key file is gone gets another key, which is shown.
    """
    kept = read_kept_state(data) or KeptState(f"dev-{secrets.token_hex(4)}", 0)
    if kept.temporal_port == 0 or not _can_listen(LOOPBACK, kept.temporal_port):
        kept = replace(kept, temporal_port=_free_port())
    if not (data / _KEY).exists():
        kept = replace(kept, key_shown=False)
    keep(data, kept)
    return kept


def keep(data: Path, kept: KeptState) -> None:
    _write_private(data / _KEPT, json.dumps(asdict(kept)))


def admin_key(data: Path) -> str:
    """The admin key for the CLI on this machine; made when there is none."""
    path = data / _KEY
    with contextlib.suppress(OSError):
        if secret := path.read_text().strip():
            return secret
    from crewship.keys import new_secret  # with its tables it takes a second to load, which every later start saves

    secret = new_secret()
    _write_private(path, secret)
    return secret


def valid_key(settings: Settings, data: Path) -> str:
    """The key in ``admin.key``, replaced when the database does not know it.

    The API takes the first key only while it has none: a folder whose key file was lost has keys already. Who owns the
    folder may have a new one.
    """
    from crewship import audit
    from crewship.contracts import Actor
    from crewship.db import open_database, session
    from crewship.keys import find_key, make_key

    path = data / _KEY
    database = open_database(settings.model_copy(update={"data_dir": data}).database)
    try:
        with session(database) as opened:
            secret = path.read_text().strip()
            if find_key(opened, secret) is not None:
                return secret
            made = make_key("admin (crewship dev)", ["admin"])
            opened.add(made.row)
            audit.record(opened, Actor(), "key.created", target=made.row.id, after={"scopes": ["admin"]})
    finally:
        database.dispose()
    _write_private(path, made.secret)
    return made.secret


def refuse_held(data: Path) -> None:
    """Raise ``DataInUse`` when another process holds ``data``; nothing is made."""
    if (data / _LOCK).exists():
        with hold(data):
            pass


@contextlib.contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the data folder, which is made when it is missing, while the block lasts.

    Raises:
        DataInUse: another process holds it.
        Usage: it cannot be made or written to.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (data / _LOCK).open("w")
    except OSError as error:
        why = "it is a file" if data.is_file() else error.strerror
        raise Usage(f"{data} cannot be the data folder: {why}", hint="name another folder: --data DIR") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            where = "".join(f" at {entry['url']}" for entry in registrations() if entry.get("data") == str(data))
            raise DataInUse(
                f"another crewship dev uses {data}{where}",
                hint="stop that one, or give this one a folder of its own: --data DIR",
            ) from None
        yield


def registry_folder() -> Path:
    """Where each running ``crewship dev`` of this user has a file ``<pid>.json``."""
    return Path(user_state_dir("crewship")) / "dev"


def registrations() -> Iterator[dict[str, object]]:
    """``{url, data, pid}`` of each ``crewship dev`` of this user."""
    for path in registry_folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads(path.read_text())
            if isinstance(entry, dict) and _is_alive(path.stem):
                yield entry


@contextlib.contextmanager
def registered(url: str, data: Path) -> Iterator[None]:
    """Let the CLI on this machine find this process while the block lasts; what killed ones left is swept."""
    folder = registry_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for stale in folder.glob("*.json"):
        if not _is_alive(stale.stem):
            stale.unlink(missing_ok=True)
    path = folder / f"{os.getpid()}.json"
    _write_private(path, json.dumps({"url": url, "data": str(data), "pid": os.getpid()}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text + "\n")
    scratch.replace(path)


def check_port(host: str, port: int, option: str) -> None:
    if not _can_listen(host, port):
        raise PortInUse(f"port {port} on {host} is in use", hint=f"choose another one: {option} {port + 10}")


def _can_listen(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise Usage(f"{host!r} is not an address of this machine", hint="--host 127.0.0.1 or --host 0.0.0.0") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: a port at rest is free
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise Usage(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
