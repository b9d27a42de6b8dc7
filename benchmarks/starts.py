"""From ``POST /v1/runs`` to the first line on the SSE stream, against ``docker run --rm`` of the same image."""

import subprocess
import time
from pathlib import Path

from benchmarks.platform import Platform, platform, project
from benchmarks.report import Row, ms, paired_ratio

SAMPLES = 30
UNGUARDED = "crewbench0"
CODE = "def kickoff(inputs):\n    print('line')\n    return None\n"


def measure(folder: Path) -> list[Row]:
    cold = {"CREWSHIP_SPARE_CONTAINERS": "0"}
    # A bridge of its own: rules are a bridge's, whoever is on it.
    unguarded = cold | {"CREWSHIP_NETWORK_GUARD": "off", "CREWSHIP_NETWORK": UNGUARDED}
    with platform(cold) as guarded, platform(unguarded) as open_wide, platform() as ahead:
        platforms = {"cold": guarded, "unguarded": open_wide, "ahead": ahead}
        for name, where in platforms.items():
            image = where.deploy(project(folder / name, CODE))["image"]
            _crewship(where, name)
        _docker(image)
        samples: dict[str, list[float]] = {"cold": [], "unguarded": [], "ahead": [], "docker": []}
        for _ in range(SAMPLES):
            for name, where in platforms.items():
                samples[name].append(_crewship(where, name))
            samples["docker"].append(_docker(image))
    subprocess.run(["docker", "network", "rm", UNGUARDED], check=True, stdout=subprocess.DEVNULL)
    docker, bare = samples["docker"], samples["unguarded"]
    return [
        Row(
            f"start to first line, {name}, against `docker run --rm`",
            paired_ratio(samples[key], docker),
            "×",
            limit,
            f"p50 {ms(samples[key]):.0f}, p90 {ms(samples[key], 0.9):.0f} ms against {ms(docker):.0f}, {ms(docker, 0.9):.0f}",
        )
        for name, key, limit in (("cold", "cold", 1.15), ("container created ahead", "ahead", 0.9))
    ] + [
        Row(
            "the same, cold, with the network guard against without",
            paired_ratio(samples["cold"], bare),
            "×",
            1.05,
            f"p50 {ms(samples['cold']):.0f} ms against {ms(bare):.0f}",
        )
    ]


def _crewship(where: Platform, name: str) -> float:
    began = time.perf_counter()
    run_id = where.run(name)
    with where.events(run_id) as stream:
        for line in stream.iter_lines():
            if line == "event: log":
                took = time.perf_counter() - began
                break
    where.wait(run_id)
    return took


def _docker(image: str) -> float:
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "crewship0",
        "--entrypoint",
        "python3",
        image,
        "-c",
        "print('line')",
    ]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    took = time.perf_counter() - began
    process.wait()
    return took
