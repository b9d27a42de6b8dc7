"""Every kind of entrypoint, found and called; and what is said of one that cannot be."""

from pathlib import Path
from typing import Any

import pytest

from .harness import Run, complete, crew

KINDS = '''
import asyncio
from functools import partial

def one(inputs):
    return inputs["n"] + 1

def none():
    return "no input"

def optional(inputs, retries=3, *, verbose=False):
    return [inputs["n"], retries, verbose]

def by_name(*, inputs):
    return inputs

def spread(**inputs):
    return inputs

def anything(*args):
    return args

async def later(inputs):
    await asyncio.sleep(0)
    return inputs["n"] + 2

def steps(inputs):
    for number in range(inputs["n"]):
        yield {"step": number}

def steps_and_result(inputs):
    yield "working"
    return "worked"

async def later_steps(inputs):
    for number in range(inputs["n"]):
        yield number

class Callable:
    def __call__(self, inputs):
        return ["called", inputs["n"]]

class Crew:
    """Like CrewAI's, without it."""
    def kickoff(self, inputs=None):
        return {"crew": inputs["n"]}

class CrewBase:
    is_crew_class = True
    def crew(self):
        return Crew()

class Own:
    def kickoff(self, values):
        return {"own": values["n"]}

class Built:
    def __init__(self, inputs):
        self.n = inputs["n"]
    def kickoff(self):
        return self.n

def make(inputs):
    return Crew()

async def make_later(inputs):
    return CrewBase()

class Static:
    @staticmethod
    def kickoff(values):
        return {"static": values["n"]}

class OfClass:
    @classmethod
    def kickoff(cls, inputs=None, retries=2):
        return {cls.__name__: inputs["n"]}

class Holder:
    crew = Crew()
    @staticmethod
    def go(inputs):
        return "held"

callable_object = Callable()
instance = Crew()
wrapped = partial(optional, retries=5)
lambda_ = lambda inputs: inputs["n"]
'''


@pytest.mark.parametrize(
    ("attribute", "kind", "output"),
    [
        ("one", "function", 3),
        ("none", "function", "no input"),
        ("optional", "function", [2, 3, False]),
        ("by_name", "function", {"n": 2}),
        ("spread", "function", {"n": 2}),
        ("anything", "function", [{"n": 2}]),
        ("later", "async_function", 4),
        ("steps", "generator", [{"step": 0}, {"step": 1}]),
        ("steps_and_result", "generator", "worked"),
        ("later_steps", "async_generator", [0, 1]),
        ("callable_object", "function", ["called", 2]),
        ("instance", "crew", {"crew": 2}),
        ("Crew", "class", {"crew": 2}),
        ("CrewBase", "crewbase", {"crew": 2}),
        ("Own", "class", {"own": 2}),
        ("Static", "class", {"static": 2}),
        ("OfClass", "class", {"OfClass": 2}),
        ("make", "function", {"crew": 2}),
        ("make_later", "async_function", {"crew": 2}),
        ("Holder.crew", "crew", {"crew": 2}),
        ("Holder.go", "function", "held"),
        ("wrapped", "function", [2, 5, False]),
        ("lambda_", "function", 2),
    ],
)
def test_kinds(tmp_path: Path, attribute: str, kind: str, output: Any) -> None:
    run = complete(tmp_path, crew(KINDS), {"n": 2}, entrypoint=f"main:{attribute}")
    assert run.of("loaded")[0]["kind"] == kind
    assert run.output == output


def test_each_yield_is_a_custom_event(tmp_path: Path) -> None:
    run = complete(tmp_path, crew(KINDS), {"n": 2}, entrypoint="main:steps")
    assert run.events() == [("custom", {"value": {"step": 0}}), ("custom", {"value": {"step": 1}})]


def smoke(folder: Path, files: dict[str, str | bytes], entrypoint: str) -> Run:
    with Run(folder, files) as run:
        run.boot(entrypoint, check=True)
        run.finish()
    return run


@pytest.mark.parametrize(
    ("entrypoint", "code", "told"),
    [
        ("main:kickof", "entrypoint_not_found", "Did you mean kickoff"),
        ("mian:kickoff", "entrypoint_not_found", "Did you mean main"),
        ("pkg.nothing:kickoff", "entrypoint_not_found", "pkg.crew"),
        ("main", "entrypoint_not_found", "module.path:attribute"),
        ("main:", "entrypoint_not_found", "module.path:attribute"),
        ("../main:kickoff", "entrypoint_not_found", "module.path:attribute"),
        ("main:number", "entrypoint_not_callable", "an int"),
        ("main:two", "entrypoint_not_callable", "a, b"),
        ("main:Runs", "entrypoint_not_callable", "def kickoff(inputs): return Runs().run(inputs)"),
        ("main:Called", "entrypoint_not_callable", "return Called()(inputs)"),
        ("main:Empty", "entrypoint_not_callable", "Name a function instead: def kickoff(inputs: dict)."),
        ("main:Needs", "entrypoint_not_callable", "Needs needs the arguments key to be made"),
        ("main:NeedsCrew", "entrypoint_not_callable", "return NeedsCrew(key=...).crew()"),
        ("main:Twofold", "entrypoint_not_callable", "left, right"),
        ("main:twofold", "entrypoint_not_callable", "left, right"),
    ],
)
def test_entrypoints_that_cannot_be(tmp_path: Path, entrypoint: str, code: str, told: str) -> None:
    files: dict[str, str | bytes] = {
        "main.py": """
number = 3
def kickoff(inputs): pass
def two(a, b): pass
class Runs:
    def run(self, inputs): return inputs
class Called:
    def __call__(self, inputs): return inputs
class Empty: pass
class Needs:
    def __init__(self, key): pass
    def kickoff(self, inputs): pass
class NeedsCrew:
    is_crew_class = True
    def __init__(self, key): pass
    def crew(self): pass
class Twofold:
    def kickoff(self, left, right): pass
twofold = Twofold()
""",
        "pkg/__init__.py": "",
        "pkg/crew.py": "",
    }
    run = smoke(tmp_path, files, entrypoint)
    assert run.error["code"] == code
    assert told in f"{run.error['message']} {run.error['hint']}"
    assert run.of("end")[0]["exit_code"] == 1
    assert not run.of("loaded")


