"""A run's flight recording: what it used over its life."""

from fastapi import APIRouter

from api.auth import ReadCaller
from api.lookups import get_run
from api.state import PlatformDep
from api.wire import Read, Time
from crewship.clock import from_ms
from crewship.objects import samples_key
from crewship.recording import Recording
from crewship.storage import ObjectMissing, ObjectStore, read

router = APIRouter(prefix="/runs", tags=["runs"])


class SampleRead(Read):
    """`cpu_seconds`, `network_*` and `disk_*` are counted from the run's start; null where the kernel does not tell."""

    at: Time
    cpu_seconds: float | None
    memory_bytes: int | None
    pids: int | None
    network_rx_bytes: int | None
    network_tx_bytes: int | None
    disk_read_bytes: int | None
    disk_write_bytes: int | None


class SamplesRead(Read):
    interval_ms: int
    samples: list[SampleRead]


@router.get("/{run_id}/samples")
async def list_samples(run_id: str, platform: PlatformDep, caller: ReadCaller) -> SamplesRead:
    """What a run used over its life, 200 points at most; while it goes on up to half a minute old."""
    await platform.transact(lambda session: get_run(session, caller, run_id))

    def load(store: ObjectStore) -> Recording:
        try:
            return Recording.load(read(store, samples_key(run_id)))
        except ObjectMissing:
            return Recording()  # it was too short, or nobody could look

    recording = await platform.with_store(load)
    return SamplesRead(
        interval_ms=recording.interval_ms,
        samples=[
            SampleRead(
                at=from_ms(point.at_ms),
                cpu_seconds=None if point.cpu_ms is None else point.cpu_ms / 1000,
                memory_bytes=point.memory_bytes,
                pids=point.pids,
                network_rx_bytes=point.network_rx_bytes,
                network_tx_bytes=point.network_tx_bytes,
                disk_read_bytes=point.disk_read_bytes,
                disk_write_bytes=point.disk_write_bytes,
            )
            for point in recording.points
        ],
    )
