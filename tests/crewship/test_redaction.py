"""Redaction: known values do not get through, in any form in which they turn up; everything else does, unchanged."""

import base64
import json
import random
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.redaction import Redactor

SECRET = "sk-proj/Abc+123=="
MARK = "[redacted:KEY]"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END PRIVATE KEY-----\n"


def redact(text: str, **values: str) -> str:
    return Redactor(values or {"KEY": SECRET}).redact(text)


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        quote(SECRET, safe="").replace("%2B", "%2b").replace("%2F", "%2f").replace("%3D", "%3d"),
        SECRET.replace("/", r"\/"),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_each_form_is_found(form: str) -> None:
    assert redact(f"before {form} after") == f"before {MARK} after"


@pytest.mark.parametrize(
    "secret", ['a"quote\\and\ttab', "zürich-geheim", "emoji-🔑-secret", "line one\nline two", "<b>&amp;'x'</b>"]
)
def test_forms_of_values_with_special_characters(secret: str) -> None:
    once = json.dumps({"k": secret})
    for text in (
        secret,
        once,
        json.dumps({"k": secret}, ensure_ascii=False),
        json.dumps({"k": once}),
        urlencode({"k": secret}),
    ):
        redacted = redact(f"x {text} y", KEY=secret)
        assert MARK in redacted
        assert secret not in redacted
        assert json.dumps(secret)[1:-1] not in redacted


@given(st.binary(max_size=20), st.binary(max_size=20), st.text(st.characters(codec="utf-8"), min_size=12, max_size=60))
def test_base64_is_found_wherever_the_value_is_in_it(before: bytes, after: bytes, secret: str) -> None:
    redactor = Redactor({"KEY": secret})
    if redactor.skipped:
        return
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(before + secret.encode() + after).decode()
        assert MARK in redactor.redact(encoded)


@given(
    st.dictionaries(
        st.sampled_from(["A", "B", "C"]),
        st.text(st.characters(exclude_categories=[]), min_size=8, max_size=30),
        min_size=1,
    ),
    st.lists(st.text(st.characters(exclude_categories=[]), max_size=20), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_no_value_gets_through(values: dict[str, str], filler: list[str], chance: random.Random) -> None:
    redactor = Redactor(values)
    looked_for = [value for name, value in values.items() if name not in redactor.skipped]
    pieces = filler + looked_for
    chance.shuffle(pieces)
    redacted = redactor.redact(" ".join(pieces))
    for value in looked_for:
        # Overlapping values may be cut by one another's mark; none is there as a whole.
        assert value not in redacted or any(value in f"[redacted:{name}]" for name in values)


@given(st.text(st.characters(exclude_categories=[])))
def test_text_without_values_is_given_back_itself(text: str) -> None:
    redactor = Redactor({"KEY": "9f86d081884c7d659a2feaa0c55ad015"})
    assert redactor.redact(text) is text
    assert Redactor({}).redact(text) is text


def test_bytes_are_redacted_where_they_are_not_utf8_too() -> None:
    redactor = Redactor({"KEY": SECRET})
    assert redactor.redact_bytes(b"\xff\x00" + SECRET.encode() + b"\xfe") == b"\xff\x00" + MARK.encode() + b"\xfe"
    data = b"\xff nothing"
    assert redactor.redact_bytes(data) is data


def test_several_values_each_by_its_name_and_the_longest_first() -> None:
    values = {"SHORT": "abcdefgh1", "LONG": "abcdefgh1-and-more", "OTHER": "zyxwvuts9"}
    text = "abcdefgh1-and-more abcdefgh1 zyxwvuts9abcdefgh1"
    assert redact(text, **values) == "[redacted:LONG] [redacted:SHORT] [redacted:OTHER][redacted:SHORT]"


def test_one_value_of_two_names_has_the_first() -> None:
    assert redact("x same-secret-1", B="same-secret-1", A="same-secret-1") == "x [redacted:A]"


def test_lines_of_a_value_are_found_alone_and_its_frame_is_not() -> None:
    assert redact("MIIEvQIBADANBgkqhkiG9w0B", KEY=PEM) == MARK
    assert redact(f"key:\n{PEM}end", KEY=PEM) == f"key:\n{MARK}end"
    assert redact(f"key: {PEM.strip()} end", KEY=PEM) == f"key: {MARK} end"
    assert redact("-----BEGIN PRIVATE KEY-----", KEY=PEM) == "-----BEGIN PRIVATE KEY-----"


def test_the_password_of_a_url_is_found_alone() -> None:
    url = "postgres://app:hunter2%2Fhunter2@db:5432/app"
    assert redact(f"cannot connect to {url}", DATABASE_URL=url) == "cannot connect to [redacted:DATABASE_URL]"
    assert redact("password hunter2/hunter2 refused", DATABASE_URL=url) == "password [redacted:DATABASE_URL] refused"
    assert redact("user app at db", DATABASE_URL=url) == "user app at db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "8080"), ("SHORT", "abc1234"), ("EMPTY", ""), ("SEED", "1234567890"), ("HOSTS", "127.0.0.1:8080"),
        ("STAGE", "production"), ("FLAG", "Disabled"), ("MODEL", "gpt-4o-mini"), ("OPENAI_MODEL_NAME", "gpt-4o-mini"),
        ("AWS_REGION", "eu-central-1"), ("LOG_LEVEL", "critical"), ("llm_provider", "some-provider"), ("DATA_DIR", "/app/data"),
    ],
)  # fmt: skip
def test_what_is_no_secret_is_left_alone_and_listed(name: str, value: str) -> None:
    redactor = Redactor({name: value, "KEY": SECRET})
    assert redactor.skipped == (name,)
    text = f"the value is {value}."
    assert redactor.redact(text) is text


