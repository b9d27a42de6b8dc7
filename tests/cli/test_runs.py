import json
from pathlib import Path
from typing import Any

import pytest

from cli.runs import isolation_words
from tests.cli.platform import Log, Platform, crew_log

RUN_ID = "run_one"


@pytest.fixture
def run(platform: Platform) -> dict[str, Any]:
    log = crew_log()
    return platform.add_run(RUN_ID, log, output="the answer", artifact_count=1, events={"last_seq": 14})


def test_list(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    platform.add_run("run_two", status="failed", duration_ms=None, labels={"team": "search", "env": "ci"})
    result = crewship("runs", "list")
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["RUN", "PROJECT", "STATUS", "CREATED", "TOOK", "LABELS"]
    assert first.split()[:3] == ["run_one", "research-crew", "succeeded"]
    assert second.endswith("team=search env=ci")


def test_list_filters(crewship: Any, platform: Platform) -> None:
    platform.add_project("crew")
    result = crewship("runs", "list", "-p", "crew", "--status", "failed", "-l", "a=1", "-l", "b=2", "--limit", "7")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No such runs\n")
    query = platform.requests[-1][1].partition("?")[2]
    assert sorted(query.split("&")) == ["label=a%3A1", "label=b%3A2", "limit=7", "project=crew", "status=failed"]


def test_list_of_a_project_that_is_not_there(crewship: Any, platform: Platform) -> None:
    for as_json in ([], ["--json"]):
        result = crewship("runs", "list", "-p", "nope", *as_json)
        assert (result.exit_code, result.stdout, result.stderr) == (4, "", "error: there is no project nope\n")


def test_list_is_of_all_projects_wherever_it_is_called(
    crewship: Any, platform: Platform, run: dict[str, Any], project: Path
) -> None:
    assert RUN_ID in crewship("runs", "list").stdout
    assert platform.requests[-1][1] == "/v1/runs?limit=20"
    assert "default" not in crewship("runs", "list", "--help").stdout.partition("--limit")[0]


def test_list_refuses_a_status_that_is_none(crewship: Any, platform: Platform) -> None:
    result = crewship("runs", "list", "--status", "done")
    assert result.exit_code == 2
    assert "succeeded" in result.stderr


def test_json_is_the_apis_own(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    assert json.loads(crewship("runs", "show", RUN_ID, "--json").stdout) == run
    assert json.loads(crewship("runs", "list", "--json").stdout) == {"runs": [run], "next_cursor": None}


def test_show(crewship: Any, run: dict[str, Any]) -> None:
    run |= {
        "status": "failed", "error": {"code": "user_error", "message": "boom", "hint": "mend", "traceback": "T\n  x"},
        "waiting_for": None, "usage": {"cpu_seconds": 1.234, "peak_memory_bytes": 52_428_800},
    }  # fmt: skip
    shown = crewship("runs", "show", RUN_ID).stdout
    for text in ("failed", "boom [user_error]", "mend", "1.23 CPU-seconds, 50 MiB memory", "4.4 s"):
        assert text in shown


def test_isolation_in_words() -> None:
    facts = {
        "source": "inside", "kernel": "4.19.0-gvisor", "uid": 1000, "gid": 1000,
        "cap_eff": "0000000000000000", "cap_bnd": "0000000000000000",
        "no_new_privs": True, "seccomp": 2, "root_read_only": True, "pids_max": 256, "memory_max_bytes": 1 << 30,
    }  # fmt: skip
    assert isolation_words(facts) == (
        "kernel 4.19.0-gvisor, uid 1000, gid 1000, no capabilities, no new privileges, seccomp filter, read-only root, "
        "256 processes at most, 1 GiB memory at most"
    )
    around = {
        "runtime": "runc", "network": {"mode": "open", "guard": "on", "blocked": ["10.0.0.0/8"], "reach": ["10.0.0.5:80"]},
        "loosened": ["CREWSHIP_NETWORK_REACH=10.0.0.5:80"], "sources": {"runtime": "engine"},
    }  # fmt: skip
    assert isolation_words(around) == (
        "runtime runc, network without this host and private addresses but 10.0.0.5:80, "
        "loosened by CREWSHIP_NETWORK_REACH=10.0.0.5:80"
    )
    assert isolation_words({"network": {"mode": "open", "guard": "off"}}) == "network without a guard"
    assert isolation_words({"network": {"mode": "none"}, "loosened": []}) == "no network"
    assert isolation_words(dict.fromkeys(facts) | {"source": "inside", "uid": 1000}) == "uid 1000"


def test_an_unknown_run(crewship: Any, platform: Platform) -> None:
    for command in ("show", "events", "logs", "cancel", "verify"):
        if command != "cancel":
            assert crewship("runs", command, "run_none").exit_code == 4


def test_events_as_a_timeline_and_as_they_are(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    assert crewship("runs", "events", RUN_ID).stdout.splitlines()[-1] == "   4.4s  ✓ succeeded in 4.4 s"
    result = crewship("runs", "events", RUN_ID, "--json")
    assert result.stdout_bytes == platform.logs[RUN_ID].lines
    assert result.stderr == ""


def test_events_by_type_and_place(crewship: Any, run: dict[str, Any]) -> None:
    lines = crewship("runs", "events", RUN_ID, "--types", "artifact,log", "--after", "7", "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [9, 10, 13]


def test_events_of_a_live_run_end_with_those_so_far(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    run |= {"status": "running", "events": {"last_seq": 5}}
    platform.logs[RUN_ID].hold_after = 6
    lines = crewship("runs", "events", RUN_ID, "--json").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert crewship("runs", "events", RUN_ID, "--json", "--after", "5").stdout == ""


def test_events_of_a_live_run_whose_last_one_is_not_known(
    crewship: Any, platform: Platform, run: dict[str, Any]
) -> None:
    run["status"] = "running"
    platform.logs[RUN_ID].hold_after = 6
    assert len(crewship("runs", "events", RUN_ID, "--json").stdout.splitlines()) == 6


def test_follow_goes_on_where_the_stream_broke(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    log = platform.logs[RUN_ID]
    log.cuts = [2, 3, 9]
    assert crewship("runs", "events", RUN_ID, "--json", "--follow").stdout_bytes == log.lines
    assert log.reads == [0, 2, 3, 9]


def test_logs_are_the_exact_bytes(crewship: Any, platform: Platform) -> None:
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")
    log.write(1, "log", message="\x1b[31mred", stream="stdout", level="info")
    log.write(2, "log", message="bad \ufffd", raw="YmFkIP8=", stream="stderr", level="info")
    log.write(3, "log", message="by the platform", source="crewship", level="info")
    log.write(4, "log", message="half", partial=True, stream="stdout", level="info")
    log.write(5, "log", message=" whole", stream="stdout", level="info")
    log.write(6, "run.completed", duration_ms=6)
    platform.add_run(RUN_ID, log)
    assert crewship("runs", "logs", RUN_ID).stdout_bytes == b"\x1b[31mred\nbad \xff\nhalf whole\n"
    assert len(crewship("runs", "logs", RUN_ID, "--json").stdout.splitlines()) == 4


def test_many_are_canceled_by_what_they_are(crewship: Any, platform: Platform) -> None:
    for number in range(3):
        platform.add_run(f"run_{number}", status="canceled" if number else "succeeded")
    platform.next_cancels = [["run_0", "run_1"], ["run_2"]]
    result = crewship("runs", "cancel", "-p", "research-crew", "--status", "pending", "-l", "team=a")
    assert result.exit_code == 0
    assert result.stderr == "✓ 2 runs canceled\n  1 run ended on their own first\n"
    bodies = [body for method, path, body in platform.requests if path == "/v1/runs/cancel"]
    wanted = {"project": "research-crew", "status": "pending", "labels": {"team": "a"}, "force": False}
    assert bodies == [wanted, wanted]
    platform.next_cancels = [["run_1", "run_2"]]
    result = crewship("runs", "cancel", "run_1", "run_2", "--force", "--json")
    assert json.loads(result.stdout) == {"requested": 2, "run_ids": ["run_1", "run_2"]}
    assert platform.requests[-3][2] == {"run_ids": ["run_1", "run_2"], "force": True}
    platform.next_cancels = [[]]
    assert "No such runs" in crewship("runs", "cancel", "-p", "research-crew").stderr


def test_a_cancel_says_which_runs(crewship: Any, platform: Platform) -> None:
    for arguments in ((), ("--force",), ("run_1", "-p", "research-crew"), ("-p", "x", "--status", "failed")):
        assert crewship("runs", "cancel", *arguments).exit_code == 2, arguments
    assert platform.requests == []


def test_cancel_waits_until_the_container_is_gone(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    run["status"] = "running"
    times = {"requested_at": "2026-01-31T09:05:00.000Z", "sigterm_at": None, "sigkill_at": None}

    def on_cancel(run_id: str, force: bool) -> None:
        run.update(status="canceled", cancel=times | {"gone_at": "2026-01-31T09:05:01.200Z"})

    platform.on_cancel = on_cancel
    result = crewship("runs", "cancel", RUN_ID, "--force")
    assert result.stderr == "✓ run_one is canceled; its container was gone after 1.2 s\n"
    assert platform.cancels == [True]
    run.update(status="succeeded", cancel=None)
    platform.on_cancel = None
    assert "had ended already: succeeded" in crewship("runs", "cancel", RUN_ID).stderr


def test_artifacts(crewship: Any, platform: Platform, run: dict[str, Any]) -> None:
    assert crewship("runs", "artifacts", RUN_ID).stderr == "run_one has no artifacts\n"
    platform.artifacts[RUN_ID] = {"out/report.md": b"# R", "empty.txt": b""}
    lines = crewship("runs", "artifacts", RUN_ID).stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["NAME", "out/report.md", "empty.txt"]


def test_download(crewship: Any, platform: Platform, run: dict[str, Any], project: Path) -> None:
    platform.artifacts[RUN_ID] = {"out/ré port.md": b"# R", "main.py": b"other"}
    assert crewship("runs", "download", RUN_ID, "out/ré port.md").exit_code == 0
    assert (project / "ré port.md").read_bytes() == b"# R"
    assert crewship("runs", "download", RUN_ID, "out/ré port.md", "-o", "-").stdout_bytes == b"# R"
    assert crewship("runs", "download", RUN_ID).exit_code == 0
    assert (project / RUN_ID / "out" / "ré port.md").read_bytes() == b"# R"
    unknown = crewship("runs", "download", RUN_ID, "nothing.md")
    assert unknown.exit_code == 4
    assert "it has: out/ré port.md, main.py" in unknown.stderr


def test_a_download_replaces_nothing_of_the_users(crewship: Any, platform: Platform, run: Any, project: Path) -> None:
    platform.artifacts[RUN_ID] = {"main.py": b"other"}
    before = (project / "main.py").read_bytes()
    result = crewship("runs", "download", RUN_ID, "main.py")
    assert result.exit_code == 2
    assert "main.py is there already" in result.stderr
    assert (project / "main.py").read_bytes() == before
    assert crewship("runs", "download", RUN_ID, "main.py", "--force").exit_code == 0
    assert crewship("runs", "download", RUN_ID, "main.py").exit_code == 0  # the same content is no conflict


def test_all_artifacts_do_not_go_into_a_file(crewship: Any, platform: Platform, run: Any, project: Path) -> None:
    platform.artifacts[RUN_ID] = {"data.json": b"{}"}
    result = crewship("runs", "download", RUN_ID, "-o", "main.py")
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error == "error: main.py is a file, and artifacts are saved in a folder"
    assert "runs download RUN FILE -o PATH" in hint
    below = crewship("runs", "download", RUN_ID, "-o", "main.py/x")
    assert below.exit_code == 1
    assert "hint: save it elsewhere: -o PATH" in below.stderr


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_no_name_leaves_the_folder(crewship: Any, platform: Platform, run: Any, project: Path, name: str) -> None:
    platform.artifacts[RUN_ID] = {name: b"x"}
    result = crewship("runs", "download", RUN_ID, "-o", "out")
    assert result.exit_code == 1
    assert "outside out" in result.stderr
    assert not (project.parent / "evil").exists()


def test_verify(crewship: Any, platform: Platform, run: dict[str, Any], project: Path) -> None:
    result = crewship("runs", "verify", RUN_ID)
    assert result.exit_code == 0
    assert "14 events, no gap, every hash right" in result.stderr
    saved = project / "events.ndjson"
    saved.write_bytes(platform.logs[RUN_ID].lines)
    found = json.loads(crewship("runs", "verify", "events.ndjson", "--json", "--url", "http://127.0.0.1:9").stdout)
    assert found["ok"] is True
    assert found["complete"] is True
    assert found["events"] == 14


@pytest.mark.parametrize("name", ["/nope.ndjson", "events.ndjson", "nope"])
def test_verify_of_a_file_that_is_not_there(crewship: Any, name: str, project: Path) -> None:
    result = crewship("runs", "verify", name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {name} does not exist\nhint: ")


def test_verify_says_where_the_chain_breaks(crewship: Any, project: Path) -> None:
    lines = crew_log().lines.splitlines(keepends=True)
    saved = project / "events.ndjson"
    saved.write_bytes(b"".join(lines).replace(b"careful", b"CAREFUL"))
    result = crewship("runs", "verify", "events.ndjson")
    assert result.exit_code == 1
    assert "event 9: the hash does not match" in result.stderr
    saved.write_bytes(b"".join(lines[:4] + lines[5:]))
    assert "event 5: the log goes on with 6" in crewship("runs", "verify", "events.ndjson").stderr
    saved.write_bytes(b"".join(lines[:4]))
    assert "not a terminal event" in crewship("runs", "verify", "events.ndjson").stderr
    saved.write_bytes(b"")
    assert crewship("runs", "verify", "events.ndjson").exit_code == 1
