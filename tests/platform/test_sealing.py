"""A key is replaced while runs are under way, by the command that a person types: no value is lost, nor a line of any log."""

import json
from typing import Any

import pytest

from tests.fixtures.platform import CrewshipDev, until
from tests.platform.test_env import digest, environment

pytestmark = pytest.mark.platform

WARM = """
import os, hashlib
print("imported")
def kickoff(inputs):
    return hashlib.sha256(os.environ["KEPT"].encode()).hexdigest()
"""
CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n[run]\nwarm = 1\n'


def sealing(platform: CrewshipDev, *arguments: str, code: int = 0) -> Any:
    done = platform.crewship("sealing", *arguments, "--data", str(platform.data), "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def test_a_key_is_replaced_while_the_platform_runs(platform: CrewshipDev, probe: str) -> None:
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"KEPT": "sealed-before"}})
    platform.http.patch("/projects/rewarmed/env", json={"set": {"KEPT": "sealed-before"}})
    warmed = platform.deploy("rewarmed", {"crewship.toml": CONFIG, "crew.py": WARM})
    name = f"spare-{warmed['id'].replace('_', '-')}"
    platform.run("rewarmed")
    until(lambda: platform.containers(name))
    ticking = platform.start_run(probe, {"do": "tick", "count": 2000, "seconds": 0.02})
    platform.logged(ticking, "tick 1")

    rotated = sealing(platform, "rotate")
    assert rotated["new"]
    assert rotated["resealed"] >= 2
    assert rotated["damaged"] == []

    # Who runs sees the new key: values of both are given to the next runs, also where a container was warm before.
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"LATER": "sealed-after"}})
    assert environment(platform, probe, "KEPT", "LATER") == {
        "KEPT": digest("sealed-before"), "LATER": digest("sealed-after")
    }  # fmt: skip
    for _ in range(2):
        assert platform.run("rewarmed")["output"] == digest("sealed-before")
    keys = sealing(platform, "status")["keys"]
    assert keys[0]["id"] == rotated["key"]
    assert all(key["values"] == 0 for key in keys[1:])

    # A run that began under the former key is taken up again by a worker that was started under the new one.
    assert "when a former key was in use" in sealing(platform, "retire", code=5)
    platform.kill("worker")
    platform.logged(ticking, "tick 300")
    platform.http.post(f"/runs/{ticking}/cancel", json={"force": True})
    assert platform.ended(ticking)["status"] == "canceled"
    messages = [event["data"]["message"] for event in platform.events(ticking, types="log")]
    ticks = [message for message in messages if message.startswith("tick ")]
    assert ticks == [f"tick {number}" for number in range(len(ticks))]

    retired = sealing(platform, "retire")
    assert retired["key"] == rotated["key"]
    assert len(sealing(platform, "status")["keys"]) == 1
    assert environment(platform, probe, "KEPT") == {"KEPT": digest("sealed-before")}
    assert platform.run("rewarmed")["output"] == digest("sealed-before")
