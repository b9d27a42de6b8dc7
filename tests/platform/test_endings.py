"""How runs end: each ending has its status, its code and its trace, and leaves nothing in the engine."""

import time
from typing import Any

import pytest

from tests.fixtures.platform import CrewshipDev, until
from tests.platform.conftest import Deploy

pytestmark = pytest.mark.platform

ECHO = "def kickoff(inputs):\n    return inputs\n"
TERMINAL = {"succeeded": "run.completed", "failed": "run.failed", "canceled": "run.canceled"}


def ending(platform: CrewshipDev, run: dict[str, Any]) -> dict[str, Any]:
    """The terminal event's data; checks what is true of every ended run."""
    events = platform.events(run["id"])
    last = events[-1]
    assert last["type"] == TERMINAL[run["status"]]
    assert last["seq"] == run["events"]["last_seq"] == len(events)
    assert run["completed_at"] is not None
    assert last["data"]["duration_ms"] == run["duration_ms"]
    if run["error"] is None:
        assert "error" not in last["data"]
    else:
        assert last["data"]["error"] == {key: run["error"][key] for key in ("code", "message", "hint")}
        assert run["output"] is None
    assert not platform.is_left(run["id"])
    data: dict[str, Any] = last["data"]
    return data


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"do": "leave"}, "succeeded", None),
        ({"do": "leave", "code": 0}, "succeeded", None),
        ({"do": "leave", "code": 3}, "failed", "exit_nonzero"),
        ({"do": "leave", "code": "a message"}, "failed", "exit_nonzero"),
        ({"do": "vanish", "code": 0}, "failed", "no_result"),
        ({"do": "vanish", "code": 4}, "failed", "exit_nonzero"),
        ({"do": "die", "signal": 9}, "failed", "exit_nonzero"),
        ({"do": "crash"}, "failed", "user_error"),
        ({"do": "unspeakable"}, "failed", "invalid_output"),
    ],
    ids=str,
)
def test_endings(platform: CrewshipDev, probe: str, given: dict[str, Any], status: str, code: str | None) -> None:
    run = platform.run(probe, given)
    assert (run["status"], (run["error"] or {}).get("code")) == (status, code), run
    assert run["output"] is None
    ending(platform, run)


def test_an_exception_is_told_with_the_crews_own_traceback(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "crash"})
    assert run["error"]["message"] == "KeyError: 'no such topic'"
    assert 'File "/app/crew.py"' in run["error"]["traceback"]
    assert "runtime/" not in run["error"]["traceback"]


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ü"]}, {}, {"do": "echo", "deep": {"er": [[[]]]}}])
def test_an_output_comes_back_as_it_was(platform: CrewshipDev, probe: str, value: dict[str, Any]) -> None:
    assert platform.run(probe, value)["output"] == value


def test_a_generator_yields_events(platform: CrewshipDev, deployed: Deploy) -> None:
    project = deployed("stream")
    run = platform.run(project, {"count": 3})
    assert run["output"] == [{"number": 0}, {"number": 1}, {"number": 2}]
    custom = [event["data"]["value"] for event in platform.events(run["id"], types="custom")]
    assert custom == run["output"]
    assert platform.run(project, {"count": 2, "result": "done"})["output"] == "done"


def test_a_coroutine_is_awaited(platform: CrewshipDev, deployed: Deploy) -> None:
    assert platform.run(deployed("later"), {"x": 1})["output"] == {"after": {"x": 1}}


def test_out_of_memory(platform: CrewshipDev, deployed: Deploy) -> None:
    project = deployed("tight")
    run = platform.run(project, {"do": "swallow"})
    assert (run["status"], run["error"]["code"]) == ("failed", "out_of_memory"), run
    assert "of 64 MiB of memory" in run["error"]["message"]
    assert 'memory = "128m"' in run["error"]["hint"]
    assert run["isolation"]["memory_max_bytes"] == 64 << 20
    ending(platform, run)


def test_a_child_killed_for_memory_is_a_warning_when_the_crew_goes_on(platform: CrewshipDev, deployed: Deploy) -> None:
    run = platform.run(deployed("tight"), {"do": "lose_child"})
    assert (run["status"], run["output"]) == ("succeeded", "child ended with -9"), run
    warnings = [event["data"] for event in platform.events(run["id"]) if event["data"].get("source") == "crewship"]
    assert any("memory" in data["message"] for data in warnings), warnings


