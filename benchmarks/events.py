"""The event log: latency of one event, a million lines, reading a finished log."""

import hashlib
import json
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks.platform import Platform, platform, project
from benchmarks.report import Row, ms

EVENTS = 300
INTERVAL_SECONDS = 0.05
LINES = 1_000_000
READERS = 50
PROCESSES = 5
PAIRS = 3

EMIT = f"""
import time
from crewship_runtime import emit

def kickoff(inputs):
    for n in range(inputs.get("n", {EVENTS})):
        emit("tick", sent=time.time())
        time.sleep({INTERVAL_SECONDS})
"""
FLOOD = """
import sys

def kickoff(inputs):
    write, line = sys.stdout.write, "x" * 92
    for n in range(inputs["lines"]):
        write(f"{n:07d} {line}\\n")
"""
PRINT = "import sys\nwrite, line = sys.stdout.write, 'x' * 92\nfor n in range({lines}): write(f'{{n:07d}} {{line}}\\n')"


def measure(folder: Path) -> list[Row]:
    with platform() as where:
        where.deploy(project(folder / "emit", EMIT))
        image = where.deploy(project(folder / "flood", FLOOD))["image"]
        rows = _latency(where)
        rows += _million(where, image)
    return rows


def _latency(where: Platform) -> list[Row]:
    from benchmarks.streams import latencies

    ours = _emit(where)
    default = latencies(where.temporal, EVENTS, INTERVAL_SECONDS, cooldown_seconds=0.1)
    eager = latencies(where.temporal, EVENTS, INTERVAL_SECONDS, cooldown_seconds=0)

    def detail(theirs: list[float], q: float) -> str:
        return f"{ms(ours, q):.1f} ms against {ms(theirs, q):.1f} ms"

    return [
        Row(
            "one event, emit to SSE, p50, against workflow_streams",
            ms(ours) / ms(default),
            "×",
            0.25,
            detail(default, 0.5),
        ),
        Row("the same, p99", ms(ours, 0.99) / ms(default, 0.99), "×", 0.5, detail(default, 0.99)),
        Row("the same, p50, against its cooldown 0", ms(ours) / ms(eager), "×", None, detail(eager, 0.5)),
        Row("the same, p99, against its cooldown 0", ms(ours, 0.99) / ms(eager, 0.99), "×", None, detail(eager, 0.99)),
    ]


def _emit(where: Platform) -> list[float]:
    samples = []
    with where.events(where.run("emit")) as stream:
        custom = False
        for line in stream.iter_lines():
            if line.startswith("event: "):
                custom = line == "event: custom"
            elif custom and line.startswith("data: "):
                samples.append(time.time() - json.loads(line[6:])["value"]["sent"])
    return samples


def _million(where: Platform, image: str) -> list[Row]:
    from benchmarks.streams import cost

    alone = [_pair(where, image, 1) for _ in range(PAIRS)]
    crowd = [_pair(where, image, READERS) for _ in range(PAIRS)]
    plain = [_pair(where, image, READERS, encoding="identity") for _ in range(PAIRS)]
    run_id = where.run("flood", lines=LINES)
    run = where.wait(run_id)
    signals, history_bytes = cost(where.temporal, f"run-{run_id}")
    began = time.perf_counter()
    size = 0
    with where.events(run_id, accept="application/x-ndjson") as stream:
        for chunk in stream.iter_raw():
            size += len(chunk)
    ndjson = time.perf_counter() - began
    began = time.perf_counter()
    digest = hashlib.sha256()
    with where.events(run_id) as stream:
        if "ratelimit" not in stream.headers:
            raise RuntimeError("the platform has no rate limit (CREWSHIP_RATE_LIMIT_PER_MINUTE=0): not as it comes")
        for chunk in stream.iter_raw():
            digest.update(chunk)
    sse = time.perf_counter() - began
    seeks = []
    for n in range(20):
        began = time.perf_counter()
        with where.events(run_id, after=LINES // 2 + n) as stream:
            next(stream.iter_raw())
        seeks.append(time.perf_counter() - began)
    events = run["events"]["last_seq"]
    return [
        Row(
            "1,000,000 lines, run start to last event readable (zstd, as the CLI reads), against `docker run`",
            *_ratio(alone, 4),
        ),
        Row(f"the same with {READERS} clients reading", *_ratio(crowd, 7)),
        Row(f"the same with {READERS} clients reading it uncompressed", *_ratio(plain, None)),
        Row("signals of such a run", signals, "", 2000, f"{history_bytes / 1e6:.2f} MB of history"),
        Row("its history", history_bytes / 1e6, "MB", 4, ""),
        Row("the worker's memory at its highest, after ten such runs", where.peak_memory_mb("worker"), "MB", 300, "VmHWM"),
        Row("reading a finished log, one client, SSE", events / sse, "events/s", 100_000, f"{sse:.1f} s", at_least=True),
        Row(
            "reading a finished log, one client, NDJSON",
            events / ndjson, "events/s", 100_000, f"{ndjson:.1f} s, {size / 1e6:.0f} MB", at_least=True,
        ),
        Row("reading on from the middle of it", ms(seeks), "ms", 50, f"p90 {ms(seeks, 0.9):.0f} ms"),
    ]  # fmt: skip


def _pair(where: Platform, image: str, readers: int, encoding: str = "zstd") -> tuple[float, float]:
    """Ours, and the baseline as the mean of one before and one after it: the machine's speed drifts."""
    before = _docker_lines(image)
    ours = _flood(where, readers, encoding)
    return ours, (before + _docker_lines(image)) / 2


def _ratio(pairs: list[tuple[float, float]], limit: float | None) -> tuple[float, str, float | None, str]:
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    spread = f"{len(pairs)} pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}"
    return statistics.median(ratios), "×", limit, f"{ours:.1f} s against {theirs:.1f} s; {spread}"


def _docker_lines(image: str) -> float:
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "crewship0",
        "--log-driver",
        "none",
        "--entrypoint",
        "python3",
        image,
    ]
    command += ["-c", PRINT.format(lines=LINES)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while process.stdout.read(1 << 20):
        pass
    process.wait()
    return time.perf_counter() - began


def _flood(where: Platform, readers: int, encoding: str) -> float:
    """Seconds from the run's start until a reader that attached at once has its last event (the slowest of them).

    The readers are connections of a few curl processes, which decode what they are sent: fifty clients in one Python process
    would measure that process, and fifty processes how long those take to come up.
    """
    began = time.perf_counter()
    run_id = where.run("flood", lines=LINES)
    options = ["-sfN", "--compressed", "--parallel", "--parallel-immediate"]
    for header in (
        f"Authorization: Bearer {where.key}",
        "Accept: application/x-ndjson",
        f"Accept-Encoding: {encoding}",
    ):
        options += ["-H", header]
    url = f"{where.url}/v1/runs/{run_id}/events"
    shares = [len(range(n, readers, PROCESSES)) for n in range(min(PROCESSES, readers))]
    clients = [subprocess.Popen(["curl", *options, *["-o", "/dev/null", url] * share]) for share in shares]
    codes = [client.wait() for client in clients]
    took = time.perf_counter() - began
    if any(codes):
        raise RuntimeError(f"a reader failed: {codes}")
    return took
