"""``GET /v1/runs/{id}/samples``."""

from crewship.models import Run
from crewship.objects import samples_key
from crewship.recording import Recording, Sample
from tests.api.conftest import Api, assert_problem


async def test_what_was_recorded(ready: Api) -> None:
    ready.add(Run(id="run_1", project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=0))
    response = await ready.http.get("/v1/runs/run_1/samples")
    assert (response.status_code, response.json()) == (200, {"interval_ms": 500, "samples": []})
    recording = Recording()
    recording.add(Sample(at_ms=1_769_850_300_123, cpu_ms=1500, memory_bytes=7, pids=2))
    ready.store.put(samples_key("run_1"), recording.dump())
    assert (await ready.http.get("/v1/runs/run_1/samples")).json()["samples"] == [
        {
            "at": "2026-01-31T09:05:00.123Z", "cpu_seconds": 1.5, "memory_bytes": 7, "pids": 2, "network_rx_bytes": None,
            "network_tx_bytes": None, "disk_read_bytes": None, "disk_write_bytes": None,
        }
    ]  # fmt: skip
    assert_problem(await ready.http.get("/v1/runs/run_none/samples"), 404, "run_not_found")