def test_a_refused_process_is_a_warning_when_the_crew_goes_on(platform: CrewshipDev, deployed: Deploy) -> None:
    run = platform.run(deployed("tight"), {"do": "crowd", "raise": False})
    assert run["status"] == "succeeded", run
    assert run["output"] < 32
    warnings = [event["data"] for event in platform.events(run["id"]) if event["data"].get("source") == "crewship"]
    assert any("pids" in data["message"] for data in warnings), warnings


@pytest.mark.parametrize(
    ("given", "code", "message", "hint"),
    [
        ({"do": "crowd", "raise": True}, "pids_limit", "limit of 32", "set pids = 64"),
        ({"do": "fill"}, "disk_limit", "of 48 MiB of disk", 'set disk = "96m"'),
        ({"do": "fill", "one": True}, "disk_limit", "of 48 MiB of disk", 'set disk = "96m"'),
        ({"do": "chatter"}, "log_limit", "the 1 MiB", 'set log = "2m"'),
    ],
    ids=["pids", "disk", "one large file", "log"],
)
def test_a_limit(
    platform: CrewshipDev, deployed: Deploy, given: dict[str, Any], code: str, message: str, hint: str
) -> None:
    run = platform.run(deployed("tight"), given)
    assert (run["status"], run["error"]["code"]) == ("failed", code), run
    assert message in run["error"]["message"]
    assert hint in run["error"]["hint"]
    ending(platform, run)


def test_an_image_that_is_gone_is_not_waited_for(platform: CrewshipDev) -> None:
    files = {"crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n', "crew.py": ECHO}
    deployment = platform.deploy("imageless", files)
    name = f"spare-{deployment['id'].replace('_', '-')}"
    for spare in until(lambda: platform.containers(name)):
        spare.remove(force=True, v=True)
    for image in platform.images(deployment["id"]):
        image.remove(force=True)
    run = platform.run("imageless")
    assert (run["status"], run["error"]["code"], run["started_at"]) == ("failed", "image_missing", None), run
    assert "crewship deploy" in run["error"]["hint"]
    ending(platform, run)


def test_timeout(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe, {"do": "wait"}, timeout_seconds=1)
    assert (run["status"], run["error"]["code"]) == ("failed", "timeout"), run
    assert run["timeout_seconds"] == 1
    assert "timeout_seconds" in run["error"]["hint"]
    assert run["cancel"] is None
    ending(platform, run)


def test_a_crew_that_catches_sigterm_leaves_an_artifact(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "catch"})
    platform.logged(run_id, "waiting")
    answer = platform.http.post(f"/runs/{run_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancel"]["requested_at"]
    run = platform.ended(run_id)
    assert (run["status"], run["error"]) == ("canceled", None), run
    times = run["cancel"]
    assert times["sigkill_at"] is None
    assert times["requested_at"] <= times["sigterm_at"] <= times["gone_at"]
    data = ending(platform, run)
    assert {key: data[key] for key in ("sigterm_at", "sigkill_at", "gone_at")} == {
        key: times[key] for key in ("sigterm_at", "sigkill_at", "gone_at")
    }
    assert platform.http.get(f"/runs/{run_id}/artifacts/partial.md").text == "what there was"
    assert any(event["data"].get("message") == "tidied up" for event in platform.events(run_id))

    again = platform.http.post(f"/runs/{run_id}/cancel")
    assert (again.status_code, again.json()) == (200, run)


def test_a_crew_that_ignores_sigterm_is_killed(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "ignore"})
    platform.logged(run_id, "waiting")
    platform.http.post(f"/runs/{run_id}/cancel")
    run = platform.ended(run_id)
    assert run["status"] == "canceled"
    times = run["cancel"]
    assert times["sigterm_at"] < times["sigkill_at"] <= times["gone_at"]
    ending(platform, run)
    assert platform.http.get(f"/runs/{run_id}/artifacts/left.txt").text == "left"


def test_force_does_not_wait_for_the_grace(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "ignore"})
    platform.logged(run_id, "waiting")
    platform.http.post(f"/runs/{run_id}/cancel")  # the grace begins
    until(lambda: platform.get(f"/runs/{run_id}")["cancel"])
    began = time.monotonic()
    assert platform.http.post(f"/runs/{run_id}/cancel", json={"force": True}).status_code == 202
    run = platform.ended(run_id)
    assert run["status"] == "canceled"
    assert run["cancel"]["sigkill_at"] is not None
    assert time.monotonic() - began < 5
    ending(platform, run)


