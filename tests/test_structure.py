"""The arrows between the packages, and what a workflow file may see."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "crewship": set(),
    "activities": {"crewship"},
    "workflows": {"crewship", "activities"},
    "worker": {"crewship", "activities", "workflows"},
    "api": {"crewship", "workflows"},
    "cli": {"crewship"},
    "runtime": set(),
}
"""Package → the first-party packages it may import besides itself."""

WORKFLOWS_NEVER = {"sqlmodel", "sqlalchemy", "docker", "minio", "fastapi", "httpx"}


def imports(path: Path) -> Iterator[str]:
    """Top-level names of the absolute imports of a module, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_arrows_point_one_way(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name in MAY_IMPORT and name != package and name not in MAY_IMPORT[package]
    }
    assert wrong == set()


def test_workflows_see_messages_only() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("workflows")
        for name in imports(path)
        if name in WORKFLOWS_NEVER
    }
    assert wrong == set()


def test_the_command_line_never_talks_to_the_workflow_engine() -> None:
    wrong = {str(path) for path in modules("cli") if "temporalio" in imports(path)}
    assert wrong == set()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_importing_a_package_runs_nothing(package: str) -> None:
    assert (ROOT / package / "__init__.py").read_text() == ""


def test_the_runner_needs_the_standard_library_only() -> None:
    import sys

    optional = {"crewai", "langchain_core", "langgraph", "agents", "pydantic_ai", "opentelemetry"}
    wrong = {
        f"{path.name} imports {name}"
        for path in modules("runtime")
        for name in imports(path)
        if name not in sys.stdlib_module_names and name not in optional and not name.startswith("_")
    }
    assert wrong == set()
