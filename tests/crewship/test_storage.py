"""Both object stores pass the same tests."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crewship.errors import Unavailable
from crewship.folder_storage import FolderStore, validated_key
from crewship.storage import ObjectInfo, ObjectMissing, ObjectStore, read
from crewship.stores import open_store
from crewship.streams import as_file
from tests.fixtures.minio import Minio, make_minio, minio  # noqa: F401
from tests.fixtures.servers import free_port


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        made = open_store(f"file://{tmp_path}/obj%20ects")
    else:
        bucket = hashlib.sha256(request.node.name.encode()).hexdigest()[:32]
        made = open_store(request.getfixturevalue("minio").url(bucket))
    made.create()
    return made


def keys(store: ObjectStore, prefix: str) -> list[str]:
    return [found.key for found in store.list(prefix)]


def test_what_is_put_is_read_back(store: ObjectStore) -> None:
    assert store.put("runs/run_1/log/events.ndjson.zst", b"hello") == 5
    assert read(store, "runs/run_1/log/events.ndjson.zst") == b"hello"
    assert store.stat("runs/run_1/log/events.ndjson.zst") == ObjectInfo("runs/run_1/log/events.ndjson.zst", 5)


def test_an_empty_object(store: ObjectStore) -> None:
    assert store.put("empty", b"") == 0
    assert store.put("empty-stream", io.BytesIO()) == 0
    for key in ("empty", "empty-stream"):
        assert store.stat(key).size_bytes == 0
        assert read(store, key) == b""
        assert read(store, key, 0, 10) == b""


def test_a_second_put_replaces(store: ObjectStore) -> None:
    store.put("key", b"first, and longer")
    store.put("key", b"second")
    assert read(store, "key") == b"second"
    assert list(store.list("")) == [ObjectInfo("key", 6)]


def test_ranges(store: ObjectStore) -> None:
    data = bytes(range(256)) * 1024
    store.put("ranges", data)
    for offset, length in [(0, None), (0, 1), (5, None), (100_000, 70_000), (len(data) - 1, 9), (7, 0)]:
        assert read(store, "ranges", offset, length) == data[offset : None if length is None else offset + length]
    for offset in (len(data), len(data) + 5):
        assert read(store, "ranges", offset) == b""
        assert read(store, "ranges", offset, 3) == b""


def test_a_large_stream_of_unknown_length_goes_through_in_pieces(store: ObjectStore) -> None:
    piece = os.urandom(1 << 20)
    count = 21
    digest = hashlib.sha256(piece * count).hexdigest()
    assert store.put("large", as_file(iter([piece] * count))) == count << 20
    found = hashlib.sha256()
    for chunk in store.open("large"):
        assert 0 < len(chunk) <= 1 << 17
        found.update(chunk)
    assert found.hexdigest() == digest
    assert store.stat("large").size_bytes == count << 20


def test_a_stream_that_breaks_stores_nothing_and_keeps_its_own_error(store: ObjectStore) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * (10 << 20)
        raise ConnectionResetError("the client went away")

    store.put("broken", b"before")
    with pytest.raises(ConnectionResetError):
        store.put("broken", as_file(pieces()))
    assert read(store, "broken") == b"before"
    assert keys(store, "") == ["broken"]


def test_what_is_not_there(store: ObjectStore) -> None:
    for _ in range(2):
        with pytest.raises(ObjectMissing):
            store.open("nothing/here")
        with pytest.raises(ObjectMissing):
            store.open("nothing/here", 3, 0)
        with pytest.raises(ObjectMissing):
            store.stat("nothing/here")
        store.delete("nothing/here")
        store.delete_prefix("nothing/")
        assert keys(store, "nothing/") == []
        store.put("nothing/else", b"")  # and the same with what a deleted object leaves behind
        store.delete("nothing/else")
    with pytest.raises(ObjectMissing):
        store.stat("nothing")


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    store.put("a/b/c", b"1")
    for key in ("a", "a/b"):
        with pytest.raises(ObjectMissing):
            store.stat(key)
        with pytest.raises(ObjectMissing):
            store.open(key)
        store.delete(key)
    with pytest.raises(ObjectMissing):
        store.stat("a/b/c/d")
    assert keys(store, "") == ["a/b/c"]


def test_list_is_by_prefix_and_in_the_order_of_keys(store: ObjectStore) -> None:
    everything = sorted(
        ["runs/a/1", "runs/a/10", "runs/a/2", "runs/a-b/1", "runs/a.b", "runs/ab/x/y", "sources/x", "z"]
    )
    for key in everything:
        store.put(key, key.encode())
    for prefix in ("", "r", "runs/", "runs/a", "runs/a/", "runs/a/1", "runs/ab/x/", "q", "runs/a/1/", "z"):
        assert keys(store, prefix) == [key for key in everything if key.startswith(prefix)], prefix
    assert [found.size_bytes for found in store.list("runs/ab")] == [11]


def test_delete_and_delete_prefix(store: ObjectStore) -> None:
    for key in ("runs/1/a", "runs/1/b/c", "runs/10/a", "runs/2/a"):
        store.put(key, b"x")
    store.delete("runs/2/a")
    store.delete_prefix("runs/1/")
    assert keys(store, "runs/") == ["runs/10/a"]
    store.delete_prefix("runs/1")
    assert keys(store, "") == []


def test_many_are_deleted_at_once(store: ObjectStore) -> None:
    for number in range(1010):  # S3 takes a thousand in one request
        store.put(f"many/{number:04}", b"")
    assert len(keys(store, "many/")) == 1010
    store.delete_prefix("many/")
    assert keys(store, "many/") == []


def test_a_reader_that_began_goes_on_when_the_object_is_replaced(store: ObjectStore) -> None:
    store.put("busy", b"a" * 200_000)
    chunks = store.open("busy")
    first = next(chunks)
    store.put("busy", b"b" * 200_000)
    assert set(first + b"".join(chunks)) == {ord("a")}
    assert set(read(store, "busy")) == {ord("b")}


def test_a_reader_that_stops_leaves_nothing_open(store: ObjectStore) -> None:
    store.put("large", b"x" * (1 << 20))
    for _ in range(50):
        store.open("large")
        next(store.open("large"))
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        store.open("large")
        next(store.open("large"))
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_concurrent_puts_of_one_key_leave_one_of_them(store: ObjectStore) -> None:
    failures: list[BaseException] = []
    contents = [bytes([65 + number]) * 300_000 for number in range(4)]

    def put(content: bytes) -> None:
        try:
            for _ in range(5):
                store.put("race/one", content)
                assert read(store, "race/one") in contents
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert read(store, "race/one") in contents


def test_puts_and_deletes_in_one_folder_do_not_disturb_each_other(store: ObjectStore) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(40):
                store.put(f"deep/er/{name}/{number}", b"x")
                assert read(store, f"deep/er/{name}/{number}") == b"x"
                store.delete(f"deep/er/{name}/{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert keys(store, "") == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/.",
        ".a",
        "a/.unfinished",
        "a b",
        "ä",
        "a\n",
        "a" * 256,
        "a/" * 600 + "a",
    ],
)
def test_a_key_that_we_do_not_make_is_refused(store: ObjectStore, key: str) -> None:
    for call in (store.open, store.stat, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(ValueError, match="not an object key"):
            call(key)


def test_check_passes_and_leaves_nothing(store: ObjectStore) -> None:
    store.check()
    store.check()
    assert keys(store, "") == []


def assert_not_there(store: ObjectStore) -> None:
    """Every call says that the store is not there, and none makes it."""
    calls: list[Callable[[], object]] = [
        store.check,
        lambda: store.put("a/b", b""),
        lambda: store.put("a/b", io.BytesIO()),
        lambda: store.open("a/b"),
        lambda: store.open("a/b", 0, 0),
        lambda: store.stat("a/b"),
        lambda: keys(store, ""),
        lambda: store.delete("a/b"),
        lambda: store.delete_prefix("a/"),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match=r"is not there|has no bucket"):
            call()


@pytest.mark.server
def test_a_store_that_was_never_made_is_not_there(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert_not_there(open_store(f"file://{tmp_path}/objects"))
    assert list(tmp_path.iterdir()) == []
    assert_not_there(open_store(request.getfixturevalue("minio").url("never-made")))


def test_a_store_is_made_once(store: ObjectStore) -> None:
    store.put("a", b"1")
    store.create()
    assert read(store, "a") == b"1"


class TestFolder:
    def test_what_a_crash_left_behind_is_not_seen_and_removed_a_day_later(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path)
        store.create()
        store.put("a", b"1")
        left, fresh = tmp_path / ".unfinished" / "left", tmp_path / ".unfinished" / "fresh"
        left.write_bytes(b"half")
        fresh.write_bytes(b"being written")
        os.utime(left, (time.time() - 90_000,) * 2)
        assert keys(store, "") == ["a"]
        store.check()
        assert (left.exists(), fresh.exists()) == (False, True)

    def test_empty_folders_go_with_their_last_object(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "store")
        store.create()
        store.put("runs/1/artifacts/x", b"")
        store.put("runs/2/x", b"")
        store.delete_prefix("runs/1/")
        assert [path.name for path in (tmp_path / "store" / "runs").iterdir()] == ["2"]

    def test_a_folder_that_cannot_be_used_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        store = FolderStore(tmp_path / "file")
        with pytest.raises(Unavailable, match="Not a directory"):
            store.put("a", b"")
        with pytest.raises(Unavailable, match="Not a directory"):
            store.check()

    def test_the_mount_point_of_a_volume_that_is_not_mounted_is_no_store(self, tmp_path: Path) -> None:
        root = tmp_path / "store"
        store = FolderStore(root)
        store.create()
        store.put("a/b", b"1")
        root.rename(tmp_path / "elsewhere")
        root.mkdir()
        assert_not_there(store)
        assert list(root.iterdir()) == []
        root.rmdir()
        (tmp_path / "elsewhere").rename(root)
        assert read(store, "a/b") == b"1"

    def test_keys_are_checked_by_the_code_that_both_stores_share(self) -> None:
        assert validated_key("runs/run_1/log/segments/000000000001-1.ndjson.zst")


@pytest.mark.server
class TestS3:
    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        store = open_store(f"s3+http://key:secret-key@127.0.0.1:{free_port()}/bucket")
        for call in (store.check, lambda: store.put("a", b""), lambda: store.stat("a"), lambda: list(store.list(""))):
            with pytest.raises(Unavailable) as caught:
                call()
            assert "does not answer" in caught.value.detail
            assert "secret-key" not in caught.value.detail

    def test_a_wrong_secret_is_unavailable_and_not_repeated(self, request: pytest.FixtureRequest) -> None:
        server: Minio = request.getfixturevalue("minio")
        store = open_store(f"s3+http://{server.access_key}:wr%2Fong@{server.endpoint}/bucket")
        with pytest.raises(Unavailable) as caught:
            store.check()
        assert "refused" in caught.value.detail
        assert "wr" not in caught.value.detail

    def test_it_goes_on_after_a_crash_of_the_server(self, tmp_path: Path) -> None:
        started = make_minio(tmp_path)
        started.server.start()
        try:
            store = open_store(started.url("bucket"))
            store.create()
            store.put("a", b"1")
            started.server.kill()
            with pytest.raises(Unavailable):
                store.put("b", b"2")
            started.server.start()
            assert read(store, "a") == b"1"
            store.put("b", b"2")
            store.check()
        finally:
            started.server.kill()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "objects",
        "file://host/x",
        "file:x",
        "s3://k:s@h/b",
        "s3+http://h/b",
        "s3+http://k:s@h/",
        "s3+http://k:s@h/b/c",
    ],
)
def test_a_url_that_names_no_store_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"the object store's URL is n") as caught:
        open_store(url)
    assert not url or url not in str(caught.value)
