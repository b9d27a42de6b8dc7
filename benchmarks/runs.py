"""Many short runs at once against a bare loop over the docker SDK, and from a cancel's call to its container gone."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from benchmarks.platform import Platform, platform, project, seconds_of
from benchmarks.report import Row, ms
from crewship.contracts import container_name

RUNS = 200
PAIRS = 3
PARALLEL = 4
CANCELS = 100
GRACE_SECONDS = 1
"""Short, so that a hundred cancels take a minute; what is measured is the time beyond it."""

SHORT = "def kickoff(inputs):\n    print('line')\n    return None\n"
STUBBORN = """\
import signal, time

def kickoff(inputs):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('waiting', flush=True)
    time.sleep(600)
"""


def measure(folder: Path) -> list[Row]:
    settings = {"CREWSHIP_RUN_CAPACITY": str(PARALLEL), "CREWSHIP_GRACE_SECONDS": str(GRACE_SECONDS)}
    with platform(settings) as where:
        image = where.deploy(project(folder / "short", SHORT))["image"]
        where.deploy(project(folder / "stubborn", STUBBORN))
        where.wait(where.run("short"))
        pairs = [_pair(where, image) for _ in range(PAIRS)]
        graceful = _cancels(where, force=False)
        forced = _cancels(where, force=True)
    ratios = sorted(bare / ours for ours, bare in pairs)
    ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    return [
        Row(
            f"{RUNS} short runs submitted at once, {PARALLEL} at a time, against create, start, wait, remove",
            statistics.median(ratios),
            "×",
            0.8,
            f"{RUNS / ours:.1f} runs/s against {RUNS / bare:.1f}; {PAIRS} pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}",
            at_least=True,
        ),
        _cancel_row("cancel to container gone, beyond the grace, p99", graceful, GRACE_SECONDS),
        _cancel_row("cancel with force to container gone, p99", forced, 0),
    ]


def _pair(where: Platform, image: str) -> tuple[float, float]:
    """Ours, and the baseline as half of it before and half after: the machine's speed drifts."""
    bare = seconds_of(lambda: _bare(image, RUNS // 2))
    ours = seconds_of(lambda: _runs(where, RUNS))
    return ours, bare + seconds_of(lambda: _bare(image, RUNS // 2))


def _cancel_row(name: str, samples: list[float], grace_seconds: float) -> Row:
    beyond = [sample - grace_seconds for sample in samples]
    return Row(
        name,
        ms(beyond, 0.99) / 1000,
        "s",
        1,
        f"p50 {ms(beyond):.0f}, p90 {ms(beyond, 0.9):.0f} ms; {len(samples)} runs, {PARALLEL} canceled at once",
    )


def _bare(image: str, count: int) -> None:
    def one(_: int) -> None:
        container = client.containers.create(image, ["-c", "print('line')"], entrypoint="python3", network="crewship0")
        container.start()
        container.wait()
        container.remove()

    client = docker.from_env(max_pool_size=PARALLEL)
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, range(count)))
    client.close()


def _runs(where: Platform, count: int) -> None:
    """From the first call to the last run's end."""
    with ThreadPoolExecutor(16) as pool:
        run_ids = list(pool.map(lambda _: where.run("short"), range(count)))
    for run_id in run_ids:
        assert where.wait(run_id)["status"] == "succeeded"


def _cancels(where: Platform, *, force: bool) -> list[float]:
    """Seconds from each call until the engine had nothing of the container any more; as many at once as may run."""

    def started(_: int) -> str:
        run_id = where.run("stubborn")
        with where.events(run_id) as stream:
            for line in stream.iter_lines():
                if line == "event: log":
                    break
        return run_id

    def canceled(run_id: str) -> float:
        called = time.time()
        where.http.post(f"/v1/runs/{run_id}/cancel", json={"force": force}).raise_for_status()
        assert where.wait(run_id)["status"] == "canceled"
        return gone_at(container_name(run_id)) - called

    samples: list[float] = []
    with _removals() as gone_at, ThreadPoolExecutor(PARALLEL) as pool:
        for _ in range(CANCELS // PARALLEL):
            samples += pool.map(canceled, list(pool.map(started, range(PARALLEL))))
    return samples


@contextmanager
def _removals() -> Iterator[Callable[[str], float]]:
    """When the engine removed a container, by its own clock, which is this machine's."""
    client = docker.from_env()
    events: Any = client.events(decode=True, filters={"type": "container", "event": "destroy"})
    times: dict[str, float] = {}
    known = threading.Condition()

    def read() -> None:
        for event in events:
            with known:
                times[event["Actor"]["Attributes"]["name"]] = event["timeNano"] / 1e9
                known.notify_all()

    def gone_at(name: str) -> float:
        with known:
            assert known.wait_for(lambda: name in times, 30), name
            return times[name]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield gone_at
    finally:
        events.close()
        reader.join(5)
        client.close()