@pytest.mark.parametrize(
    ("name", "value"),
    [("MODEL", "x" * 65), ("MODELS_KEY", "gpt-4o-mini"), ("TOKEN", "abcd-1234"), ("K", "productions")],
)
def test_what_may_be_a_secret_is_looked_for(name: str, value: str) -> None:
    redactor = Redactor({name: value})
    assert redactor.skipped == ()
    assert redactor.redact(value) == f"[redacted:{name}]"


class TestJson:
    def test_strings_and_keys_at_any_depth(self) -> None:
        value: dict[str, Any] = {
            "a": [SECRET, {"b": (f"x{SECRET}", 1, None, True, 2.5)}],
            SECRET: SECRET,
            "n": {},
            "l": [],
        }
        original = json.dumps(value)
        redacted = Redactor({"KEY": SECRET}).redact_json(value)
        assert redacted == {"a": [MARK, {"b": [f"x{MARK}", 1, None, True, 2.5]}], MARK: MARK, "n": {}, "l": []}
        assert list(redacted) == ["a", MARK, "n", "l"]
        assert json.dumps(value) == original

    def test_bare_values(self) -> None:
        redactor = Redactor({"KEY": SECRET})
        values: list[Any] = [SECRET, 1, None, [], "x"]
        assert [redactor.redact_json(value) for value in values] == [MARK, 1, None, [], "x"]

    def test_what_is_nested_deeper_than_the_interpreter_recurses(self) -> None:
        value: Any = SECRET
        for _ in range(50_000):
            value = [value]
        redacted = Redactor({"KEY": SECRET}).redact_json(value)
        while isinstance(redacted, list):
            (redacted,) = redacted
        assert redacted == MARK
        while isinstance(value, list):  # taken apart by hand: the interpreter's own way down is recursive
            value = value[0]

    def test_without_values_it_is_the_same_object(self) -> None:
        value: dict[str, list[str]] = {"a": ["b"]}
        assert Redactor({"PORT": "80"}).redact_json(value) is value


def test_a_hundred_thousand_lines_take_no_time_worth_a_word() -> None:
    """No timing: it would hang, were it quadratic."""
    values = {f"KEY_{number}": f"{number:08}-secret-value" for number in range(200)}
    redactor = Redactor(values)
    text = "an ordinary line of a log that says nothing secret at all\n" * 100_000
    assert redactor.redact(text) is text
    secret = values["KEY_7"] + "\n"
    assert redactor.redact(secret * 10_000) == "[redacted:KEY_7]\n" * 10_000
