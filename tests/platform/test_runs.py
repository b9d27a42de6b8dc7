"""Starting runs, finding them again, waiting for them."""

import json
import threading
import time
from typing import Any

import httpx
import pytest

from tests.fixtures.platform import CREWS, CrewshipDev

pytestmark = pytest.mark.platform


def test_a_run_is_accepted_at_once(platform: CrewshipDev, probe: str) -> None:
    answer = platform.http.post("/runs", json={"project": probe, "input": {"a": 1}, "labels": {"team": "search"}})
    run = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/runs/{run['id']}"
    assert run["id"].startswith("run_")
    assert (run["status"], run["input"], run["labels"]) == ("pending", {"a": 1}, {"team": "search"})
    assert run["deployment_id"] == platform.get(f"/projects/{probe}")["current_deployment_id"]
    ended = platform.ended(run["id"])
    assert ended["created_at"] <= ended["started_at"] <= ended["completed_at"]
    assert set(ended) >= {
        "id", "project", "deployment_id", "status", "input", "output", "error", "labels", "created_at", "started_at",
        "completed_at", "duration_ms", "waiting_for", "cancel", "usage", "isolation", "events", "artifact_count",
    }  # fmt: skip


def test_wait_holds_until_the_end_and_not_longer_than_asked(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "wait"})
    began = time.monotonic()
    held = platform.get(f"/runs/{run_id}", wait=1)
    assert held["status"] in ("pending", "running")
    assert time.monotonic() - began >= 1
    found: list[dict[str, Any]] = []

    def wait() -> None:
        with httpx.Client(headers=platform.http.headers, timeout=60, trust_env=False) as client:
            found.append(client.get(f"{platform.url}/v1/runs/{run_id}", params={"wait": 50}).json())

    waiter = threading.Thread(target=wait)
    waiter.start()
    platform.http.post(f"/runs/{run_id}/cancel", json={"force": True})
    waiter.join(45)
    assert found[0]["status"] == "canceled"
    assert platform.http.get(f"/runs/{run_id}", params={"wait": 61}).status_code == 422


def test_the_same_key_makes_one_run(platform: CrewshipDev, probe: str) -> None:
    def post(key: str, body: dict[str, Any]) -> httpx.Response:
        return platform.http.post("/runs", json=body, headers={"Idempotency-Key": key})

    body = {"project": probe, "input": {"n": 1}}
    first = post("once", body)
    second = post("once", body)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    other = post("once", {**body, "input": {"n": 2}})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert other.json()["hint"]

    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(post("at once", body))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    platform.ended(first.json()["id"])
    platform.ended(answers[0].json()["id"])


def test_runs_are_found_by_what_they_are(platform: CrewshipDev, probe: str) -> None:
    marks = [{"suite": "find", "n": str(number)} for number in range(5)]
    runs = [platform.start_run(probe, {"do": "crash"} if mark["n"] == "3" else {}, labels=mark) for mark in marks]
    ended = [platform.ended(run_id) for run_id in runs]

    def ids(**query: Any) -> list[str]:
        return [run["id"] for run in platform.get("/runs", **query)["runs"]]

    assert ids(label="suite:find") == runs[::-1]
    assert ids(label=["suite:find", "n:2"]) == [runs[2]]
    assert ids(label="suite:find", status="failed") == [runs[3]]
    assert platform.http.get("/runs", params={"project": "no-such-project"}).json()["code"] == "project_not_found"
    assert ids(label="suite:find", deployment_id=ended[0]["deployment_id"]) == runs[::-1]
    assert ids(label="suite:find", since=ended[3]["created_at"]) == [runs[4], runs[3]]
    pages, cursor = [], None
    while True:
        query: dict[str, Any] = {"label": "suite:find", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = platform.get("/runs", **query)
        pages.append([run["id"] for run in page["runs"]])
        if (cursor := page["next_cursor"]) is None:
            break
    assert pages == [[runs[4], runs[3]], [runs[2], runs[1]], [runs[0]]]
    for wrong in ({"cursor": "x"}, {"since": "yesterday"}, {"label": "nocolon"}, {"status": "done"}, {"limit": "0"}):
        answer = platform.http.get("/runs", params=wrong)
        assert answer.status_code in (400, 422), wrong
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_run_of_a_deployment_that_is_not_current(platform: CrewshipDev) -> None:
    ready = platform.deploy("not-current", CREWS / "probe", name="probe", activate="false")
    assert (ready["status"], ready["current"]) == ("ready", False)
    assert platform.get("/projects/not-current")["current_deployment_id"] is None
    refused = platform.http.post("/runs", json={"project": "not-current"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_current_deployment")
    assert "crewship deploy" in refused.json()["hint"]
    by_cli = platform.crewship("invoke", "-p", "not-current")
    assert by_cli.returncode == 5
    assert "hint:" in by_cli.stderr
    done = platform.crewship("invoke", ready["id"], "-i", '{"a": 1}', "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == {"a": 1}


def test_the_command_line_lists_and_shows(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"a": 1}, labels={"suite": "shown"})
    listed = platform.crewship("runs", "list", "-p", probe, "--json")
    assert listed.returncode == 0, listed.stderr
    assert run["id"] in [item["id"] for item in json.loads(listed.stdout)["runs"]]
    shown = platform.crewship("runs", "show", run["id"], "--json")
    assert json.loads(shown.stdout) == run
    assert run["id"] in platform.crewship("runs", "show", run["id"]).stdout
