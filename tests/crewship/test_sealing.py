"""Env values at rest."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.errors import Unavailable
from crewship.sealing import Sealer, key_id, sealed_with

KEY = bytes(range(32))
_EARLIER = "NGn7dKPIo3WgJPb53YAdH66k4liVGiwZZdtMZvITCZNHH3PVQ/LqAw=="


@given(st.text(), st.text())
def test_what_is_sealed_opens(value: str, context: str) -> None:
    sealed = Sealer(KEY).seal(value, context)
    assert Sealer(KEY).open(sealed, context) == value
    assert sealed.startswith("v1:")
    assert sealed.isascii()


def test_bytes_of_an_environment_that_are_not_utf8_are_kept() -> None:
    value = os.fsdecode(b"caf\xe9")
    sealer = Sealer(KEY)
    assert sealer.open(sealer.seal(value, "p/N"), "p/N") == value


def test_sealing_twice_gives_two_texts_that_do_not_have_the_value() -> None:
    sealer = Sealer(KEY)
    first, second = sealer.seal("sk-secret", "p/N"), sealer.seal("sk-secret", "p/N")
    assert first != second
    assert "sk-secret" not in first


def test_a_value_opens_in_its_own_place_only() -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal("value", "project/NAME")
    for context in ("other/NAME", "project/OTHER", "project/NAM", ""):
        with pytest.raises(Unavailable, match="is damaged"):
            sealer.open(sealed, context)


def test_another_key_is_told_from_damage() -> None:
    sealed = Sealer(KEY).seal("value", "p/N")
    with pytest.raises(Unavailable) as caught:
        Sealer(bytes(32)).open(sealed, "p/N")
    assert caught.value.detail == "The value of p/N was sealed with another key."
    assert "secret.key" in (caught.value.hint or "")


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    sealed = Sealer(KEY).seal("a value!", "p/N")  # of a length that leaves base64 no spare bits
    position = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda char: char != sealed[position]))
    with pytest.raises(Unavailable):
        Sealer(KEY).open(sealed[:position] + other + sealed[position + 1 :], "p/N")


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "v1",
        "v1:",
        "v2:x:y",
        "value",
        "v1:{id}:",
        "v1:{id}:AAAA",
        "v1:{id}:ü",
        "v1:{id}:====",
        "v1:{id}:" + "A" * 40,
    ],
)
def test_what_was_never_sealed_does_not_open(sealed: str) -> None:
    sealer = Sealer(KEY)
    with pytest.raises(Unavailable):
        sealer.open(sealed.format(id=sealer.key_id), "p/N")


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="31 bytes, not 32"):
        Sealer(bytes(31))


def test_every_key_opens_and_the_first_one_seals() -> None:
    new, old = bytes(range(100, 132)), KEY
    before = Sealer(old).seal("value", "p/N")
    sealer = Sealer(new, old)
    assert sealer.open(before, "p/N") == "value"
    after = sealer.seal("value", "p/N")
    assert sealed_with(before) == key_id(old)
    assert sealed_with(after) == key_id(new) == sealer.key_id
    with pytest.raises(Unavailable, match="another key"):
        Sealer(old).open(after, "p/N")


def test_keys_that_change_are_followed() -> None:
    new, keys = bytes(range(100, 132)), [KEY]
    sealer = Sealer(KEY, reread=lambda: keys)
    first = sealer.seal("value", "p/N")
    keys.insert(0, new)
    assert sealer.open(first, "p/N") == "value"
    assert sealed_with(sealer.seal("value", "p/N")) == key_id(new)


def test_a_value_that_was_sealed_by_an_earlier_release_opens() -> None:
    """As it was written to a database; the form of sealed values never changes under ``v1``."""
    sealed = f"v1:{key_id(KEY)}:AAECAwQFBgcICQoL{_EARLIER}"
    assert Sealer(bytes(range(100, 132)), KEY).open(sealed, "research/TOKEN") == "sk-of-an-earlier-release"


def test_frames_of_a_container_are_told_by_any_key_and_the_first_is_for_new_ones() -> None:
    new = bytes(range(100, 132))
    (before,) = Sealer(KEY).nonces("c1")
    assert Sealer(new, KEY).nonces("c1") == (Sealer(new).nonces("c1")[0], before)
    assert before not in Sealer(new, KEY).nonces("c2")


@pytest.mark.parametrize("sealed", ["", "v2:abcdef01:x", "plain", "v1"])
def test_what_is_no_sealed_value_has_no_key(sealed: str) -> None:
    assert sealed_with(sealed) == ""
