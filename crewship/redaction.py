"""Takes the values of env vars out of what is shown: logs, events, errors, outputs.

A value is known, so it is looked for as it is, and in the forms in which it turns up without anybody meaning it: URL-quoted,
JSON-escaped, hex, and base64 at each of its three alignments. All forms of all values are found in one pass (Aho-Corasick on
UTF-8 bytes), and text in which nothing is found, which is nearly all text, is given back as it is.

What is too short to be a secret, or says no secret by its looks or its name, is not looked for: ``[redacted:PORT]`` wherever
``8080`` is printed would make logs useless and protect nothing. :func:`is_redacted` tells, when a value is set and listed.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ahocorasick_rs import BytesAhoCorasick, MatchKind

MIN_LENGTH: Final = 8
CUT: Final = "…"
"""How a string ends that the runner has cut to size (``runtime/bounds.py``)."""
_SHORTEST_CUT: Final = 60

_NUMBER = re.compile(r"[0-9.,:/+_-]*")
_COMMON_WORDS: Final = frozenset(
    "production development staging localhost 127.0.0.1 password changeme disabled enabled default undefined "
    "anthropic langchain langgraph langsmith deepseek postgres postgresql".split()
)
_PUBLIC_NAME = re.compile(
    r"(?:.*_)?(?:MODEL|MODEL_NAME|MODEL_ID|PROVIDER|REGION|LEVEL|ENVIRONMENT|ENV|LANG|LANGUAGE|LOCALE|TZ|TIMEZONE|PYTHONPATH|PATH|DIR)",
    re.IGNORECASE,
)
_MAX_PUBLIC_LENGTH: Final = 64


class Redactor:
    """Replaces the values of ``values`` (name → value) by ``[redacted:NAME]``. May be used by any number of threads.

    Attributes:
        skipped: Names whose values are not looked for.
        forms: All that is looked for. In pieces of text it is found only where no piece ends within one.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        skipped = []
        patterns: dict[bytes, str] = {}
        for name in sorted(values):
            secrets = list(_secrets(name, values[name]))
            if not secrets:
                skipped.append(name)
            for secret in secrets:
                for form in _forms(secret):
                    patterns.setdefault(form, name)
        self.skipped: Final = tuple(skipped)
        self.forms: Final = [form.decode("utf-8", "surrogatepass") for form in patterns]
        self._marks: Final = [f"[redacted:{name}]".encode() for name in patterns.values()]
        self._automaton: Final = BytesAhoCorasick(patterns, matchkind=MatchKind.LeftmostLongest) if patterns else None

    def redact(self, text: str) -> str:
        """``text`` without the values; itself when there is none in it."""
        if self._automaton is None:
            return text
        data = text.encode("utf-8", "surrogatepass")
        redacted = self.redact_bytes(data)
        return text if redacted is data else redacted.decode("utf-8", "surrogatepass")

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for UTF-8, or what is mostly UTF-8; ``data`` itself when there is nothing in it."""
        found = self._automaton.find_matches_as_indexes(data) if self._automaton is not None else None
        if not found:
            return data
        pieces: list[bytes] = []
        position = 0
        for pattern, start, end in found:
            pieces += (data[position:start], self._marks[pattern])
            position = end
        return b"".join((*pieces, data[position:]))

    def redact_json(self, value: Any) -> Any:
        """A copy of ``value`` (anything JSON can hold, of any depth) with all strings redacted, keys too."""
        if self._automaton is None:
            return value
        root: list[Any] = [value]
        # By a list of places yet to do, not by recursion: a crew may return what is nested a thousand deep.
        places: list[tuple[Any, Any]] = [(root, 0)]
        while places:
            holder, key = places.pop()
            item = holder[key]
            if isinstance(item, str):
                holder[key] = self._redact_cut(self.redact(item))
            elif isinstance(item, dict):
                copy: Any = {self.redact(k) if isinstance(k, str) else k: inner for k, inner in item.items()}
                holder[key] = copy
                places += ((copy, k) for k in copy)
            elif isinstance(item, (list, tuple)):
                copy = list(item)
                holder[key] = copy
                places += ((copy, index) for index in range(len(copy)))
        return root[0]

    def _redact_cut(self, text: str) -> str:
        """``text`` without a value's beginning at its end, where it was cut there."""
        if not text.endswith(CUT) or len(text) < _SHORTEST_CUT:
            return text
        for form, mark in zip(self.forms, self._marks, strict=True):
            start = text.find(form[:MIN_LENGTH], -len(form) - len(CUT))
            if start >= 0 and form.startswith(text[start : -len(CUT)]):
                return text[:start] + mark.decode() + CUT
        return text


def is_redacted(name: str, value: str) -> bool:
    """Whether that value of that variable is looked for; not when it is short, common or, by its name, no secret."""
    return next(_secrets(name, value), None) is not None


def _secrets(name: str, value: str) -> Iterator[str]:
    """What is to be kept of one variable: its value, the lines of it, and the password in it when it is a URL."""
    if _is_public(name, value):
        return
    yield value
    stripped = value.strip()
    if stripped != value and not _is_common(stripped):
        yield stripped
    for line in value.splitlines():
        line = line.strip()
        # The frame of a PEM file is the same in all of them.
        if line != stripped and not line.startswith("-----") and not _is_common(line):
            yield line
    try:
        password = unquote(urlsplit(value).password or "")
    except ValueError:
        return
    if not _is_common(password):
        yield password


def _is_public(name: str, value: str) -> bool:
    return _is_common(value) or (bool(_PUBLIC_NAME.fullmatch(name)) and len(value) <= _MAX_PUBLIC_LENGTH)


def _is_common(value: str) -> bool:
    return len(value) < MIN_LENGTH or bool(_NUMBER.fullmatch(value)) or value.lower() in _COMMON_WORDS


def _forms(secret: str) -> Iterator[bytes]:
    """How ``secret`` may turn up."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield raw
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield quoted.encode()
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted).encode()
    for escaped in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        for inner in (escaped, escaped.replace("/", r"\/"), json.dumps(escaped, ensure_ascii=False)[1:-1]):
            yield inner.encode("utf-8", "surrogatepass")
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        # The characters at both ends also hold bits of what is before and after, so they are not known.
        encoded = base64.b64encode(bytes(shift) + raw)
        known = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(raw)) % 3]]
        if len(known) >= MIN_LENGTH:
            yield known
            yield known.translate(bytes.maketrans(b"+/", b"-_"))
    whole = base64.b64encode(raw)
    yield whole
    yield whole.translate(bytes.maketrans(b"+/", b"-_"))
