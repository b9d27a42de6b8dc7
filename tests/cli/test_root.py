import subprocess
import sys
from typing import Any

import pytest
from fastapi.responses import PlainTextResponse

from cli.root import hoist
from tests.cli.platform import KEY, Platform, problem


def test_help_names_every_command(crewship: Any) -> None:
    result = crewship("--help")
    assert result.exit_code == 0
    for command in (
        "dev",
        "doctor",
        "init",
        "login",
        "logout",
        "whoami",
        "deploy",
        "invoke",
        "runs",
        "deployments",
        "env",
    ):
        assert f"\n  {command} " in result.stdout


def test_no_command_shows_the_help_as_talk(crewship: Any) -> None:
    for arguments in ((), ("runs",), ("env",)):
        result = crewship(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Commands:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["runz"], "no such command 'runz'. Did you mean 'run', 'runs'?", "crewship --help"),
        (["runs", "lst"], "no such command 'lst'. Did you mean 'list'?", "crewship runs --help"),
        (["runs", "list", "--bogus"], "no such option: --bogus", "crewship runs list --help"),
        (["runs", "show"], "missing argument 'RUN'", "crewship runs show --help"),
        (["runs", "list", "--limit", "0"], "invalid value for '--limit'", "crewship runs list --help"),
        (["invoke", "--input"], "option '--input' requires an argument", "crewship --help"),
    ],
)
def test_usage_errors_look_like_all_errors(crewship: Any, arguments: list[str], error: str, hint: str) -> None:
    result = crewship(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {error}")
    assert second == f"hint: {hint}"


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [(400, 1), (401, 3), (403, 3), (404, 4), (409, 5), (413, 1), (422, 1), (429, 1), (500, 1), (502, 6), (503, 6)],
)
def test_problems_become_exit_codes(crewship: Any, platform: Platform, status: int, exit_code: int) -> None:
    platform.fail_next.append(problem(status, "some_code", "what is wrong", hint="what to do", errors=[]))
    result = crewship("runs", "show", "run_x")
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr == "error: what is wrong\nhint: what to do\n"


def test_a_422_names_each_place(crewship: Any, platform: Platform) -> None:
    errors = [{"pointer": "/input", "detail": "is too large"}]
    platform.fail_next.append(problem(422, "validation_error", "the body does not fit", errors=errors))
    assert crewship("runs", "show", "x").stderr == "error: the body does not fit\n  /input: is too large\n"


def test_an_answer_that_is_no_problem_document(crewship: Any, platform: Platform) -> None:
    platform.fail_next.append(PlainTextResponse("<html>Bad gateway</html>", 502))
    result = crewship("runs", "list")
    assert (result.exit_code, result.stderr) == (6, "error: 127.0.0.1 answered 502\n")


def test_nobody_listens(crewship: Any, platform: Platform) -> None:
    result = crewship("runs", "list", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 6
    assert "cannot connect to http://127.0.0.1:9 (address from --url)" in result.stderr
    assert "hint: crewship dev" in result.stderr
    assert "crewship doctor" in result.stderr


def test_a_wrong_key(crewship: Any, platform: Platform) -> None:
    result = crewship("runs", "list", "--api-key", "wrong")
    assert result.exit_code == 3
    assert "hint: crewship login" in result.stderr


def test_no_key(crewship: Any, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREWSHIP_API_KEY")
    result = crewship("runs", "list")
    assert result.exit_code == 3
    assert f"there is no API key for {platform.url}\nhint: crewship login --url {platform.url}" in result.stderr
    assert crewship("runs", "list", "--url", "http://127.0.0.1:9").exit_code == 6


def test_a_body_that_breaks_off(crewship: Any, platform: Platform) -> None:
    platform.fail_next.append(PlainTextResponse("not json"))
    result = crewship("--debug", "runs", "list")
    assert isinstance(result.exception, ValueError)


def test_global_options_may_stand_anywhere() -> None:
    assert hoist(["runs", "list", "--url", "u", "--json"]) == ["--url", "u", "runs", "list", "--json"]
    assert hoist(["a", "--api-key=k", "--debug"]) == ["--api-key=k", "--debug", "a"]
    assert hoist(["a", "--", "--url", "u"]) == ["a", "--", "--url", "u"]
    assert hoist(["a", "--url"]) == ["--url", "a"]


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = (
        "temporalio",
        "docker",
        "fastapi",
        "sqlmodel",
        "httpx",
        "rich",
        "pydantic",
        "minio",
        "platformdirs",
        "asyncio",
    )
    code = f"import sys, cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_goes_away_is_no_error(platform: Platform) -> None:
    for number in range(3000):
        platform.add_run(f"run_{number}")
    command = f"{sys.executable} -m cli.main runs list --limit 5000 | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("RUN")
    assert done.stderr == ""


def test_a_fault_of_our_own_is_one_line(platform: Platform) -> None:
    platform.fail_next.append(PlainTextResponse("not json"))
    command = [sys.executable, "-m", "cli.main", "runs", "list"]
    environment = {"CREWSHIP_URL": platform.url, "CREWSHIP_API_KEY": KEY, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: crewship has a fault of its own" in done.stderr
