"""Env values at rest: sealed with AES-256-GCM, bound to where they belong.

A sealed value is ``v1:<key's id>:<base64 of nonce and ciphertext>``. Its context (``project/NAME``) is authenticated with it, so
a row that is copied to another project or name does not open. The first key seals, every key opens what it has sealed: so a key
can be replaced while values wait for their new seal (``crewship.resealing``). Where the keys are is ``crewship.keyring``'s; who
has only the database has nothing.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from crewship.errors import Unavailable

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12  # random; NIST SP 800-38D allows 2^32 seals with one key


def key_id(key: bytes) -> str:
    """What a key is called in sealed values: 8 hex digits that tell nothing about it."""
    return hashlib.sha256(b"crewship key id\0" + key).hexdigest()[:8]


def sealed_with(sealed: str) -> str:
    """The id of the key that ``sealed`` was sealed with; empty when it is no sealed value."""
    version, _, rest = sealed.partition(":")
    return rest.partition(":")[0] if version == "v1" else ""


class Sealer:
    """Seals with one key and opens with several. May be used by any number of threads.

    Args:
        keys: Of 32 bytes each; the first one seals.
        reread: Gives the keys as they are now, cheaply; asked before each use, so that a process that runs for weeks seals with
            the key that was put in place a minute ago.
    """

    def __init__(self, *keys: bytes, reread: Callable[[], Sequence[bytes]] | None = None) -> None:
        for key in keys:
            if len(key) != KEY_BYTES:
                raise ValueError(f"the key has {len(key)} bytes, not {KEY_BYTES}")
        if not keys:
            raise ValueError("there is no key")
        self._reread = reread or (lambda: keys)
        self._ciphers: dict[bytes, AESGCM] = {}

    @property
    def key_id(self) -> str:
        """Of the key that seals."""
        return key_id(self._reread()[0])

    def seal(self, value: str, context: str) -> str:
        """``value`` sealed; different each time."""
        key = self._reread()[0]
        nonce = secrets.token_bytes(_NONCE_BYTES)
        # An environment may hold bytes that are not UTF-8; Python shows them as lone surrogates.
        sealed = self._cipher(key).encrypt(nonce, value.encode("utf-8", "surrogatepass"), context.encode())
        return f"v1:{key_id(key)}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, context: str) -> str:
        """The value.

        Raises:
            Unavailable: it was sealed with a key that is not here or for another context, or has changed.
        """
        version, _, rest = sealed.partition(":")
        wanted, _, encoded = rest.partition(":")
        key = next((key for key in self._reread() if key_id(key) == wanted), None)
        if version == "v1" and key is None:
            raise Unavailable(
                f"The value of {context} was sealed with another key.",
                hint="Put the installation's former secret.key back, or set the variable again.",
            )
        try:
            if version != "v1" or key is None:
                raise ValueError(version)
            data = base64.b64decode(encoded, validate=True)
            opened = self._cipher(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], context.encode())
        except (InvalidTag, binascii.Error, ValueError):
            raise Unavailable(f"The sealed value of {context} is damaged.", hint="Set the variable again.") from None
        return opened.decode("utf-8", "surrogatepass")

    def nonces(self, container_id: str) -> tuple[str, ...]:
        """What a container's frames are told by: the same for every worker, and for nobody who has not the keys.

        The first is for a container that is started now; one that runs may have been given any of them.
        """
        message = b"crewship frames\0" + container_id.encode()
        return tuple(hmac.digest(key, message, "sha256").hex()[:32] for key in self._reread())

    def _cipher(self, key: bytes) -> AESGCM:
        return self._ciphers.setdefault(key, AESGCM(key))
