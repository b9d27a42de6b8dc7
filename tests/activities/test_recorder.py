"""What a run's recorder does when things go wrong beside it: nothing that a run would notice."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from activities import recorder as module
from activities.recorder import Recorder
from activities.run_records import RunRecords
from crewship.engine import Engine
from crewship.errors import Unavailable
from crewship.folder_storage import FolderStore
from crewship.objects import samples_key
from crewship.recording import Looks, Recording, Sample
from crewship.storage import read


class Metered:
    """An engine whose container can be looked at, or not."""

    def __init__(self, *looks: Looks | None) -> None:
        self.looks, self.asked = list(looks), 0
        self.was_asked = threading.Event()

    def meter(self, container: str) -> Looks | None:
        self.asked += 1
        self.was_asked.set()
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class Records:
    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def usage(self, so_far: dict[str, Any]) -> None:
        self.kept.append(so_far)


class Counter:
    """A meter that counts its looks."""

    def __init__(self) -> None:
        self.count = 0
        self.looked = threading.Event()

    def __call__(self) -> Sample:
        self.count += 1
        self.looked.set()
        return Sample(at_ms=1000 + self.count, cpu_ms=self.count * 10, pids=2)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_FIRST_SECONDS", 0.0)
    return


def recorder(engine: Metered, store: Any, records: Records) -> Recorder:
    return Recorder(cast(Engine, engine), store, cast(RunRecords, records), "run_1", "crewship-run-1-1")


def test_a_whole_recording_with_a_last_look(tmp_path: Path) -> None:
    store, records, meter = FolderStore(tmp_path), Records(), Counter()
    store.create()
    recording = recorder(Metered(Looks(meter, 0.0, True)), store, records)
    recording.start()
    assert meter.looked.wait(10)
    recording.look()
    recording.stop()
    recording.join()
    assert meter.count == 2
    assert (records.kept[-1]["cpu_seconds"], records.kept[-1]["peak_pids"]) == (0.02, 2)
    assert len(Recording.load(read(store, samples_key("run_1"))).points) == 2


def test_who_adopts_goes_on(tmp_path: Path) -> None:
    store, records, meter = FolderStore(tmp_path), Records(), Counter()
    store.create()
    earlier = Recording()
    earlier.add(Sample(at_ms=1, cpu_ms=5, memory_bytes=999))
    store.put(samples_key("run_1"), earlier.dump())
    recording = recorder(Metered(Looks(meter, 0.0, True)), store, records)
    recording.start()
    assert meter.looked.wait(10)
    recording.stop()
    recording.join()
    assert [point.at_ms for point in Recording.load(read(store, samples_key("run_1"))).points] == [1, 1001]
    assert records.kept[-1]["peak_memory_bytes"] == 999


def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    store, records, engine = FolderStore(tmp_path), Records(), Metered(None)
    store.create()
    recording = recorder(engine, store, records)
    recording.start()
    assert engine.was_asked.wait(10)
    recording.look()
    recording.stop()
    recording.join()
    assert (records.kept, list(store.list("runs/"))) == ([], [])


def test_a_store_that_is_away(tmp_path: Path) -> None:
    class Away(FolderStore):
        def put(self, key: str, data: Any) -> int:
            raise Unavailable("The object store cannot be reached")

    records, meter = Records(), Counter()
    recording = recorder(Metered(Looks(meter, 0.0, True)), Away(tmp_path), records)
    recording.start()
    assert meter.looked.wait(10)
    recording.stop()
    recording.join()
    assert len(records.kept) == 1


def test_one_that_was_never_started() -> None:
    recording = recorder(Metered(None), None, Records())
    recording.look()
    recording.stop()
    recording.join()
