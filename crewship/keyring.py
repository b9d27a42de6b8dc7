"""The keys that seal env values: where they are kept, and which of them a process may start with.

They are in a file, one a line with the newest first, or in the variable ``CREWSHIP_SECRET_KEY``, separated by commas. A line is
64 hex digits and, after a ``#``, what is known of the key: ``development`` marks one that the platform made for itself, because
there was none; ``since=<time>`` says when it took over from the one below.

A production installation (one whose database is a server) is given its key by a person: were each process to make one, values
that the API seals would not open in the worker. It does not start with a key that is missing, that was made for development, or
that anybody could guess.
"""

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from crewship.clock import now, rfc3339
from crewship.errors import Unavailable
from crewship.sealing import KEY_BYTES, Sealer, key_id
from crewship.settings import Settings

VARIABLE: Final = "CREWSHIP_SECRET_KEY"
HOW_TO_MAKE: Final = "openssl rand -hex 32"
_DEVELOPMENT: Final = "development"
_FEWEST_DISTINCT_BYTES: Final = 20
"""Of 32 random bytes about 30 differ, and of the steps between them; of a repeated, counted or typed key fewer do."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        secret: Its 32 bytes.
        is_development: The platform made it for itself.
        since: When it took over from the key below it, where that is known.
    """

    secret: bytes
    is_development: bool = False
    since: datetime | None = None

    @property
    def id(self) -> str:
        return key_id(self.secret)

    def line(self) -> str:
        notes = [_DEVELOPMENT] if self.is_development else []
        notes += [f"since={rfc3339(self.since)}"] if self.since else []
        return self.secret.hex() + (f"  # {' '.join(notes)}" if notes else "")


class Keyring:
    """The keys of an installation, the newest first, as they are now: a file that changes is read again.

    Args:
        path: The key file; None when the keys are in the environment.
        keys: Those that were read.
    """

    def __init__(self, path: Path | None, keys: Sequence[Key]) -> None:
        self.path = path
        self._keys = tuple(keys)
        self._stamp: tuple[int, int, int] | None = None
        self._lock = threading.Lock()

    @property
    def keys(self) -> tuple[Key, ...]:
        """One ``stat`` when nothing has changed. A file that cannot be read any more changes nothing: what was read holds."""
        stamp = _stamp(self.path)
        if self.path is not None and stamp is not None and stamp != self._stamp:
            with self._lock, contextlib.suppress(OSError, Unavailable):
                self._keys = tuple(_read(self.path))
                self._stamp = stamp
        return self._keys

    def secrets(self) -> tuple[bytes, ...]:
        return tuple(key.secret for key in self.keys)

    def sealer(self) -> Sealer:
        """A sealer that follows this ring."""
        return Sealer(*self.secrets(), reread=self.secrets)

    def put_first(self) -> Key:
        """Make a key and have it seal from now on; the file is replaced as a whole, by one process at a time.

        Raises:
            Unavailable: the file cannot be written, or the keys are in the environment.
        """
        key = Key(secrets.token_bytes(KEY_BYTES), since=now())
        self._change(lambda keys: [key, *keys])
        return key

    def drop(self, ids: Collection[str]) -> None:
        """Forget the keys with these ids; never the first.

        Raises:
            Unavailable: as :meth:`put_first`.
        """
        self._change(lambda keys: [keys[0], *(key for key in keys[1:] if key.id not in ids)])

    def _change(self, change: Callable[[list[Key]], list[Key]]) -> None:
        if self.path is None:
            raise Unavailable(
                f"The keys are in the variable {VARIABLE}, which only whoever sets it can change.",
                hint="; ".join(
                    [
                        f"a new key ({HOW_TO_MAKE}) goes before those it has, with a comma between",
                        "start the worker with it, then the API, then go on here",
                    ]
                ),
            )
        try:
            with _held(self.path.parent):
                keys = change(_read(self.path))
                _replace(self.path, keys)
        except OSError as error:
            raise Unavailable(
                f"The key file {self.path} cannot be written: {error.strerror}.",
                hint=f"where it is kept, put a line with a new key ({HOW_TO_MAKE}) above those it has; then go on here",
            ) from error
        self._keys, self._stamp = tuple(keys), None


