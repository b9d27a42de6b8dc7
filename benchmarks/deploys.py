"""Deploys of changed source, of what is new and of nothing new; rollback; the command line's start; the idle platform's CPU."""

import json
import os
import subprocess
import time
from pathlib import Path

from benchmarks import builds
from benchmarks.platform import COMPILED, CREWSHIP, Platform, platform, seconds_of
from benchmarks.report import Row, ms

UNCHANGED = 20
ROLLBACKS = 60
HELPS = 20
IDLE_SECONDS = 60


def measure(folder: Path) -> list[Row]:
    with platform() as where:
        rows = builds.changes(where, folder)
        rows += builds.first(where, folder)
        crew = folder / "report-crew"
        first = where.current(crew.name)["id"]
        unchanged = [_redeploy_unchanged(where, crew) for _ in range(UNCHANGED)]
        builds.change(crew, "rolled back")
        second = where.deploy(crew)["id"]
        rollbacks = []
        for n in range(ROLLBACKS):
            target = (first, second)[n % 2]
            rollbacks.append(seconds_of(lambda t=target: _rollback(where, t)))
        helps = [
            seconds_of(
                lambda: subprocess.run([CREWSHIP, "--help"], check=True, stdout=subprocess.DEVNULL, env=COMPILED)
            )
            for _ in range(HELPS)
        ]
        idle, parts = _idle(where)
    return [
        *rows,
        Row(
            "redeploy of report-crew without a change",
            ms(unchanged),
            "ms",
            500,
            f"p90 {ms(unchanged, 0.9):.0f} ms; the command as a whole, no new image",
        ),
        Row("rollback call", ms(rollbacks), "ms", 50, f"p90 {ms(rollbacks, 0.9):.0f} ms, {ROLLBACKS} calls, API"),
        Row("`crewship --help`", ms(helps), "ms", 250, f"p90 {ms(helps, 0.9):.0f} ms"),
        Row("API and worker idle", idle, "% of a core", 2, f"over {IDLE_SECONDS} s: {parts}"),
    ]


def _redeploy_unchanged(where: Platform, crew: Path) -> float:
    answers: list[str] = []
    seconds = seconds_of(lambda: answers.append(where.cli("deploy", "--json", str(crew))))
    if not json.loads(answers[0])["unchanged"]:
        raise RuntimeError("a deploy of nothing new was built")
    return seconds


def _rollback(where: Platform, target: str) -> None:
    where.http.post("/v1/projects/report-crew/rollback", json={"deployment_id": target}).raise_for_status()


def _idle(where: Platform) -> tuple[float, str]:
    """CPU of both processes in per cent of one core."""
    pids = {name: pid for name, pid in where.children.items() if name != "temporal"}
    before = {name: _cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(IDLE_SECONDS)
    used = {name: (_cpu_seconds(pid) - before[name]) / IDLE_SECONDS * 100 for name, pid in pids.items()}
    return sum(used.values()), ", ".join(f"{name} {value:.2f} %" for name, value in used.items())


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