def test_cancel_of_what_has_ended_changes_nothing(platform: CrewshipDev, probe: str) -> None:
    run = platform.run(probe)
    answer = platform.http.post(f"/runs/{run['id']}/cancel", json={"force": True})
    assert (answer.status_code, answer.json()) == (200, run)


def test_cancel_while_pending(platform: CrewshipDev, probe: str) -> None:
    busy = [platform.start_run(probe, {"do": "wait"}) for _ in range(4)]
    for run_id in busy:
        platform.logged(run_id, "waiting")
    waiting = [platform.start_run(probe, {"do": "wait"}) for _ in range(2)]
    second = until(lambda: platform.get(f"/runs/{waiting[1]}")["waiting_for"])
    assert second["reason"] == "capacity"
    assert second["position"] == 2
    run_id = waiting[0]
    assert platform.http.post(f"/runs/{run_id}/cancel").status_code == 202
    run = platform.ended(run_id)
    assert (run["status"], run["started_at"]) == ("canceled", None)
    assert run["cancel"]["sigterm_at"] is run["cancel"]["sigkill_at"] is None
    assert run["cancel"]["gone_at"]
    assert [event["type"] for event in platform.events(run_id)] == ["run.canceled"]
    for other in (*busy, waiting[1]):
        platform.http.post(f"/runs/{other}/cancel", json={"force": True})
    for other in (*busy, waiting[1]):
        assert platform.ended(other)["status"] == "canceled"


def test_the_command_lines_exit_codes(platform: CrewshipDev, probe: str) -> None:
    done = platform.crewship("invoke", "-p", probe, "-i", '{"x": 1}')
    assert (done.returncode, done.stdout) == (0, '{\n  "x": 1\n}\n'), done
    failed = platform.crewship("invoke", "-p", probe, "-i", '{"do": "crash"}')
    assert failed.returncode == 7
    assert failed.stdout == ""
    assert "no such topic" in failed.stderr
    started = platform.crewship("invoke", "-p", probe, "-i", '{"do": "wait"}', "--detach")
    run_id = started.stdout.strip()
    assert started.returncode == 0
    platform.logged(run_id, "waiting")
    canceled = platform.crewship("runs", "cancel", run_id)
    assert canceled.returncode == 0
    assert platform.get(f"/runs/{run_id}")["status"] == "canceled"


def test_what_isolates_a_run(platform: CrewshipDev, probe: str) -> None:
    run_id = platform.start_run(probe, {"do": "tick", "count": 60, "seconds": 0.05})
    platform.logged(run_id, "tick 0")
    container = platform.containers(run_id.replace("_", "-"))[0]
    volume = container.attrs["Mounts"][0]["Name"]
    assert platform.has_volume(volume)
    run = platform.ended(run_id)
    assert run["status"] == "succeeded"
    assert not platform.is_left(run_id)
    assert not platform.has_volume(volume)
    isolation = run["isolation"]
    assert isolation["uid"] == isolation["gid"] != 0
    assert int(isolation["cap_eff"], 16) == int(isolation["cap_bnd"], 16) == 0
    assert isolation["no_new_privs"] is True
    assert isolation["seccomp"] == 2
    assert isolation["root_read_only"] is True
    assert isolation["pids_max"] == 256
    assert isolation["memory_max_bytes"] == 1 << 30
    assert isolation["source"]
    assert run["usage"]["cpu_seconds"] > 0
    assert run["usage"]["peak_memory_bytes"] > 1 << 20

    seen = platform.run(probe, {"do": "facts"})["output"]
    assert seen["uid"] == isolation["uid"]
    assert int(seen["cap_eff"], 16) == 0
    assert (seen["no_new_privs"], seen["seccomp"]) == ("1", "2")
    assert (seen["app"], seen["tmp"]) == ("written", "written")
    assert seen["root"] != "written"
    assert seen["source"] != "written"
    assert seen["supervisor"] != "written"
    assert seen["mount"] == -1
    assert (seen["cwd"], seen["stdin"]) == ("/app", "")


def test_runs_share_nothing(platform: CrewshipDev, probe: str) -> None:
    platform.run(probe, {"do": "write", "files": {"of the first": "x"}})
    second = platform.run(probe, {"do": "write", "files": {"of the second": "x"}})
    names = [item["name"] for item in platform.get(f"/runs/{second['id']}/artifacts")["artifacts"]]
    assert names == ["of the second"]
