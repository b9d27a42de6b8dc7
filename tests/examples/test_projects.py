"""What every example must be: complete, small, and true to its own README."""

import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.examples.projects import EXAMPLES, NAMES, config, requirements


def test_every_example_is_tested() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/crewship.toml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestProject:
    def test_the_entrypoint_is_there(self, name: str) -> None:
        deployment = config(EXAMPLES / name)["deployment"]
        module, _, attribute = deployment["entrypoint"].partition(":")
        source = (EXAMPLES / name / Path(*module.split("."))).with_suffix(".py").read_text()
        assert re.search(rf"^(class |def |){attribute}\b", source, re.MULTILINE)

    def test_the_project_is_named_like_its_folder(self, name: str) -> None:
        assert config(EXAMPLES / name)["project"]["name"] == name

    def test_requirements_are_pinned(self, name: str) -> None:
        for line in requirements(EXAMPLES / name):
            assert [specifier.operator for specifier in Requirement(line).specifier] == ["=="]

    def test_the_readme_shows_how_with_input_that_parses(self, name: str) -> None:
        readme = (EXAMPLES / name / "README.md").read_text()
        inputs = re.findall(r"crewship invoke .*--input '(.*)'", readme)
        assert inputs
        assert all(isinstance(json.loads(text), dict) for text in inputs)


def test_langgraph_json_names_the_same_graph() -> None:
    folder = EXAMPLES / "graph-agent"
    path, _, variable = json.loads((folder / "langgraph.json").read_text())["graphs"]["agent"].partition(":")
    module, _, attribute = config(folder)["deployment"]["entrypoint"].partition(":")
    assert variable == attribute
    assert Path(path) == Path(*module.split(".")).with_suffix(".py")
