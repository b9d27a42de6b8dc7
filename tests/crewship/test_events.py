"""Events on the wire: the chain, reading on from anywhere, and SSE frames that say the same as the lines."""

import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.events import (
    CLAIMED,
    EVENT_TYPES,
    GENESIS,
    TERMINAL,
    Draft,
    Renderer,
    first_seq_of,
    parse,
    render,
    seek,
    sse,
    verify,
)

AT = "2026-01-31T09:05:00.123Z"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "\n",
        "\r\n",
        "\u2028",
        '"}\n{"seq":9',
        '"},"hash":"' + "0" * 64 + '"}\n',
        "\\",
        '","at":"',
        "\x85",
        "\x1c",
        "{,",
        "id: 7\n\n",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(TEXTS.filter(lambda key: key != "at"), JSON, max_size=4)
DRAFTS = st.lists(st.builds(Draft, st.just(AT), st.sampled_from(sorted(EVENT_TYPES)), DATA), max_size=8)


def rendered(drafts: list[Draft], first: int = 1) -> bytes:
    return render(drafts, first, GENESIS)[0]


def frames(stream: bytes) -> list[dict[str, str]]:
    """As a browser's EventSource reads them: fields of lines that end at CR, LF or CRLF; a blank line ends a frame."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    for line in re.split("\r\n|\n|\r", stream.decode()):
        if line:
            name, _, value = line.partition(":")
            assert name not in current
            current[name] = value.removeprefix(" ")
        elif current:
            found.append(current)
            current = {}
    assert current == {}
    return found


def test_a_line_is_what_the_contract_says() -> None:
    lines, last, digest = render([Draft(AT, "log", {"message": "hé", "level": "info"})], 7, GENESIS)
    body = '{"seq":7,"at":"2026-01-31T09:05:00.123Z","type":"log","data":{"message":"hé","level":"info"}'.encode()
    assert digest == hashlib.sha256(GENESIS.encode() + body).hexdigest()
    assert lines == body + b',"hash":"' + digest.encode() + b'"}\n'
    assert last == 7
    assert json.loads(lines) == {
        "seq": 7,
        "at": AT,
        "type": "log",
        "data": {"message": "hé", "level": "info"},
        "hash": digest,
    }


def test_a_frame_is_what_the_concepts_page_says() -> None:
    lines = rendered([Draft(AT, "log", {"message": "Researcher agent starting..."}), Draft(AT, "run.completed", {})])
    assert sse(lines) == (
        b'id: 1\nevent: log\ndata: {"message":"Researcher agent starting...","at":"2026-01-31T09:05:00.123Z"}\n\n'
        b'id: 2\nevent: run.completed\ndata: {"at":"2026-01-31T09:05:00.123Z"}\n\n'
    )


@given(DRAFTS, st.integers(1, 10**9))
def test_lines_are_read_back_and_verified(drafts: list[Draft], first: int) -> None:
    lines, last, digest = render(drafts, first, GENESIS)
    events = list(parse(lines))
    assert [(event.seq, event.at, event.type, event.data) for event in events] == [
        (first + index, draft.at, draft.type, draft.data) for index, draft in enumerate(drafts)
    ]
    assert lines.count(b"\n") == len(drafts)
    assert last == first + len(drafts) - 1
    assert verify(lines.split(b"\n")[:-1], first) == (last, digest)
    assert verify(lines.splitlines(keepends=True), first) == (last, digest)


@given(DRAFTS, st.integers(0, 8))
def test_rendering_in_pieces_gives_the_same_bytes(drafts: list[Draft], cut: int) -> None:
    whole = render(drafts, 1, GENESIS)
    first, last, digest = render(drafts[:cut], 1, GENESIS)
    second, last, digest = render(drafts[cut:], last + 1, digest)
    assert (first + second, last, digest) == whole


@given(st.lists(TEXTS, max_size=6))
def test_many_log_lines_at_once_are_the_same_as_one_by_one(messages: list[str]) -> None:
    at_once = Renderer(3, GENESIS)
    at_once.log(AT, messages, "info", "stdout")
    drafts = [Draft(AT, "log", {"message": message, "level": "info", "stream": "stdout"}) for message in messages]
    assert (at_once.take(), at_once.next_seq - 1, at_once.hash) == render(drafts, 3, GENESIS)
    assert at_once.take() == b""


@given(DRAFTS)
def test_frames_say_the_same_as_the_lines(drafts: list[Draft]) -> None:
    lines = rendered(drafts)
    found = frames(sse(lines))
    assert [(int(frame["id"]), frame["event"]) for frame in found] == [
        (index, draft.type) for index, draft in enumerate(drafts, 1)
    ]
    for frame, draft in zip(found, drafts, strict=True):
        assert json.loads(frame["data"]) == {**draft.data, "at": AT}
        assert set(frame) == {"id", "event", "data"}


@given(
    DRAFTS,
    st.integers(0, 12),
    st.none() | st.frozensets(st.sampled_from(sorted(EVENT_TYPES)), min_size=1),
    st.integers(1, 5),
)
def test_seek_gives_what_is_after(drafts: list[Draft], after: int, types: frozenset[str] | None, first: int) -> None:
    if not drafts:
        return
    lines = rendered(drafts, first)
    expected = b"".join(
        line
        for line, draft, seq in zip(lines.splitlines(keepends=True), drafts, range(first, 99), strict=False)
        if seq > after and (types is None or draft.type in types)
    )
    assert seek(lines, after, types) == expected
    assert first_seq_of(lines) == first


@given(DRAFTS.filter(bool), st.data())
def test_any_change_of_a_log_is_noticed(drafts: list[Draft], data: st.DataObject) -> None:
    lines = bytearray(rendered(drafts))
    digest = render(drafts, 1, GENESIS)[2]
    position = data.draw(st.integers(0, len(lines) - 2))
    lines[position] = data.draw(st.integers(0, 255).filter(lambda value: value != lines[position]))
    try:
        found = verify(bytes(lines).split(b"\n")[:-1])
    except ValueError:
        return
    # Only what does not count as content may differ without being noticed, and then the digest is another.
    assert found[1] != digest


@pytest.mark.parametrize("drop", [0, 1, 2])
def test_a_missing_event_is_named(drop: int) -> None:
    lines = rendered([Draft(AT, "log", {"message": str(number)}) for number in range(4)]).splitlines()
    del lines[drop]
    with pytest.raises(ValueError, match=f"event {drop + 1}: the log goes on with {drop + 2}"):
        verify(lines)


def test_events_that_changed_places_or_content_are_named() -> None:
    lines = rendered([Draft(AT, "log", {"message": str(number)}) for number in range(3)]).splitlines()
    with pytest.raises(ValueError, match="event 2: the log goes on with 3"):
        verify([lines[0], lines[2], lines[1]])
    with pytest.raises(ValueError, match="event 2: the hash does not match"):
        verify([lines[0], lines[1].replace(b'"1"', b'"x"'), lines[2]])
    with pytest.raises(ValueError, match="event 2: the line is not an event"):
        verify([lines[0], b"{}", lines[2]])
    assert verify([lines[2]], 3, json.loads(lines[1])["hash"])[0] == 3


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b'{"seq":1}', b"x" * 10])
def test_what_is_no_event_is_refused(line: bytes) -> None:
    good = rendered([Draft(AT, "log", {})])
    with pytest.raises(ValueError, match="not an event"):
        list(parse(good + line + b"\n" + good))


def test_a_crew_can_claim_only_what_is_its_own() -> None:
    platforms: set[str] = {
        *TERMINAL,
        "run.started",
        "log",
        "log.gap",
        "artifact",
        "deployment.activated",
        "build.started",
    }
    assert platforms <= EVENT_TYPES
    assert not any(CLAIMED.fullmatch(name) for name in platforms)
    claims: list[Any] = ["agent.started", "tool.called", "llm.completed", "task.error", "custom"]
    assert all(CLAIMED.fullmatch(name) for name in claims)
