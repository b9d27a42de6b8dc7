from pathlib import Path

import pytest

from cli.detect import candidates, framework_of, python_version


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "entrypoint", "framework"),
    [
        ({"main.py": "def kickoff(inputs): ..."}, "main:kickoff", "python"),
        ({"main.py": "async def kickoff(inputs: dict): ..."}, "main:kickoff", "python"),
        ({"main.py": "def kickoff(inputs): ...", "crew.py": "import crewai"}, "main:kickoff", "crewai"),
        (
            {"src/my_crew/crew.py": "from crewai.project import CrewBase\n@CrewBase\nclass MyCrew: ...",
             "src/my_crew/main.py": "from my_crew.crew import MyCrew\ndef run(): ..."},
            "src.my_crew.crew:MyCrew", "crewai",
        ),
        (
            {"src/poem/main.py": "from crewai.flow import Flow\nclass PoemFlow(Flow[State]): ...\ndef kickoff(): ...",
             "src/poem/crews/poem_crew.py": "from crewai.project import CrewBase\n@CrewBase\nclass PoemCrew: ..."},
            "src.poem.main:PoemFlow", "crewai",
        ),
        ({"team.py": "from crewai import Crew\ncrew = Crew(agents=[])"}, "team:crew", "crewai"),
        ({"agent.py": "from langgraph.graph import StateGraph\ngraph = StateGraph(dict).compile()"}, "agent:graph", "langgraph"),
        ({"a.py": "from langchain.agents import create_agent\nagent = create_agent(m)\n"}, "a:agent", "langgraph"),
        (
            {"langgraph.json": '{"graphs": {"agent": "./src/agent/graph.py:graph"}}', "src/agent/graph.py": "graph = make()"},
            "src.agent.graph:graph", "langgraph",
        ),
        ({"pkg/__init__.py": "def kickoff(inputs): ..."}, "pkg:kickoff", "python"),
        ({"deep/er/main.py": "def kickoff(inputs): ...", "main.py": "def kickoff(inputs): ..."}, "main:kickoff", "python"),
    ],
)  # fmt: skip
def test_the_likeliest_comes_first(tmp_path: Path, files: dict[str, str], entrypoint: str, framework: str) -> None:
    write(tmp_path, files)
    best = candidates(tmp_path)[0]
    assert best.entrypoint == entrypoint
    assert best.framework == framework
    assert framework_of(tmp_path) in (framework, "python")


def test_what_is_no_code_of_the_project_is_skipped(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "tests/main.py": "def kickoff(inputs): ...",
            ".venv/lib/main.py": "def kickoff(inputs): ...",
            "test_main.py": "def kickoff(inputs): ...",
            "broken.py": "def kickoff(",
            "not-a-module.py": "def kickoff(inputs): ...",
        },
    )
    assert candidates(tmp_path) == []


def test_the_python_version(tmp_path: Path) -> None:
    assert python_version(tmp_path) is None
    write(tmp_path, {".python-version": "3.12.4\n"})
    assert python_version(tmp_path) == "3.12"
    write(tmp_path, {".python-version": "pypy3.10\n"})
    assert python_version(tmp_path) is None
