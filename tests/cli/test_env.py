import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.platform import Platform


def test_set_works_before_the_first_deploy(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("env", "set", "OPENAI_API_KEY=sk-proj=1=", "EMPTY=")
    assert result.exit_code == 0
    assert platform.env["research-crew"] == {"OPENAI_API_KEY": "sk-proj=1=", "EMPTY": ""}
    assert result.stderr == "✓ Set EMPTY, OPENAI_API_KEY on research-crew; the next run has them\n"
    assert "sk-" not in result.output


def test_set_from_a_file(crewship: Any, platform: Platform, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "of this machine")
    (project / ".env").write_text(
        '# comment\nexport A=1\nB="two words"\nC=\'$HOST_SECRET\'\nD=${HOST_SECRET}\nKEY="line1\\nline2"\n'
    )
    assert crewship("env", "set", "--from-file", ".env", "A=over").exit_code == 0
    assert platform.env["research-crew"] == {
        "A": "over", "B": "two words", "C": "$HOST_SECRET", "D": "${HOST_SECRET}", "KEY": "line1\nline2",
    }  # fmt: skip


def test_a_name_alone_reads_stdin(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("env", "set", "TOKEN", input="se cret\n").exit_code == 0
    assert platform.env["research-crew"] == {"TOKEN": "se cret"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "needs at least one variable"),
        (["A", "B"], "stdin can give the value of one variable only"),
        (["1A=x"], "a variable's name has letters"),
        (["sk-secret-value"], "a variable's name has letters"),
        (["--from-file", "none.env"], "none.env cannot be read"),
        (["--from-file", "bare.env"], "bare.env, line 1: a name without a value"),
        (["--from-file", "empty.env"], "empty.env has no variables"),
    ],
)
def test_bad_arguments(crewship: Any, platform: Platform, project: Path, arguments: list[str], error: str) -> None:
    (project / "bare.env").write_text("NAME\n")
    (project / "empty.env").write_text("# nothing\n")
    result = crewship("env", "set", *arguments)
    assert result.exit_code == 2
    assert error in result.stderr
    assert "sk-secret-value" not in result.stderr
    assert platform.env == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\n\n\nB='secret\nC=3\n", "line 4: not NAME=VALUE"),
        ("A=1\r\n=secret\r\n", "line 2: not NAME=VALUE"),
        ("A=1\n# fine\nsecret value\n", "line 3: not NAME=VALUE"),
        ("A=1\n\nsecret-value\n", "line 3: a variable's name has letters"),
        ("A=1\n\nMY-KEY=1\n", "line 3: a variable's name has letters"),
    ],
)
def test_a_file_with_a_line_that_cannot_be_read_sets_nothing(
    crewship: Any, platform: Platform, project: Path, text: str, said: str
) -> None:
    (project / "x.env").write_bytes(text.encode())
    result = crewship("env", "set", "--from-file", "x.env")
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error.startswith(f"error: x.env, {said}")
    assert hint.startswith("hint: ")
    assert "secret" not in result.output
    assert platform.env == {}


def test_what_logs_will_show_is_said_at_once_and_in_the_list(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("env", "set", "PORT=8080", "MODEL=gpt-4o-mini", "TOKEN=abcd-1234")
    assert result.exit_code == 0
    assert "warning: logs will show MODEL, PORT as they are" in result.stderr
    assert "8080" not in result.output
    lines = [line.split("  ") for line in crewship("env", "list").stdout.splitlines()]
    shown = {cells[0]: [cell for cell in cells if cell][2] for cells in lines}
    assert shown == {"NAME": "IN LOGS", "MODEL": "as it is", "PORT": "as it is", "TOKEN": "redacted"}


def test_list_and_unset(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("env", "list").exit_code == 4
    assert crewship("env", "unset", "A").exit_code == 4
    crewship("env", "set", "A=secret", "B=other")
    listed = crewship("env", "list")
    assert listed.stderr == "Version 2, which runs of research-crew use from their start on\n"
    lines = listed.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["NAME", "VALUE"], ["A", "se…"], ["B", "ot…"]]
    assert [item["name"] for item in json.loads(crewship("env", "list", "--json").stdout)["env"]] == ["A", "B"]
    unset = crewship("env", "unset", "B", "A", "C")
    assert unset.exit_code == 0
    assert unset.stderr == "✓ Removed A, B from research-crew\nC was not set on research-crew\n"
    assert "has no variables" in crewship("env", "list", "-p", "research-crew").stderr


def test_secrets_of_the_builds(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("env", "set", "--build", "UV_INDEX_URL=https://u:tok@h/simple")
    assert result.exit_code == 0
    assert result.stderr == "✓ Set UV_INDEX_URL on research-crew; the next build has it\n"
    assert crewship("env", "set", "--build", "CA_BUNDLE", input="-----BEGIN\nx\n").exit_code == 0
    assert platform.build_secrets == {"UV_INDEX_URL": "https://u:tok@h/simple", "CA_BUNDLE": "-----BEGIN\nx"}
    assert platform.env == {}
    listed = crewship("env", "list", "--build")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["NAME", "CA_BUNDLE", "UV_INDEX_URL"]
    removed = crewship("env", "unset", "--build", "CA_BUNDLE", "OTHER")
    assert "Removed CA_BUNDLE" in removed.stderr
    assert "OTHER was not set" in removed.stderr
    assert list(platform.build_secrets) == ["UV_INDEX_URL"]


def test_an_earlier_version(crewship: Any, platform: Platform, project: Path) -> None:
    crewship("env", "set", "A=secret")
    assert crewship("env", "list", "--version", "1").stderr == "Version 1 of research-crew; runs use version 2\n"
    assert ("GET", "/v1/projects/research-crew/env?version=1", None) in platform.requests
