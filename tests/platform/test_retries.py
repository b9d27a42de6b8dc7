"""``[run] retries``: a crew that fails is tried again in a new container, in one run with one log."""

import json
from typing import Any

import pytest

from crewship.events import verify
from tests.fixtures.platform import CrewshipDev
from tests.platform.conftest import Deploy
from tests.platform.test_endings import ending

pytestmark = pytest.mark.platform


@pytest.fixture
def stubborn(deployed: Deploy) -> str:
    """A project that asks for two retries."""
    return deployed("stubborn")


def artifacts(platform: CrewshipDev, run_id: str) -> dict[str, str]:
    names = [item["name"] for item in platform.get(f"/runs/{run_id}/artifacts")["artifacts"]]
    return {name: platform.http.get(f"/runs/{run_id}/artifacts/{name}").text for name in names}


def until_event(platform: CrewshipDev, run_id: str, type_: str, **data: Any) -> None:
    accept = {"Accept": "application/x-ndjson"}
    with platform.http.stream("GET", f"/runs/{run_id}/events", headers=accept) as response:
        for line in response.iter_lines():
            event = json.loads(line)
            if event["type"] == type_ and event["data"].items() >= data.items():
                return
    raise AssertionError(f"{run_id} ended without {type_}")


@pytest.mark.parametrize(
    ("failure", "code"), [("raise", "user_error"), ("exit", "exit_nonzero"), ("vanish", "no_result")]
)
def test_the_attempt_that_succeeds_is_the_runs(platform: CrewshipDev, stubborn: str, failure: str, code: str) -> None:
    run = platform.run(stubborn, {"do": "stumble", "how": failure, "good": 3})
    assert (run["status"], run["error"], run["output"]) == ("succeeded", None, 3), run
    ending(platform, run)
    lines = platform.read(f"/runs/{run['id']}/events").splitlines()
    assert verify(lines)[0] == run["events"]["last_seq"]
    events = [json.loads(line) for line in lines]
    told = [(event["type"], event["data"]) for event in events if event["type"] in ("run.started", "run.retrying")]
    assert [type_ for type_, _ in told] == ["run.started", "run.retrying", "run.retrying"]
    assert [(data["attempt"], data["of"], data["delay_ms"]) for _, data in told[1:]] == [(2, 3, 1000), (3, 3, 2000)]
    assert {data["error"]["code"] for _, data in told[1:]} == {code}
    said = [event["data"]["message"] for event in events if event["type"] == "log"]
    assert [line for line in said if line.startswith("attempt")] == ["attempt 1", "attempt 2", "attempt 3"]
    assert artifacts(platform, run["id"]) == {"attempt.txt": "3"}
    assert run["duration_ms"] > 3000  # the two delays are in it
    assert run["usage"]["container_seconds"] < run["duration_ms"] / 1000
    assert run["started_at"] < run["completed_at"]


def test_after_the_last_one_the_run_has_its_error(platform: CrewshipDev, stubborn: str) -> None:
    run = platform.run(stubborn, {"do": "stumble", "how": "raise", "good": 9})
    assert (run["status"], run["error"]["code"]) == ("failed", "user_error")
    assert run["error"]["message"] == "RuntimeError: attempt 3 stumbled"
    assert "attempt 3 stumbled" in run["error"]["traceback"]
    ending(platform, run)
    assert artifacts(platform, run["id"]) == {"attempt.txt": "3"}


def test_nothing_of_an_earlier_attempt_is_told_of_one_without_a_result(platform: CrewshipDev, stubborn: str) -> None:
    run = platform.run(stubborn, {"do": "stumble", "how": "raise then vanish", "good": 9})
    assert (run["error"]["code"], run["error"]["traceback"]) == ("no_result", None), run


def test_without_retries_there_is_one_attempt(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "stumble", "how": "raise", "good": 2})
    assert run["status"] == "failed"
    assert [event["type"] for event in platform.events(run["id"])].count("run.retrying") == 0


def test_cancel_between_two_attempts(platform: CrewshipDev, stubborn: str) -> None:
    run_id = platform.start_run(stubborn, {"do": "stumble", "how": "raise", "good": 9})
    until_event(platform, run_id, "run.retrying", attempt=3)  # two seconds before it
    assert platform.http.post(f"/runs/{run_id}/cancel").status_code == 202
    run = platform.ended(run_id)
    assert (run["status"], run["error"]) == ("canceled", None), run
    assert run["cancel"]["sigterm_at"] is run["cancel"]["sigkill_at"] is None
    assert run["cancel"]["gone_at"]
    ending(platform, run)
    assert artifacts(platform, run_id) == {"attempt.txt": "2"}


def test_cancel_of_a_later_attempt(platform: CrewshipDev, stubborn: str) -> None:
    run_id = platform.start_run(stubborn, {"do": "stumble", "how": "raise", "good": 2, "then": "wait"})
    platform.logged(run_id, "waiting")
    assert platform.http.post(f"/runs/{run_id}/cancel").status_code == 202
    run = platform.ended(run_id)
    assert run["status"] == "canceled"
    assert run["cancel"]["sigterm_at"]
    ending(platform, run)
    assert artifacts(platform, run_id) == {"attempt.txt": "2"}


def test_each_attempt_has_the_whole_time(platform: CrewshipDev, stubborn: str) -> None:
    """And a worker that is killed in the second one does not take the first one's time for its own."""
    given = {"do": "stumble", "how": "raise", "good": 2, "first": 3, "then": "wait"}
    run_id = platform.start_run(stubborn, given, timeout_seconds=8)
    platform.logged(run_id, "waiting")
    platform.kill("worker")
    run = platform.ended(run_id)
    assert run["error"]["code"] == "timeout", run
    assert run["duration_ms"] > 3000 + 1000 + 8000
