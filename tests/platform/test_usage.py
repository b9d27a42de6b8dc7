"""A run's flight recording, also over the worker's death."""

import pytest

from tests.fixtures.platform import CrewshipDev, until

pytestmark = pytest.mark.platform

TOTALS = {
    "container_seconds", "cpu_seconds", "peak_memory_bytes", "peak_pids", "network_rx_bytes", "network_tx_bytes",
    "disk_read_bytes", "disk_write_bytes",
}  # fmt: skip


def test_totals_and_series(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "tick", "count": 20, "seconds": 0.1})
    assert set(run["usage"]) == TOTALS
    assert run["usage"]["cpu_seconds"] > 0
    assert run["usage"]["peak_pids"] >= 2  # the supervisor and the crew
    recorded = platform.get(f"/runs/{run['id']}/samples")
    assert recorded["interval_ms"] == 500
    assert len(recorded["samples"]) >= 3
    seconds = [sample["cpu_seconds"] for sample in recorded["samples"]]
    assert seconds == sorted(seconds)


def test_a_worker_that_adopts_goes_on_recording(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "tick", "count": 100_000, "seconds": 0.1})

    def recorded() -> list[str]:
        return [sample["at"] for sample in platform.get(f"/runs/{run_id}/samples")["samples"]]

    before = until(recorded)
    assert platform.get(f"/runs/{run_id}")["usage"]["cpu_seconds"] > 0
    platform.kill("worker")
    until(lambda: len(recorded()) > len(before), 90)
    platform.http.post(f"/runs/{run_id}/cancel", json={"force": True})
    assert set(platform.ended(run_id)["usage"]) == TOTALS
    after = recorded()
    assert after[: len(before)] == before
    assert after == sorted(after)
