"""New projects from templates: complete, named as asked, and made wholly or not at all."""

import ast
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cli.detect import candidates
from cli.pack import pack
from cli.template import class_name, names, package_name
from crewship.config import load
from crewship.config_file import project_name
from crewship.dependencies import find

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("template", ["crewai", "langgraph", "python"])
def test_a_project_is_made(crewship: Any, tmp_path: Path, template: str) -> None:
    assert template in names()
    result = crewship("init", "--template", template, "Weather Report")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "Weather Report"
    config = load((folder / "crewship.toml").read_bytes())
    assert (config.framework, config.name, project_name(folder)) == (template, "weather-report", "weather-report")
    assert config.entrypoint in [found.entrypoint for found in candidates(folder)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_text()
        assert not {word for word in ("my_crew", "my-crew", "MyCrew") if word in text + str(path)}, path
        if path.suffix == ".py":
            ast.parse(text)
    assert {".gitignore", "README.md"} <= {path.name for path in files}
    packed = pack(folder, config.build.exclude, target=tmp_path / "source.tar.gz")
    assert packed.files == len(files)
    assert find(folder).file is not None
    assert result.stderr.splitlines()[1:] == [
        "  try it here: cd 'Weather Report' && crewship run --local",
        "  deploy it: crewship deploy 'Weather Report'",
    ]


@pytest.mark.parametrize(
    ("template", "example"), [("crewai", "research-crew"), ("langgraph", "graph-agent"), ("python", "report-crew")]
)
def test_a_template_says_what_its_example_does(crewship: Any, tmp_path: Path, template: str, example: str) -> None:
    """The examples are run with every release; what a template says of framework, entrypoint, limits, pins and build is theirs.
    An example has besides what is its own: a Python, what it excludes, its commands."""
    assert crewship("init", "--template", template, example).exit_code == 0

    def read(folder: Path, name: str) -> dict[str, Any]:
        if not (folder / name).exists():
            return {}
        text = (folder / name).read_text()
        document: dict[str, Any] = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
        return document

    def without(document: dict[str, Any], *paths: str) -> dict[str, Any]:
        for path in paths:
            *tables, key = path.split(".")
            table = document
            for name in tables:
                table = table.get(name, {})
            table.pop(key, None)
        return document

    made, theirs = tmp_path / example, EXAMPLES / example
    for name, own in (
        ("crewship.toml", ("deployment.python", "build")),
        ("pyproject.toml", ("project.description", "project.scripts")),
        ("langgraph.json", ("python_version",)),
    ):
        assert without(read(made, name), *own) == without(read(theirs, name), *own), name
    pins, theirs_pins = (folder / "requirements.txt" for folder in (made, theirs))
    assert pins.exists() == theirs_pins.exists()
    if template == "langgraph":
        assert pins.read_text() == theirs_pins.read_text()
    for package in (path.parent.relative_to(made) for path in made.rglob("__init__.py")):
        assert (theirs / package / "__init__.py").exists(), package
    module, _, attribute = load((made / "crewship.toml").read_bytes()).entrypoint.partition(":")
    for folder in (made, theirs):
        assert attribute in (folder / f"{module.replace('.', '/')}.py").read_text()


def test_nothing_is_overwritten_or_half_made(crewship: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_text("mine")
    for arguments, code in (
        (("there",), 5),
        (("no/such/parent",), 2),
        (("!!!",), 1),
        ((), 2),
        (("new", "--framework", "python"), 2),
        (("x" * 64,), 1),
    ):
        result = crewship("init", "--template", "python", *arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert "hint:" in result.stderr, result.stderr
    unknown = crewship("init", "--template", "autogen", "new")
    assert (unknown.exit_code, "crewai, langgraph, python" in unknown.stderr) == (2, True)
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "file"]
    (tmp_path / "empty").mkdir()
    assert crewship("init", "--template", "python", "empty").exit_code == 0


@pytest.mark.parametrize(
    ("project", "package", "class_"),
    [
        ("my-crew", "my_crew", "MyCrew"),
        ("weather", "weather", "WeatherCrew"),
        ("crewai", "crewai_crew", "CrewaiCrew"),
        ("logging", "logging_crew", "LoggingCrew"),
        ("class", "class_crew", "ClassCrew"),
        ("2nd", "crew_2nd", "Crew2nd"),
    ],
)
def test_names_can_be_imported_and_hide_nothing(project: str, package: str, class_: str) -> None:
    assert (package_name(project), class_name(project)) == (package, class_)
