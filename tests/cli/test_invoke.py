import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.platform import Log, Platform, crew_log

FAILED = {
    "status": "failed",
    "error": {
        "code": "user_error",
        "message": "ValueError: no topic",
        "hint": "pass one",
        "traceback": "Traceback\n  x",
    },
    "duration_ms": 3200,
}


@pytest.fixture
def ready(platform: Platform, project: Path) -> Platform:
    platform.add_project("research-crew", "dep_one")
    return platform


def sent(platform: Platform) -> Any:
    return next(body for method, path, body in platform.requests if (method, path) == ("POST", "/v1/runs"))


@pytest.mark.parametrize(
    ("output", "printed"),
    [
        ("plain text", "plain text\n"),
        ({"answer": "42 é"}, '{\n  "answer": "42 é"\n}\n'),
        ([1, 2], "[\n  1,\n  2\n]\n"),
        (0, "0\n"),
        (None, ""),
    ],
)
def test_the_output_alone_is_on_stdout(crewship: Any, ready: Platform, output: Any, printed: str) -> None:
    ready.next_run = {"output": output}
    result = crewship("invoke", "--input", '{"topic": "x"}')
    assert (result.exit_code, result.stdout) == (0, printed)
    assert sent(ready) == {"project": "research-crew", "input": {"topic": "x"}}


def test_stream_draws_the_timeline_beside(crewship: Any, ready: Platform) -> None:
    ready.next_run, ready.next_log = {"output": "done", "artifact_count": 1}, crew_log()
    result = crewship("invoke", "--stream")
    assert result.exit_code == 0
    assert result.stdout == "done\n"
    assert '   2.2s    ▸ web_search(query="qubits")\n' in result.stderr
    assert result.stderr.splitlines()[-1] == "  fetch 1 artifact: crewship runs download run_new0"
    assert "\x1b" not in result.stderr


def test_json_is_the_run(crewship: Any, ready: Platform) -> None:
    ready.next_run = {"output": 42}
    result = crewship("invoke", "--json")
    assert json.loads(result.stdout) == ready.runs["run_new0"]


def test_json_and_stream_are_the_logs_own_lines(crewship: Any, ready: Platform) -> None:
    ready.next_log = crew_log()
    ready.next_log.cuts = [4]
    result = crewship("invoke", "--json", "--stream")
    assert result.stdout_bytes == ready.next_log.lines
    assert result.exit_code == 0


@pytest.mark.parametrize("arguments", [[], ["--stream"], ["--json"], ["--json", "--stream"]])
def test_a_run_that_failed(crewship: Any, ready: Platform, arguments: list[str]) -> None:
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")
    log.write(3200, "run.failed", duration_ms=3200, error=FAILED["error"])
    ready.next_run, ready.next_log = FAILED, log
    result = crewship("invoke", *arguments)
    assert result.exit_code == 7
    assert "  Traceback\n    x\nerror: ValueError: no topic [user_error]\nhint: pass one\n" in result.stderr
    assert "✗ failed after 3.2 s" in result.stderr
    if not arguments:
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1] == "  its log: crewship runs logs run_new0"


def test_a_run_that_was_canceled(crewship: Any, ready: Platform) -> None:
    ready.next_run = {"status": "canceled"}
    result = crewship("invoke")
    assert result.exit_code == 8
    assert "■ canceled" in result.stderr


def test_detach(crewship: Any, ready: Platform) -> None:
    result = crewship("invoke", "--detach", "--label", "team=search", "--timeout", "60")
    assert (result.exit_code, result.stdout) == (0, "run_new0\n")
    assert "crewship runs events run_new0 --follow" in result.stderr
    assert sent(ready)["labels"] == {"team": "search"}
    assert sent(ready)["timeout_seconds"] == 60
    assert json.loads(crewship("invoke", "--detach", "--json").stdout)["id"] == "run_new1"


def test_download(crewship: Any, ready: Platform, project: Path) -> None:
    ready.next_run = {"artifact_count": 2}
    ready.artifacts["run_new0"] = {"report.md": b"# R", "data/a.csv": b"1,2"}
    assert crewship("invoke", "--download", "out").exit_code == 0
    assert (project / "out" / "report.md").read_bytes() == b"# R"
    assert (project / "out" / "data" / "a.csv").read_bytes() == b"1,2"


