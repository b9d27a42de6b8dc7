"""Containers that are made ahead: a run takes one, gets nothing that is stale, and what nobody needs is gone."""

import pytest

from tests.fixtures.platform import CrewshipDev, until

pytestmark = pytest.mark.platform

CREW = """
import os, time
IMPORTED_AT = time.time()
print("imported with", os.environ.get("COLOR"))
def kickoff(inputs):
    print("called")
    return {"imported_at": IMPORTED_AT, "color": os.environ.get("COLOR")}
"""
CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'


def spares(platform: CrewshipDev, deployment_id: str) -> list[str]:
    """Ids of the deployment's spares that wait for a run."""
    name = f"spare-{deployment_id.replace('_', '-')}"
    return [container.id for container in platform.containers(name) if container.status == "running"]


def test_a_run_takes_the_container_that_waits_for_it(platform: CrewshipDev) -> None:
    deployment = platform.deploy("ahead", {"crewship.toml": CONFIG, "crew.py": CREW})
    waiting = until(lambda: spares(platform, deployment["id"]))
    run = platform.run("ahead")
    assert run["output"]["imported_at"] > 0
    assert until(lambda: spares(platform, deployment["id"])) != waiting


def test_in_a_warm_one_the_crew_is_imported_with_the_env_vars_of_the_run(platform: CrewshipDev) -> None:
    assert platform.http.patch("/projects/warm/env", json={"set": {"COLOR": "green"}}).status_code == 200
    first = platform.deploy("warm", {"crewship.toml": CONFIG + "[run]\nwarm = 1\n", "crew.py": CREW})

    def imported_before() -> bool:
        """Whether a run's container had the crew before it was asked for; its events are the same in either case."""
        run = platform.run("warm")
        events = platform.events(run["id"], types="run.started,log")
        assert [event["data"].get("message") for event in events] == ["imported with green", None, "called"]
        assert run["created_at"] <= str(events[1]["at"])
        return str(events[0]["at"]) < str(run["created_at"])

    until(imported_before)  # the first runs may be faster than what is made for them

    # What waits has the old value: a run at the new version does not get it.
    until(lambda: spares(platform, first["id"]))
    assert platform.http.patch("/projects/warm/env", json={"set": {"COLOR": "blue"}}).status_code == 200
    assert platform.run("warm")["output"]["color"] == "blue"

    second = platform.deploy("warm", {"crewship.toml": CONFIG + "[run]\nwarm = 1\n", "crew.py": CREW + "# 2\n"})
    until(lambda: spares(platform, second["id"]))
    until(lambda: not spares(platform, first["id"]))


def test_a_crew_that_cannot_be_imported_has_no_warm_one(platform: CrewshipDev) -> None:
    """Its run is told of its own import, with what is true at that moment."""
    crew = "import os\nassert os.path.exists('/app/nothing')\ndef kickoff(inputs): pass\n"
    config = CONFIG + "[run]\nwarm = 1\n[build]\nsmoke = false\n"
    deployment = platform.deploy("cold", {"crewship.toml": config, "crew.py": crew})
    assert deployment["status"] == "ready"
    run = platform.run("cold")
    assert run["error"]["code"] == "import_error"
    until(lambda: not spares(platform, deployment["id"]))  # one that was tried meanwhile goes when its import fails
