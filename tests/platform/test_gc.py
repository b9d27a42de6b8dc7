"""Retention on a whole platform: what was replaced goes, what is in use stays, and who wants it back is told."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.platform import CrewshipDev, running, until

pytestmark = pytest.mark.platform


def crew(answer: int) -> dict[str, str | bytes]:
    return {
        "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
        "crew.py": "import time\n\n\ndef kickoff(inputs):\n    print('here', flush=True)\n"
        f"    time.sleep(inputs.get('seconds', 0))\n    return {answer}\n",
    }


@pytest.fixture
def frugal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    """A platform that keeps one deployment besides those that are in use."""
    with running(CrewshipDev(tmp_path_factory.mktemp("frugal"), {"CREWSHIP_KEEP_DEPLOYMENTS": "1"})) as dev:
        yield dev


def test_images_and_sources_of_what_was_replaced(frugal: CrewshipDev) -> None:
    first, used, previous, current = [frugal.deploy("crew", crew(number))["id"] for number in range(4)]
    running = frugal.start_run("crew", {"seconds": 600}, deployment_id=used)
    frugal.logged(running, "here")
    images = {dep: frugal.get(f"/deployments/{dep}")["image"] for dep in (first, used, previous, current)}

    def plan() -> dict[str, Any] | None:
        found: dict[str, Any] = frugal.http.post("/gc", params={"dry_run": "true"}).json()
        return found if found["removals"] else None

    shown = until(plan)  # nobody waited for the containers that the first image was tried in and kept ready in
    wanted = {(item["kind"], item["name"]) for item in shown["removals"]}
    source = frugal.get(f"/deployments/{first}")["source_sha256"]
    assert wanted == {("image", images[first]), ("source", f"sources/{source}.tar.gz")}
    assert all(item["bytes"] for item in shown["removals"])
    assert len(frugal.images(first)) == 1

    done = frugal.crewship("gc")
    assert done.returncode == 0, done.stderr
    assert "2 things removed" in done.stderr
    assert {image.id for image in frugal.images()} == {images[dep] for dep in (used, previous, current)}
    assert frugal.http.post("/gc").json()["removals"] == []

    refused = frugal.crewship("deploy", "--rollback", first, "-p", "crew")
    assert refused.returncode == 5
    assert "crewship deploy" in refused.stderr
    assert frugal.http.post("/runs", json={"deployment_id": first}).json()["code"] == "image_missing"
    assert frugal.http.post("/projects/crew/rollback", json={}).json()["deployment_id"] == previous
    assert frugal.run("crew")["output"] == 2

    frugal.http.post(f"/runs/{running}/cancel", json={"force": True})
    frugal.ended(running)
    until(lambda: frugal.http.post("/gc").json()["removals"] or None)
    assert frugal.http.post("/runs", json={"deployment_id": used}).json()["code"] == "image_missing"
