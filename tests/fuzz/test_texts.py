"""What people and clients write by hand: positions in a log, event types, cursors, ``crewship.toml``. Each is taken, or refused
by an error that says what is wrong; nothing else happens."""

# ruff: noqa: PT017 (an error is one of the two good outcomes)

import base64
import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from api.pages import decode_moment, encode_cursor
from api.streaming import stream_request
from crewship.config import load
from crewship.errors import CrewshipError, InvalidConfig, InvalidCursor, InvalidRequest
from crewship.events import EVENT_TYPES

pytestmark = pytest.mark.fuzz

POSITION = st.one_of(
    st.none(), st.text(max_size=30), st.integers(-(10**20), 10**20).map(str), st.sampled_from(["٣", "²", "1_0", "+1"])
)


def request(accept: str) -> Request:
    headers = [(b"accept", accept.encode("utf-8", "replace"))]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""})


@given(
    POSITION,
    POSITION,
    st.none() | st.text(max_size=40) | st.lists(st.sampled_from(sorted(EVENT_TYPES))).map(",".join),
    st.text(max_size=40),
)
@example("³", None, None, "")
@example(None, "1" * 5000, None, "")
def test_resume_parameters(header: str | None, query: str | None, types: str | None, accept: str) -> None:
    try:
        wanted = stream_request(request(accept), header, query, types)
    except InvalidRequest as error:  # InvalidCursor too
        assert error.hint
        assert len(error.detail) < 400
        return
    given_position = header if header is not None else query
    assert wanted.after == (0 if given_position is None else int(given_position))
    assert 0 <= wanted.after < 10**18
    assert wanted.types is None or wanted.types <= EVENT_TYPES


@given(st.text(max_size=100) | st.lists(st.text(max_size=30) | st.integers(), max_size=3).map(json.dumps).map(
    lambda text: base64.urlsafe_b64encode(text.encode()).decode()
))  # fmt: skip
@example(encode_cursor("0001-01-01T00:00:00+23:59", "x"))
@example(encode_cursor("9999-12-31T23:59:59-23:59", "x"))
@example(encode_cursor("2026-01-01", "x"))
def test_cursors(cursor: str) -> None:
    try:
        moment, _ = decode_moment(cursor)
    except InvalidCursor as error:
        assert error.hint
    else:
        assert moment.utcoffset() is not None


TABLES = ["project", "deployment", "deployments", "build", "run", "network", "tool"]
KEYS = [
    "name", "framework", "entrypoint", "python", "profile", "exclude", "smoke", "apt", "timeout_seconds", "memory", "cpus",
    "pids", "disk", "log", "retries", "concurrency", "queue_timeout_seconds", "warm", "artifacts", "mode", "allow", "research",
]  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=True) | st.text(max_size=20)
    | st.sampled_from(["crewai", "python", "crew:kickoff", "1g", "3.11", "none", "allow", "../x", "a" * 200]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def toml(value: Any) -> str:
    """``value`` as TOML, tables inline."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=True).replace("\\/", "/")
        case _:
            return repr(value)


@given(
    st.dictionaries(
        st.sampled_from(TABLES), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6) | VALUES, max_size=5
    ),
    st.none() | st.sampled_from(["research", "nobody", ""]),
)
@example(
    {"deployment": {"framework": "python", "entrypoint": "crew:kickoff"}, "run": {"memory": "9" * 400 + "g"}}, None
)
@example({"deployment": {"framework": "python", "entrypoint": "crew:kickoff"}, "run": {"cpus": float("nan")}}, None)
@example({"deployment": {"framework": "python", "entrypoint": "crew:kickoff"}, "run": {"cpus": float("inf")}}, None)
def test_a_config_of_any_form_is_taken_or_refused(content: dict[str, Any], name: str | None) -> None:
    text = "\n".join(f"{key} = {toml(value)}" for key, value in content.items())
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a surrogate pair, which TOML has no escape for
        with pytest.raises(InvalidConfig):
            load(text.encode(), name)
        return
    try:
        config = load(text.encode(), name)
    except CrewshipError as error:
        assert error.detail.isprintable() or "\n" in error.detail
        assert error.hint
    else:
        # What is stored is JSON, and is read again as it was.
        stored = json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))
        assert type(config).model_validate(stored) == config
