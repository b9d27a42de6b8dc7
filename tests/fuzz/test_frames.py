"""The reader of a container's frames: whatever bytes come, in whatever pieces, it goes on, and gives only what is in order."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crewship.frames import FrameReader, end_facts, result_facts, translate
from crewship.redaction import Redactor
from runtime.claims import ANY_TICKET, check
from runtime.wire import dumps

pytestmark = pytest.mark.fuzz

NONCE = "0123456789abcdef0123456789abcdef"
REDACTOR = Redactor({"TOKEN": "sk-of-the-frame-fuzz"})
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.just("sk-of-the-frame-fuzz"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KINDS = ["log", "event", "notice", "artifact", "started", "gap", "result", "end", "loaded", "nothing"]
FIELDS = [
    "text", "raw", "partial", "l", "s", "type", "data", "message", "level", "name", "size", "content_type", "from", "to", "bytes",
    "ok", "output", "error", "exit_code", "signal", "cgroup", "result_at", "sigterm_at", "disk_bytes",
]  # fmt: skip
USUAL = st.one_of(
    JSON, st.sampled_from(["custom", "agent.started", "run.completed", "info", "warning", "stderr", "aGVsbG8=", "not base64"])
)  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


CLAIMS = st.fixed_dictionaries(
    {"m": st.sampled_from(["event", "result", "notice", "loaded", "started", "log", "end"])},
    optional={
        **dict.fromkeys(
            ["data", "type", "level", "message", "ok", "output", "error", "import_ms", "memory_bytes", "kind", "w"], USUAL
        ),
        "ok": st.booleans() | USUAL,
        "data": st.dictionaries(st.text(max_size=9), USUAL, max_size=3) | USUAL,
        "error": st.fixed_dictionaries({}, optional=dict.fromkeys(["code", "message", "hint", "traceback"], USUAL)) | USUAL,
    },
)  # fmt: skip


@given(st.one_of(CLAIMS.map(json.dumps).map(str.encode), st.binary(max_size=200)))
@example(b'{"m": "notice", "level": ["info"]}')
@example(b'{"m": "event", "type": "custom", "data": {"value": 1e999}}')
@example(b'{"m": "result", "ok": true, "output": -1e999}')
@example(json.dumps({"m": "event", "type": "custom", "data": {"value": nested(400)}}).encode())
@example(json.dumps({"m": "result", "ok": True, "output": nested(400)}).encode())
@example(json.dumps({"m": "result", "ok": True, "output": nested(200)}).encode())
@example(b'{"m": "result", "ok": true, "output": "\\ud800"}')
@example(b"[" * 100_000)
@example(b'{"m": "event", "type": "custom", "data": {"value": ' + b"9" * 5000 + b"}}")
@example(b'{"m": "event", "type": "custom", "data": {"value": ' + b"9" * 400 + b"}}")
@example(b'{"m": "result", "ok": true, "output": [-' + b"9" * 309 + b"]}")
@example(b'{"m": "result", "ok": true, "output": [' + b"9" * 308 + b"]}")
def test_what_a_crew_claims_reaches_the_platform_or_is_left_out(claim: bytes) -> None:
    """A crew that writes to its socket by itself must not end the supervisor, nor make a frame that nobody can read: the
    platform would ask for it for ever."""
    ticket, frame = check(claim)
    assert ticket is None or 0 <= ticket <= ANY_TICKET
    if frame is None:
        return
    kind, fields = frame
    data = dumps({"n": 1, "k": NONCE, "at": 1, "t": kind, **fields}).encode("utf-8", "replace") + b"\n"
    found = FrameReader({NONCE}, 0).feed(data)
    assert [each["t"] for each in found] == [kind]
    translate(found[0], "dep_1", REDACTOR)


def frames(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"n": st.just(1), "k": st.just(NONCE), "at": st.integers(0, 2**42), "t": st.sampled_from(KINDS), **more},
        optional=dict.fromkeys(FIELDS, USUAL),
    )


def line(frame: dict[str, Any]) -> bytes:
    """As the supervisor writes it: its number first."""
    return json.dumps({"n": frame["n"], **frame}).encode() + b"\n"


@given(st.lists(st.binary(max_size=200) | frames().map(line), max_size=8), st.lists(st.integers(1, 400), max_size=20))
def test_any_bytes_in_any_pieces_give_the_same_frames(chunks: list[bytes], cuts: list[int]) -> None:
    data = b"\n".join(chunks)
    whole = FrameReader({NONCE}, 0).feed(data)
    reader, pieces, start = FrameReader({NONCE}, 0), [], 0
    for cut in [*cuts, len(data)]:
        pieces += reader.feed(data[start : start + cut])
        start += cut
    pieces += reader.feed(data[start:])
    assert pieces == whole or any(json.dumps(a) == json.dumps(b) for a, b in zip(pieces, whole, strict=True))
    assert [frame["n"] for frame in whole] == list(range(1, len(whole) + 1))
    for frame in whole:
        orjson.dumps(frame, option=orjson.OPT_NON_STR_KEYS)


@given(
    st.fixed_dictionaries(
        {
            "n": JSON | st.just(1),
            "k": JSON | st.just(NONCE),
            "at": JSON | st.integers(),
            "t": JSON | st.sampled_from(KINDS),
        }
    )
)
@example({"n": True, "k": NONCE, "at": 1, "t": "log"})
@example({"n": 1, "k": [NONCE], "at": 1, "t": "log"})
@example({"n": 1, "k": NONCE, "at": 10**30, "t": "log"})
@example({"n": 1, "k": NONCE, "at": -(10**16), "t": "log"})
def test_a_head_of_any_form_is_a_frame_or_none(head: dict[str, Any]) -> None:
    for frame in FrameReader({NONCE}, 0).feed(line(head)):
        assert translate(frame, "dep_1", REDACTOR).n == 1


@given(frames())
@example({"n": 1, "k": NONCE, "at": 1, "t": "log", "l": ["info"], "text": "x"})
@example({"n": 1, "k": NONCE, "at": 1, "t": "log", "raw": "not base64!", "text": "x"})
@example({"n": 1, "k": NONCE, "at": 1, "t": "notice", "level": {}})
@example({"n": 1, "k": NONCE, "at": 1, "t": "result", "ok": False, "error": "a word"})
@example({"n": 1, "k": NONCE, "at": 1, "t": "end", "exit_code": "x", "cgroup": [1]})
def test_a_body_of_any_form_is_an_event_or_nothing_and_shows_no_secret(body: dict[str, Any]) -> None:
    """A supervisor that has gone wrong must not take the worker's reader with it."""
    found = FrameReader({NONCE}, 0).feed(line(body))
    assert len(found) == 1
    meaning = translate(found[0], "dep_1", REDACTOR)
    shown = repr(meaning.drafts) + (repr(meaning.body) if meaning.kind == "result" else "")
    if meaning.kind not in ("artifact", "gap"):  # names and sizes of files are the user's own
        assert "sk-of-the-frame-fuzz" not in shown
    if meaning.kind == "result":
        result_facts(meaning.body)
    if meaning.kind == "end":
        end_facts(meaning.body, None)
