"""Ids: ``dep_``, ``run_``, ``key_`` + 9 characters of time + 9 of chance, all of [a-z0-9], sortable by creation time."""

import secrets
import time

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(prefix: str) -> str:
    """A new id such as ``run_0mh3x9k2c4v7q1z8aa``; 46 bits of chance within one millisecond."""
    stamp = time.time_ns() // 1_000_000
    digits = []
    for _ in range(9):
        stamp, digit = divmod(stamp, 36)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}{''.join(secrets.choice(_ALPHABET) for _ in range(9))}"
