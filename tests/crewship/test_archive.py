"""A log's archive: the bytes of the live log, whole and by range, and what retention leaves."""

import hashlib
from pathlib import Path

import pytest
import zstandard

from crewship import archive
from crewship.archive import Archive, SegmentCorrupt
from crewship.contracts import Entry, Segment
from crewship.events import GENESIS, Draft, parse, render, verify
from crewship.folder_storage import FolderStore
from crewship.objects import archive_key, segment_key
from crewship.storage import ObjectMissing, read

ID = "run-run_1"
AT = "2026-01-31T09:05:00.123Z"


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path)
    made.create()
    return made


def log(store: FolderStore, sizes: list[int], *, segments: bool) -> tuple[list[Entry], bytes]:
    entries, everything, seq, previous = [], b"", 1, GENESIS
    for size in sizes:
        lines, last, previous = render(
            [Draft(AT, "log", {"message": f"m{seq + i}"}) for i in range(size)], seq, previous
        )
        if segments and size > 5:
            frame = archive.compress(lines)
            key = segment_key(ID, seq, 1)
            store.put(key, frame)
            pointer = Segment(key=key, sha256=hashlib.sha256(frame).hexdigest(), size_bytes=len(frame))
            entries.append(Entry(first=seq, last=last, segment=pointer))
        else:
            entries.append(Entry(first=seq, last=last, lines=lines.decode()))
        everything += lines
        seq = last + 1
    return entries, everything


@pytest.mark.parametrize("segments", [False, True])
def test_the_archive_has_the_live_logs_bytes(store: FolderStore, segments: bool) -> None:
    entries, everything = log(store, [1, 10, 2, 3, 50, 1], segments=segments)
    archive.write(store, ID, entries)
    opened = Archive.open(store, ID)
    assert b"".join(opened.read(entry) for entry in opened.entries) == everything
    assert (opened.entries[0].first, opened.last_seq) == (1, 67)
    assert verify(everything.splitlines())[0] == 67


def test_any_zstd_tool_reads_it_whole(store: FolderStore) -> None:
    entries, everything = log(store, [3, 10, 4], segments=True)
    archive.write(store, ID, entries)
    with zstandard.ZstdDecompressor().stream_reader(read(store, archive_key(ID)), read_across_frames=True) as reader:
        assert reader.read() == everything


def test_writing_it_twice_is_the_same(store: FolderStore) -> None:
    entries, _ = log(store, [3, 10], segments=True)
    archive.write(store, ID, entries)
    first = read(store, archive_key(ID))
    archive.write(store, ID, entries)
    assert read(store, archive_key(ID)) == first


def test_a_segment_that_was_changed_is_never_archived(store: FolderStore) -> None:
    entries, _ = log(store, [10], segments=True)
    assert entries[0].segment is not None
    store.put(entries[0].segment.key, b"something else")
    with pytest.raises(SegmentCorrupt):
        archive.write(store, ID, entries)
    assert not archive.is_archived(store, ID)


def test_retention_leaves_the_terminal_event(store: FolderStore) -> None:
    entries, everything = log(store, [3, 10, 4], segments=True)
    archive.write(store, ID, entries)
    archive.trim(store, ID)
    archive.trim(store, ID)
    opened = Archive.open(store, ID)
    [entry] = opened.entries
    [event] = parse(opened.read(entry))
    assert event == list(parse(everything))[-1]
    with pytest.raises(ObjectMissing):
        store.stat(archive_key(ID))
