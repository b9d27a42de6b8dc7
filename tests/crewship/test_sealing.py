"""Env values at rest."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.errors import Unavailable
from crewship.sealing import Sealer, load_or_create_key

KEY = bytes(range(32))


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


class TestKeyFile:
    def test_it_is_made_for_its_owner_only_and_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "secret.key"
        key = load_or_create_key(path)
        assert len(key) == 32
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == key.hex() + "\n"
        assert load_or_create_key(path) == key
        assert [file.name for file in path.parent.iterdir()] == ["secret.key"]
        assert load_or_create_key(tmp_path / "other.key") != key

    def test_all_that_come_at_once_get_the_same(self, tmp_path: Path) -> None:
        for attempt in range(10):
            path = tmp_path / f"{attempt}.key"
            barrier = threading.Barrier(8)
            keys: list[bytes] = []

            def load(path: Path = path, barrier: threading.Barrier = barrier, keys: list[bytes] = keys) -> None:
                barrier.wait()
                keys.append(load_or_create_key(path))

            threads = [threading.Thread(target=load) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(keys) == 8
            assert len(set(keys)) == 1
        assert len(list(tmp_path.iterdir())) == 10

    @pytest.mark.parametrize("content", [b"", b"abc", b"zz" * 32, b"00" * 31, b"00" * 33, b"\xff" * 64])
    def test_another_content_is_not_taken_nor_replaced(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "secret.key"
        path.write_bytes(content)
        with pytest.raises(Unavailable, match="does not hold 64 hex digits"):
            load_or_create_key(path)
        assert path.read_bytes() == content

    def test_a_place_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Unavailable, match="cannot be used: Not a directory"):
            load_or_create_key(tmp_path / "file" / "secret.key")
        with pytest.raises(Unavailable, match="cannot be used: Is a directory"):
            load_or_create_key(tmp_path)