def open_keyring(settings: Settings, *, make: bool = True) -> Keyring:
    """The installation's keys. An embedded one gets a key of its own, for its owner only, when it has none (and ``make``).

    Of processes that come here at once one makes it and all get the same.

    Raises:
        Unavailable: there is no key that may be used, and why.
    """
    given = settings.secret_key.get_secret_value()
    if given and settings.secret_key_file is not None:
        raise Unavailable(
            f"{VARIABLE} and {VARIABLE}_FILE are both set.", hint="Set one of them; the other one's keys may be needed."
        )
    if given:
        ring = Keyring(None, _parse(given.replace(",", "\n"), VARIABLE))
    elif settings.is_embedded and make:
        ring = Keyring(settings.secret_key_path, _read_or_make(settings.secret_key_path))
    else:
        ring = _given_in_a_file(settings)
    _refuse_weak(ring, settings)
    return ring


def _given_in_a_file(settings: Settings) -> Keyring:
    path = settings.secret_key_path
    try:
        return Keyring(path, _read(path))
    except FileNotFoundError:
        raise Unavailable(
            f"There is no secret key: {path} is not there.",
            hint=f"make one, once for all processes: {HOW_TO_MAKE} > secret.key; name it in {VARIABLE}_FILE",
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error


def _refuse_weak(ring: Keyring, settings: Settings) -> None:
    first = ring.keys[0]
    steps = {(after - before) % 256 for before, after in pairwise(first.secret)}
    where = VARIABLE if ring.path is None else f"The key file {ring.path}"
    replace = f"put a line with a key of its own ({HOW_TO_MAKE}) above it, then: crewship sealing rotate"
    if min(len(set(first.secret)), len(steps)) < _FEWEST_DISTINCT_BYTES:
        raise Unavailable(f"{where} begins with a key that can be guessed.", hint=replace)
    if first.is_development and not settings.is_embedded:
        raise Unavailable(
            f"{where} begins with a development key, and the database is a server: this is production.", hint=replace
        )


def _read_or_make(path: Path) -> list[Key]:
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, [Key(secrets.token_bytes(KEY_BYTES), is_development=True)], only_if_missing=True)
        return _read(path)
    except OSError as error:
        raise _unusable(path, error) from error


def _replace(path: Path, keys: Sequence[Key], *, only_if_missing: bool = False) -> None:
    """Write the file as a whole, durably; whoever reads it meanwhile has the former one."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write("".join(f"{key.line()}\n" for key in keys))
            file.flush()
            os.fsync(descriptor)
        if only_if_missing:
            # A link fails when another was faster, where a rename would take that one's key away.
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, path)
        else:
            owner = path.stat()
            os.chmod(unfinished, owner.st_mode & 0o777)
            if owner.st_uid != os.geteuid() or owner.st_gid != os.getegid():
                os.chown(unfinished, owner.st_uid, owner.st_gid)
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> list[Key]:
    try:
        text = path.read_text("ascii")
    except UnicodeDecodeError:
        text = ""
    return _parse(text, f"The key file {path}")


def _parse(text: str, where: str) -> list[Key]:
    keys: list[Key] = []
    for line in text.splitlines():
        digits, _, notes = (part.strip() for part in line.partition("#"))
        if not digits:
            continue
        try:
            secret = bytes.fromhex(digits)
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            keys = []
            break
        words = notes.split()
        keys.append(Key(secret, _DEVELOPMENT in words, _since(words)))
    if not keys:
        raise Unavailable(
            f"{where} does not hold {2 * KEY_BYTES} hex digits a key.",
            hint="Put the former keys back; without them, env values that are set cannot be read.",
        )
    return keys


def _since(words: Sequence[str]) -> datetime | None:
    for word in words:
        with contextlib.suppress(ValueError):
            if word.startswith("since="):
                return datetime.fromisoformat(word.removeprefix("since="))
    return None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One process at a time changes the keys: of two that read, added and wrote, one would take the other's away."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found else None


def _unusable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"The key file {path} cannot be used: {error.strerror}.",
        hint=f"{VARIABLE}_FILE names a file that this process may read",
    )