def test_the_input_may_come_from_a_file_or_stdin(crewship: Any, ready: Platform, project: Path) -> None:
    (project / "in.json").write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert crewship("invoke", "-i", "@in.json", "-d").exit_code == 0
    assert sent(ready)["input"] == {"a": 1}
    ready.requests.clear()
    assert crewship("invoke", "-i", "-", "-d", input='{"b": 2}').exit_code == 0
    assert sent(ready)["input"] == {"b": 2}


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["-i", "[1]"], "has to be a JSON object, not an array", '-i \'{"topic"'),
        (["-i", '"x"'], "not a string", "dictionary"),
        (["-i", "null"], "not null", "dictionary"),
        (["-i", "{topic: 1}"], "is not JSON", "single quotes"),
        (["-i", "main.py"], "is not JSON", "-i @main.py"),
        (["-i", "@none.json"], "none.json cannot be read: No such file", "-i @input.json"),
        (["--download", "main.py"], "main.py is a file, and artifacts are saved in a folder", "name a folder"),
        (["-i", "@."], "cannot be read", None),
        (["-i", ""], "is not JSON", None),
        (["--detach", "--stream"], "does not go with --stream", None),
        (["--detach", "--download", "x"], "does not go with --download", None),
        (["--label", "team"], "'team' is not a label", "team=search"),
        (["research-crew"], "is not a deployment's id", "-p research-crew"),
        (["dep_one", "-p", "x"], "leave -p and -n out", None),
    ],
)
def test_bad_arguments(crewship: Any, ready: Platform, arguments: list[str], error: str, hint: str | None) -> None:
    result = crewship("invoke", *arguments)
    assert result.exit_code == 2
    assert error in result.stderr
    if hint:
        assert hint in result.stderr
    assert ready.requests == []


def test_a_deployment_by_its_id(crewship: Any, ready: Platform) -> None:
    assert crewship("invoke", "dep_old").exit_code == 0
    assert sent(ready) == {"deployment_id": "dep_old", "input": {}}


def test_a_project_that_was_only_guessed(crewship: Any, platform: Platform, tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "Some_Folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    result = crewship("invoke")
    assert result.exit_code == 4
    assert "hint: the name some-folder comes from this folder" in result.stderr


def test_several_deployments_and_nobody_to_ask(crewship: Any, ready: Platform, project: Path) -> None:
    table = 'framework = "python"\nentrypoint = "main:kickoff"\n'
    (project / "crewship.toml").write_text(f"[deployments.Search]\n{table}[deployments.write]\n{table}")
    result = crewship("invoke")
    assert result.exit_code == 2
    assert "several deployments: Search, write" in result.stderr
    assert "hint: say which one: -n Search" in result.stderr
    ready.add_project("search")
    assert crewship("invoke", "-n", "Search").exit_code == 0
    assert sent(ready)["project"] == "search"


def held(platform: Platform, *, stubborn: bool) -> Log:
    """A run that goes on until it is canceled; a stubborn one until it is forced."""
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")

    def on_cancel(run_id: str, force: bool) -> None:
        if force or not stubborn:
            platform.runs[run_id]["status"] = "canceled"
            log.write(900, "run.canceled", duration_ms=900)
        platform.canceled.set()

    platform.next_run, platform.next_log, platform.on_cancel = {"status": "running"}, log, on_cancel
    return log


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interrupt_cancels_and_the_second_forces(ready: Platform, project: Path, stubborn: bool) -> None:
    held(ready, stubborn=stubborn)
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "invoke", "--stream"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        try:
            seen = read_until(process, "started on dep_one")
            process.send_signal(signal.SIGINT)
            assert ready.canceled.wait(20)
            if stubborn:
                seen += read_until(process, "canceling run_new0")
                process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert ready.cancels == ([False, True] if stubborn else [False])
    assert "■ canceled" in seen + rest
    assert "Traceback" not in seen + rest


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    assert process.stderr is not None
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, f"{text!r} never came; but: {seen}"
        seen += line
    return seen
