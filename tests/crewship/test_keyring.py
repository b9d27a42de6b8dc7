"""Where the sealing keys are: made once, read again when they change, and refused where they would be dangerous."""

import secrets
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from crewship.errors import Unavailable
from crewship.keyring import Key, Keyring, open_keyring
from crewship.sealing import sealed_with
from crewship.settings import Settings

ONE, TWO = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", secrets.token_hex(32)
POSTGRES = "postgresql://crewship:x@db/crewship"


def settings(path: Path | None = None, key: str = "", **more: object) -> Settings:
    values = {"data_dir": Path("/nonexistent"), "secret_key_file": path, "secret_key": SecretStr(key), **more}
    return Settings.model_construct(**values)


def first(path: Path) -> bytes:
    return open_keyring(settings(path)).keys[0].secret


def refused(configured: Settings) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        open_keyring(configured)
    assert caught.value.hint
    return caught.value


class TestAnEmbeddedPlatform:
    def test_makes_a_key_for_its_owner_only_and_reads_it_again(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "secret.key"
        key = open_keyring(settings(path)).keys[0]
        assert len(key.secret) == 32
        assert key.is_development
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == f"{key.secret.hex()}  # development\n"
        assert first(path) == key.secret
        assert [file.name for file in path.parent.iterdir()] == ["secret.key"]
        assert first(tmp_path / "other.key") != key.secret

    def test_all_that_come_at_once_get_the_same(self, tmp_path: Path) -> None:
        for attempt in range(10):
            path = tmp_path / f"{attempt}.key"
            barrier = threading.Barrier(8)
            keys: list[bytes] = []

            def load(path: Path = path, barrier: threading.Barrier = barrier, keys: list[bytes] = keys) -> None:
                barrier.wait()
                keys.append(first(path))

            threads = [threading.Thread(target=load) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(keys) == 8
            assert len(set(keys)) == 1
        assert len(list(tmp_path.iterdir())) == 10

    def test_an_administrators_tool_makes_none(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match="There is no secret key"):
            open_keyring(settings(tmp_path / "secret.key"), make=False)
        assert list(tmp_path.iterdir()) == []

    def test_the_file_of_an_earlier_release_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        path.write_text(ONE + "\n")
        assert open_keyring(settings(path)).keys == (Key(bytes.fromhex(ONE)),)

    @pytest.mark.parametrize(
        "content", [b"", b"abc", b"zz" * 32, b"00" * 31, b"00" * 33, b"\xff" * 64, b"# only a note\n", ONE.encode() + b"\nabc\n"]
    )  # fmt: skip
    def test_another_content_is_not_taken_nor_replaced(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "secret.key"
        path.write_bytes(content)
        assert "does not hold 64 hex digits a key" in refused(settings(path)).detail
        assert path.read_bytes() == content

    def test_a_place_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert "cannot be used: Not a directory" in refused(settings(tmp_path / "file" / "secret.key")).detail
        assert "cannot be used: Is a directory" in refused(settings(tmp_path)).detail


class TestProduction:
    """Its database is a server."""

    def test_makes_no_key(self, tmp_path: Path) -> None:
        error = refused(settings(tmp_path / "secret.key", database_url=POSTGRES))
        assert "There is no secret key" in error.detail
        assert list(tmp_path.iterdir()) == []

    def test_does_not_start_with_the_key_that_an_embedded_platform_made(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        open_keyring(settings(path))
        error = refused(settings(path, database_url=POSTGRES))
        assert "development key" in error.detail
        assert "crewship sealing rotate" in (error.hint or "")

    def test_opens_with_it_what_was_sealed_before_the_move(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        sealed = open_keyring(settings(path)).sealer().seal("value", "p/N")
        path.write_text(f"{TWO}\n{path.read_text()}")
        assert open_keyring(settings(path, database_url=POSTGRES)).sealer().open(sealed, "p/N") == "value"

    @pytest.mark.parametrize(
        "key",
        ["00" * 32, "deadbeef" * 8, bytes(range(32)).hex(), bytes(range(64, 0, -2)).hex(), "0123456789abcdef" * 4],
    )
    @pytest.mark.parametrize("database", ["", POSTGRES])
    def test_nobody_starts_with_a_key_that_can_be_guessed(self, key: str, database: str) -> None:
        assert "can be guessed" in refused(settings(key=key, database_url=database)).detail

    def test_random_keys_are_not_taken_for_such(self) -> None:
        for _ in range(2000):
            open_keyring(settings(key=secrets.token_hex(32), database_url=POSTGRES))


class TestTheVariable:
    def test_holds_several_keys_and_the_first_seals(self) -> None:
        ring = open_keyring(settings(key=f"{ONE}, {TWO}"))
        assert [key.secret.hex() for key in ring.keys] == [ONE, TWO]
        assert sealed_with(ring.sealer().seal("x", "p/N")) == ring.keys[0].id

    def test_is_not_shown(self) -> None:
        assert ONE not in repr(settings(key=ONE))
        assert ONE not in refused(settings(key=ONE + "0")).detail

    def test_and_a_file_are_one_too_many(self, tmp_path: Path) -> None:
        assert "are both set" in refused(settings(tmp_path / "secret.key", key=ONE)).detail

    def test_cannot_be_rotated_by_the_platform(self) -> None:
        with pytest.raises(Unavailable, match="only whoever sets it") as caught:
            open_keyring(settings(key=ONE)).put_first()
        assert "openssl rand -hex 32" in (caught.value.hint or "")


class TestAChangedFile:
    def test_is_read_again_by_who_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        running = open_keyring(settings(path)).sealer()
        before = running.seal("value", "p/N")
        made = open_keyring(settings(path)).put_first()
        after = running.seal("value", "p/N")
        assert sealed_with(after) == made.id != sealed_with(before)
        assert [running.open(sealed, "p/N") for sealed in (before, after)] == ["value", "value"]

    def test_keeps_the_owners_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        ring = open_keyring(settings(path))
        path.chmod(0o440)
        ring.put_first()
        assert path.stat().st_mode & 0o777 == 0o440
        assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]

    def test_that_is_gone_or_damaged_changes_nothing_for_who_runs(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        running = open_keyring(settings(path)).sealer()
        sealed = running.seal("value", "p/N")
        path.write_text("half")
        assert running.open(sealed, "p/N") == "value"
        path.unlink()
        assert running.open(sealed, "p/N") == "value"

    def test_keys_that_two_add_at_once_are_both_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        before = open_keyring(settings(path)).keys[0].id
        made: list[str] = []
        threads = [
            threading.Thread(target=lambda: made.append(open_keyring(settings(path)).put_first().id)) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = [key.id for key in open_keyring(settings(path)).keys]
        assert sorted(kept) == sorted([*made, before])
        assert kept[-1] == before

    def test_drops_former_keys_and_never_the_one_that_seals(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.key"
        ring = open_keyring(settings(path))
        ring.put_first()
        current, former = ring.keys
        assert current.since is not None
        assert not current.is_development
        ring.drop([current.id, former.id])
        assert open_keyring(settings(path)).keys == (current,)

    def test_in_a_folder_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "secret.key"
        ring = open_keyring(settings(path))
        content = path.read_text()

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Read-only file system")

        monkeypatch.setattr("os.replace", refuse)
        with pytest.raises(Unavailable, match="cannot be written: Read-only file system"):
            ring.put_first()
        assert path.read_text() == content
        assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_a_ring_without_a_file_never_changes() -> None:
    ring = Keyring(None, [Key(bytes.fromhex(ONE))])
    assert ring.keys == ring.keys
    assert len(ring.secrets()) == 1