def test_outside_a_smoke_boot_it_is_an_import_error(tmp_path: Path) -> None:
    run = complete(tmp_path, crew("x = 1"), entrypoint="main:kickoff")
    assert run.error["code"] == "import_error"
    assert not run.of("started")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("import yaml_is_not_here", "Add yaml-is-not-here to requirements.txt"),
        ("import sklearn.linear_model", "Add scikit-learn to requirements.txt"),
        ("import os; key = os.environ['OPENAI_API_KEY']", "crewship env set OPENAI_API_KEY=..."),
        ("open('config/agents.yaml')", "has no config/agents.yaml"),
        ("raise RuntimeError('set the ACME_API_KEY environment variable')", "crewship env set ACME_API_KEY=..."),
        ("input('Topic? ')", "keyboard"),
        ("import sys; sys.exit(1)", "__main__"),
        ("import helper.missing", "has no module helper.missing"),
        ("def broken(:", None),
    ],
)
def test_errors_at_import(tmp_path: Path, code: str, hint: str | None) -> None:
    run = smoke(
        tmp_path, {"main.py": f"\n{code}\ndef kickoff(inputs): pass\n", "helper/__init__.py": ""}, "main:kickoff"
    )
    assert run.error["code"] == "import_error"
    if hint is not None:
        assert hint in run.error["hint"]
    assert f'File "{run.app}/main.py", line 2' in run.error["traceback"]
    assert "_crewship" not in run.error["traceback"]
    assert "importlib" not in run.error["traceback"]


def test_the_traceback_is_the_crews_own(tmp_path: Path) -> None:
    code = crew("""
class Trouble(Exception):
    pass
def deep():
    try:
        {}["k"]
    except KeyError as error:
        raise Trouble("no k") from error
def kickoff(inputs):
    deep()
""")
    run = complete(tmp_path, code)
    assert run.error["code"] == "user_error"
    assert run.error["message"] == "main.Trouble: no k"
    lines = run.error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('main.py", line 6, in deep')
    second = lines.index("Traceback (most recent call last):", 1)
    assert lines[second + 1].endswith('main.py", line 10, in kickoff')
    assert lines[-1] == "main.Trouble: no k"
    assert "runtime/" not in run.error["traceback"]


def test_env_is_there_before_the_crews_modules(tmp_path: Path) -> None:
    code = crew("""
import os, sys, time
KEY = os.environ["KEY"]
from extra import value
def kickoff(inputs):
    return [KEY, os.environ["CREWAI_TESTING"], os.environ["CREWSHIP_RUN_ID"], time.tzname[0], value,
            os.getcwd() == os.environ["PWD"], "crew" in sys.modules, [p for p in sys.path if "runtime" in p]]
""")
    files = {**code, "lib/extra.py": "value = 7"}
    env = {"KEY": "größer=1\n2", "CREWAI_TESTING": "mine", "TZ": "UTC-3", "PYTHONPATH": "lib"}
    run = complete(tmp_path, files, env=env)
    assert run.output == ["größer=1\n2", "mine", "run_test", "UTC", 7, True, False, []]


def test_variables_that_count_at_a_process_start(tmp_path: Path) -> None:
    code = crew("""
import os, sys
def kickoff(inputs):
    return [hash("x"), sys.flags.hash_randomization, os.environ["SECRET"], sys.flags.optimize,
            [k for k in os.environ if "RESUME" in k]]
""")
    env = {"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1", "SECRET": "s"}
    first = complete(tmp_path / "1", code, env=env)
    second = complete(tmp_path / "2", code, env=env)
    assert first.output == second.output
    assert first.output[1:] == [0, "s", 1, []]


def test_a_users_modules_may_have_our_names(tmp_path: Path) -> None:
    names = ["crew", "run", "runtime", "channel", "hooks", "supervisor", "process", "version", "session", "plain"]
    files: dict[str, str | bytes] = {f"{name}.py": f"me = {name!r}" for name in names}
    files["main.py"] = (
        f"import {', '.join(names)}\ndef kickoff(inputs):\n    return [{', '.join(n + '.me' for n in names)}]"
    )
    assert complete(tmp_path, files).output == names


def test_multiprocessing(tmp_path: Path) -> None:
    files = {
        "main.py": """
import multiprocessing
from work import double
def kickoff(inputs):
    out = []
    for way in ("spawn", "fork"):
        with multiprocessing.get_context(way).Pool(2) as pool:
            out.append(pool.map(double, [1, 2, 3]))
    for _ in range(20):  # ended while its workers are still starting
        multiprocessing.get_context("fork").Pool(4).terminate()
    return out
""",
        "work.py": "def double(n):\n    print('doubling')\n    return 2 * n\n",
    }
    run = complete(tmp_path, files)
    assert run.output == [[2, 4, 6], [2, 4, 6]]
    assert "".join(run.text()) == "doubling" * 6
