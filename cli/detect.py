"""Finds entrypoints by reading the project's Python files; nothing is imported and nothing runs."""

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SKIPPED = {"node_modules", "venv", "env", "site-packages", "__pycache__", "tests", "test", "build", "dist", "docs"}
_MAX_FILES = 2000
_MAX_FILE_BYTES = 1_000_000
_DECLARED = 130
"""Rank of what a file of the project itself names."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that can be an entrypoint; the higher the rank, the likelier it is what the project is about."""

    rank: int
    entrypoint: str
    framework: str
    what: str


def candidates(folder: Path) -> list[Candidate]:
    """What could be the entrypoint, the likeliest first; near the root before deep, then by name."""
    found = list(_from_langgraph_json(folder))
    framework = "python"
    for module, tree in _modules(folder):
        imports = _imports(tree)
        if framework == "python":
            framework = _framework(imports)
        found += _from_module(module, tree, imports)
    # A kickoff function is of the framework that the project uses, wherever it is imported.
    found = [
        Candidate(each.rank, each.entrypoint, each.framework or framework, each.what)
        for each in dict.fromkeys(found)
    ]  # fmt: skip
    kind = crewai_type(folder)
    if kind:
        what = "a CrewAI flow" if kind == "flow" else "a CrewAI crew"
        found = [replace(each, rank=_DECLARED, framework="crewai") if each.what == what else each for each in found]
    unique = {each.entrypoint: each for each in sorted(found, key=lambda each: each.rank)}
    return sorted(unique.values(), key=lambda each: (-each.rank, each.entrypoint.count("."), each.entrypoint))


def alternatives(found: list[Candidate]) -> list[Candidate]:
    """Those of ``found`` between which only a person can choose: as likely as the first; one when there is no question."""
    return [each for each in found if each.rank == found[0].rank]


def facts(folder: Path) -> list[str]:
    """What else the folder says of the project, a line each, for a person."""
    said = []
    if kind := crewai_type(folder):
        said.append(f"pyproject.toml: [tool.crewai] type = {kind}")
    if (folder / "langgraph.json").is_file():
        said.append("langgraph.json")
    if (folder / "src").is_dir() and any((folder / "src").glob("*/*.py")):
        said.append("src/ layout")
    if requires := _project(folder).get("requires-python"):
        said.append(f"Python {requires} (requires-python)")
    elif version := python_version(folder):
        said.append(f"Python {version} (.python-version)")
    return said


def crewai_type(folder: Path) -> str | None:
    """``crew`` or ``flow`` as ``crewai create`` writes it into ``[tool.crewai]``; None when nothing is said."""
    tool = _pyproject(folder).get("tool")
    table = tool.get("crewai") if isinstance(tool, dict) else None
    kind = table.get("type") if isinstance(table, dict) else None
    return kind if kind in ("crew", "flow") else None


def _project(folder: Path) -> dict[str, Any]:
    project = _pyproject(folder).get("project")
    return project if isinstance(project, dict) else {}


def _pyproject(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}


def framework_of(folder: Path) -> str:
    """``crewai``, ``langgraph`` or ``python``, by what the project declares or imports."""
    if crewai_type(folder):
        return "crewai"
    return next((name for _, tree in _modules(folder) if (name := _framework(_imports(tree))) != "python"), "python")


def python_version(folder: Path) -> str | None:
    """``3.11`` when ``.python-version`` says so."""
    try:
        match = re.match(r"\s*(3\.\d{1,2})\b", (folder / ".python-version").read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return match[1] if match else None


def _modules(folder: Path) -> Iterator[tuple[str, ast.Module]]:
    count = 0
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name.isidentifier() and name not in _SKIPPED and not name.startswith("_")
        )  # fmt: skip
        for name in sorted(files):
            path = Path(root, name)
            stem = name.removesuffix(".py")
            if not name.endswith(".py") or not stem.isidentifier() or stem.startswith(("test_", "conftest")):
                continue
            count += 1
            if count > _MAX_FILES:
                return
            try:
                if path.stat().st_size > _MAX_FILE_BYTES:
                    continue
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError, RecursionError):
                continue
            parts = [*path.relative_to(folder).parts[:-1], *([] if stem == "__init__" else [stem])]
            if parts:
                yield ".".join(parts), tree


def _imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def _framework(imports: set[str]) -> str:
    return next((name for name in ("crewai", "langgraph") if name in imports), "python")


def _from_module(module: str, tree: ast.Module, imports: set[str]) -> Iterator[Candidate]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "kickoff":
            takes_input = bool(node.args.args or node.args.posonlyargs)
            # `crewai create flow` writes a main.py with a kickoff() of its own that takes nothing.
            yield Candidate(120 if takes_input else 60, f"{module}:kickoff", "", "a function kickoff")
        elif isinstance(node, ast.ClassDef) and "crewai" in imports:
            if any(_name(decorator) == "CrewBase" for decorator in node.decorator_list):
                yield Candidate(100, f"{module}:{node.name}", "crewai", "a CrewAI crew")
            elif any(_name(base) == "Flow" for base in node.bases):
                yield Candidate(110, f"{module}:{node.name}", "crewai", "a CrewAI flow")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            called = _name(node.value.func)
            for target in targets:
                if not isinstance(target, ast.Name) or target.id.startswith("_"):
                    continue
                if called == "Crew" and "crewai" in imports:
                    yield Candidate(80, f"{module}:{target.id}", "crewai", "a CrewAI crew")
                elif called == "compile" and imports & {"langgraph", "langchain"}:
                    yield Candidate(100, f"{module}:{target.id}", "langgraph", "a compiled LangGraph graph")
                elif called in ("create_react_agent", "create_agent") and imports & {"langgraph", "langchain"}:
                    yield Candidate(90, f"{module}:{target.id}", "langgraph", "a LangGraph agent")


def _from_langgraph_json(folder: Path) -> Iterator[Candidate]:
    """The graphs that ``langgraph.json`` names: ``{"graphs": {"agent": "./src/agent/graph.py:graph"}}``."""
    try:
        graphs = json.loads((folder / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
        items = list(graphs.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for item in items:
        place = item.get("path") if isinstance(item, dict) else item
        match = re.fullmatch(r"(?:\./)?([\w/]+)\.py:(\w+)", place) if isinstance(place, str) else None
        if match:
            module = match[1].replace("/", ".")
            yield Candidate(_DECLARED, f"{module}:{match[2]}", "langgraph", "a graph of langgraph.json")


def _name(node: ast.expr) -> str:
    """The last name of what is called or subclassed: ``Flow`` of ``crewai.Flow[State]``, ``compile`` of ``builder.compile``."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
