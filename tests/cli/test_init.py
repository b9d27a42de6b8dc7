from pathlib import Path
from typing import Any

import pytest

from crewship.config import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "My_Crew"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_init_writes_what_it_found(crewship: Any, folder: Path) -> None:
    (folder / "crew.py").write_text("from crewai.project import CrewBase\n@CrewBase\nclass MyCrew: ...\n")
    (folder / "flow.py").write_text("from crewai import Crew\ncrew = Crew()\n")
    (folder / ".python-version").write_text("3.12\n")
    result = crewship("init", "--yes")
    assert result.exit_code == 0
    config = load((folder / "crewship.toml").read_bytes())
    assert (config.framework, config.entrypoint, config.python) == ("crewai", "crew:MyCrew", "3.12")
    assert "Found a CrewAI crew: crew:MyCrew\n  also a CrewAI crew: flow:crew\n" in result.stderr
    assert "for the project my-crew" in result.stderr
    assert "warning: there is no requirements.txt" in result.stderr
    assert result.stderr.splitlines()[-1] == "  deploy it: crewship deploy"


def test_init_replaces_nothing(crewship: Any, folder: Path) -> None:
    (folder / "crewship.toml").write_text("# mine\n")
    assert crewship("init", "--yes").exit_code == 5
    assert (folder / "crewship.toml").read_text() == "# mine\n"


def test_nothing_to_find(crewship: Any, folder: Path) -> None:
    result = crewship("init")
    assert result.exit_code == 1
    assert "no crew was found" in result.stderr
    assert "def kickoff(inputs: dict):" in result.stderr
    assert not (folder / "crewship.toml").exists()


def test_an_entrypoint_that_is_said(crewship: Any, folder: Path) -> None:
    assert crewship("init", "--entrypoint", "src/app.py").exit_code == 1
    assert not (folder / "crewship.toml").exists()
    assert crewship("init", "--entrypoint", "src.app:go").exit_code == 0
    assert load((folder / "crewship.toml").read_bytes()).entrypoint == "src.app:go"


def test_what_cannot_be_told_apart_is_asked(crewship: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a.py").write_text("def kickoff(inputs): ...\n")
    (folder / "b.py").write_text("def kickoff(inputs): ...\n")
    refused = crewship("init")
    assert refused.exit_code == 2
    assert "a:kickoff, b:kickoff" in refused.stderr
    assert "--entrypoint a:kickoff" in refused.stderr
    assert not (folder / "crewship.toml").exists()
    monkeypatch.setattr("cli.output.can_ask", lambda: True)
    asked = crewship("init", input="c\n2\n")
    assert asked.exit_code == 0, asked.output
    assert "c is none of them" in asked.stderr
    assert load((folder / "crewship.toml").read_bytes()).entrypoint == "b:kickoff"


def test_what_is_clear_is_not_asked(crewship: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "main.py").write_text("def kickoff(inputs): ...\ndef helper(): ...\n")
    (folder / "old.py").write_text("from crewai import Crew\ncrew = Crew()\n")
    monkeypatch.setattr("cli.output.can_ask", lambda: True)
    assert crewship("init", input="").exit_code == 0
    assert load((folder / "crewship.toml").read_bytes()).entrypoint == "main:kickoff"


def test_init_says_what_it_found(crewship: Any, folder: Path) -> None:
    for name, text in {
        "pyproject.toml": '[project]\nname = "poem"\nrequires-python = ">=3.10,<3.14"\n[tool.crewai]\ntype = "flow"\n',
        "src/poem/main.py": "from crewai.flow import Flow\nclass PoemFlow(Flow): ...\ndef kickoff(inputs): ...\n",
        "src/poem/crew.py": "from crewai.project import CrewBase\n@CrewBase\nclass PoemCrew: ...\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    result = crewship("init")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:4] == [
        "Found pyproject.toml: [tool.crewai] type = flow",
        "Found src/ layout",
        "Found Python >=3.10,<3.14 (requires-python)",
        "Found a CrewAI flow: src.poem.main:PoemFlow",
    ]
    config = load((folder / "crewship.toml").read_bytes())
    assert (config.framework, config.entrypoint) == ("crewai", "src.poem.main:PoemFlow")
