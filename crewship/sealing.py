"""Env values at rest: sealed with AES-256-GCM, bound to where they belong.

A sealed value is ``v1:<key's id>:<base64 of nonce and ciphertext>``. Its context (``project/NAME``) is authenticated with it, so
a row that is copied to another project or name does not open. The key is a file of the installation's own; who has only the
database has nothing.
"""

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crewship.errors import Unavailable

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # random; NIST SP 800-38D allows 2^32 seals with one key


class Sealer:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key has {len(key)} bytes, not {KEY_BYTES}")
        self._key = key
        self._cipher = AESGCM(key)
        self.key_id: Final = hashlib.sha256(b"crewship key id\0" + key).hexdigest()[:8]

    def seal(self, value: str, context: str) -> str:
        """``value`` sealed; different each time."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        # An environment may hold bytes that are not UTF-8; Python shows them as lone surrogates.
        sealed = self._cipher.encrypt(nonce, value.encode("utf-8", "surrogatepass"), context.encode())
        return f"v1:{self.key_id}:{base64.b64encode(nonce + sealed).decode()}"

    def nonce(self, container_id: str) -> str:
        """What a container's frames are told by: the same for every worker, and for nobody who has not the key."""
        return hmac.digest(self._key, b"crewship frames\0" + container_id.encode(), "sha256").hex()[:32]

    def open(self, sealed: str, context: str) -> str:
        """The value.

        Raises:
            Unavailable: it was sealed with another key or for another context, or has changed.
        """
        version, _, rest = sealed.partition(":")
        key_id, _, encoded = rest.partition(":")
        if version == "v1" and key_id != self.key_id:
            raise Unavailable(
                f"The value of {context} was sealed with another key.",
                hint="Put the installation's former secret.key back, or set the variable again.",
            )
        try:
            if version != "v1":
                raise ValueError(version)
            data = base64.b64decode(encoded, validate=True)
            opened = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
        except (InvalidTag, binascii.Error, ValueError):
            raise Unavailable(f"The sealed value of {context} is damaged.", hint="Set the variable again.") from None
        return opened.decode("utf-8", "surrogatepass")


def load_or_create_key(path: Path) -> bytes:
    """The key in the file at ``path`` (64 hex digits); made, for its owner only, when there is none.

    Of processes that come here at once one makes it and all get the same.

    Raises:
        Unavailable: the file cannot be read or made, or holds something else.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return _key_in(path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(KEY_BYTES) + "\n")
                file.flush()
                os.fsync(descriptor)
            # A link fails when another was faster, where a rename would take that one's key away.
            with contextlib.suppress(FileExistsError):
                os.link(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return _key_in(path)
    except OSError as error:
        raise Unavailable(f"The key file {path} cannot be used: {error.strerror}.") from error


def _key_in(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(
            f"The key file {path} does not hold {2 * KEY_BYTES} hex digits.",
            hint="Put the former file back; without it, env values that are set cannot be read.",
        )
    return key
