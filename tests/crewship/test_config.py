"""crewship.toml: what is accepted, and what each mistake is told."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewship.config import (
    BuildConfig,
    DeploymentConfig,
    NetworkConfig,
    RunConfig,
    load,
    size_bytes,
)
from crewship.config_file import KEYS, OPTIONS, deployment_names, normalized_name, project_name
from crewship.errors import InvalidConfig

MINIMAL = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'
MONOREPO = """
[build]
exclude = ["tests", "notebooks"]
[run]
memory = "1g"
pids = 100

[deployments.web-scraper]
framework = "crewai"
entrypoint = "leads.web_scraper.crew:WebScraperCrew"
profile = "browser"
python = "3.11"
[deployments.web-scraper.run]
memory = "2g"

[deployments.reddit_miner]
framework = "langgraph"
entrypoint = "leads.reddit.graph:graph"
"""


def test_the_concepts_page_example_is_read() -> None:
    config = load(
        """
[deployment]
framework = "crewai"                       # crewai | langgraph | python; found by `crewship init`
entrypoint = "src.my_crew.crew:MyCrew"     # module.path:attribute
python = "3.11"                            # optional
profile = "slim"                           # optional
[build]
exclude = ["tests"]                        # gitignore syntax
"""
    )
    assert config.framework == "crewai"
    assert config.entrypoint == "src.my_crew.crew:MyCrew"
    assert config.module == "src.my_crew.crew"
    assert (config.python, config.profile, config.name) == ("3.11", "slim", None)
    assert config.build.exclude == ["tests"]
    assert config.build.smoke is True
    assert config.run.timeout_seconds is None
    assert config.network.mode == "open"


def test_the_file_has_the_keys_of_the_models() -> None:
    models = {"build": BuildConfig, "run": RunConfig, "network": NetworkConfig}
    assert {table: list(model.model_fields) for table, model in models.items()} == {
        table: KEYS[table] for table in OPTIONS
    }
    assert set(KEYS["deployment"]) == DeploymentConfig.model_fields.keys() - {"name", *OPTIONS}


def test_every_key_is_read() -> None:
    config = load(
        MINIMAL
        + """
[project]
name = "My_Crew"
[build]
exclude = ["*.csv"]
smoke = false
apt = ["libpq5", "g++"]
extras = ["web"]
requirements = "writer/requirements.txt"
[run]
timeout_seconds = 60
memory = "512m"
cpus = 2
pids = 64
concurrency = 2
queue_timeout_seconds = 90
disk = "2g"
log = "100k"
retries = 2
warm = 1
artifacts = ["report.md", "out/**"]
[network]
allow = ["api.openai.com", "*.example.com:8443"]
"""
    )
    assert config.name == "my-crew"
    assert config.build.model_dump() == {
        "exclude": ["*.csv"],
        "smoke": False,
        "apt": ["libpq5", "g++"],
        "extras": ["web"],
        "requirements": "writer/requirements.txt",
    }
    assert config.run.model_dump() == {
        "timeout_seconds": 60,
        "memory": "512m",
        "cpus": 2.0,
        "pids": 64,
        "concurrency": 2,
        "queue_timeout_seconds": 90,
        "disk": "2g",
        "log": "100k",
        "retries": 2,
        "warm": 1,
        "artifacts": ["report.md", "out/**"],
    }
    assert config.network.model_dump() == {"mode": "allow", "allow": ["api.openai.com", "*.example.com:8443"]}
    assert DeploymentConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_stored_config_may_be_newer_than_its_reader() -> None:
    stored = load(MINIMAL).model_dump(mode="json") | {"later": 1}
    stored["run"]["later"] = True
    assert DeploymentConfig.model_validate(stored).entrypoint == "crew:kickoff"


def test_named_deployments_share_tables_and_override_them_key_by_key() -> None:
    assert deployment_names(MONOREPO) == ["web-scraper", "reddit_miner"]
    scraper = load(MONOREPO, "web-scraper")
    assert (scraper.name, scraper.run.memory, scraper.run.pids) == ("web-scraper", "2g", 100)
    assert scraper.build.exclude == ["tests", "notebooks"]
    miner = load(MONOREPO, "reddit-miner")
    assert (miner.name, miner.run.memory, miner.framework) == ("reddit-miner", "1g", "langgraph")
    assert load(MONOREPO, "reddit_miner") == miner


def test_one_named_deployment_alone_is_taken() -> None:
    assert load('[deployments.only]\nframework = "python"\nentrypoint = "a:b"').name == "only"


def test_bytes_with_a_byte_order_mark_and_crlf_are_read() -> None:
    assert load(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()).framework == "python"
    assert load("\ufeff" + MINIMAL).framework == "python"


MISTAKES = {
    "empty": ("", "has no [deployment]", "crewship init"),
    "both": (
        MINIMAL + '[deployments.x]\nframework = "python"',
        "both [deployment] and [deployments.<name>]",
        "Keep [deployment]",
    ),
    "several": (MONOREPO, "several deployments: web-scraper, reddit_miner", "-n web-scraper"),
    "no framework": ('[deployment]\nentrypoint = "a:b"', "[deployment] has no framework", "crewship init"),
    "no entrypoint": ('[deployment]\nframework = "python"', "[deployment] has no entrypoint", "module.path:attribute"),
    "unknown key": (MINIMAL + 'framwork = "x"', "line 4, [deployment] framwork: unknown key 'framwork'", "framework"),
    "unknown table": ("[deploymnt]\n" + MINIMAL, "line 1, deploymnt: unknown table 'deploymnt'", "deployment"),
    "unknown option": (
        MINIMAL + "[run]\n\ntimeout = 5",
        "line 6, [run] timeout: unknown key 'timeout'",
        "timeout_seconds",
    ),
    "another table's": (
        MINIMAL + 'memory = "1g"',
        "line 4, [deployment] memory: unknown key",
        "memory belongs in [run]",
    ),
    "in a named one": ("[deployments.x]\nfoo = 1", "line 2, [deployments.x] foo: unknown key", "Known here"),
    "no such framework": (
        MINIMAL.replace("python", "crew-ai"),
        "line 2, [deployment] framework: 'crew-ai' is not",
        "crewai",
    ),
    "number as string": (
        MINIMAL + '[run]\ntimeout_seconds = "60"',
        "line 5, [run] timeout_seconds",
        "timeout_seconds = 60",
    ),
    "string as number": (
        MINIMAL.replace('"crew:kickoff"', "5"),
        "entrypoint is a string, not a number",
        'entrypoint = "text"',
    ),
    "string as list": (
        MINIMAL + '[build]\nexclude = "tests"',
        "exclude is a list of strings, not a string",
        'exclude = ["first", "second"]',
    ),
    "table as string": (
        MINIMAL.replace("[deployment]", 'run = "x"\n[deployment]'),
        "run is a table, not a string",
        "[run]",
    ),
    "a float version": (MINIMAL + "python = 3.11", "3.11 is not a Python version", 'python = "3.11"'),
    "a patch version": (MINIMAL + 'python = "3.11.7"', "'3.11.7' is not a Python version", 'python = "3.11"'),
    "no colon": (
        MINIMAL.replace("crew:kickoff", "pkg.crew.MyCrew"),
        "'pkg.crew.MyCrew' is not an entrypoint",
        "pkg.crew:MyCrew",
    ),
    "a path": (
        MINIMAL.replace("crew:kickoff", "src/crew.py:run"),
        "'src/crew.py:run' is not an entrypoint",
        "src.crew:run",
    ),
    "empty attribute": (
        MINIMAL.replace("crew:kickoff", "crew:"),
        "'crew:' is not an entrypoint",
        "module.path:attribute",
    ),
    "a keyword": (MINIMAL.replace("crew:kickoff", "crew.class:x"), "is not an entrypoint", "module.path:attribute"),
    "memory": (MINIMAL + '[run]\nmemory = "lots"', "line 5, [run] memory: 'lots' is not a size", '"512m"'),
    "memory number": (MINIMAL + "[run]\nmemory = 512", "512 is not a size", '"512m"'),
    "memory too small": (MINIMAL + '[run]\nmemory = "1k"', "'1k' is less than 32 MiB", '"512m"'),
    "zero": (
        MINIMAL + "[run]\ntimeout_seconds = 0",
        "line 5, [run] timeout_seconds: 0 will not do",
        "Leave timeout_seconds out",
    ),
    "disk too small": (MINIMAL + '[run]\ndisk = "1m"', "line 5, [run] disk: '1m' is less than 16 MiB", 'disk = "512m"'),
    "log": (MINIMAL + "[run]\nlog = 9", "line 5, [run] log: 9 is not a size", 'log = "512m"'),
    "retries": (MINIMAL + "[run]\nretries = 11", "line 5, [run] retries: 11 will not do", None),
    "glob": (MINIMAL + '[run]\nartifacts = ["../x"]', "'../x' is not a glob inside the project", "relative"),
    "apt option": (MINIMAL + '[build]\napt = ["-o=x"]', "'-o=x' is not the name of a Debian package", "libpq5"),
    "host": (MINIMAL + '[network]\nallow = ["https://x.y/"]', "'https://x.y/' is not a host", "without scheme"),
    "host path": (MINIMAL + '[network]\nallow = ["x.y/z"]', "'x.y/z' is not a host: it has a path", "without scheme"),
    "host star": (MINIMAL + '[network]\nallow = ["*"]', "'*' is not a host: an open network needs no list", "without"),
    "host stars": (MINIMAL + '[network]\nallow = ["a.*.b"]', "the star stands before the first dot", "without"),
    "host address": (MINIMAL + '[network]\nallow = ["10.0.0.5:80"]', "an address is no name", "without"),
    "host address6": (MINIMAL + '[network]\nallow = ["::1"]', "an address is no name", "without"),
    "host port": (MINIMAL + '[network]\nallow = ["x.y:70000"]', "'70000' is not a port", "without"),
    "host no port": (MINIMAL + '[network]\nallow = ["x.y:"]', "'' is not a port", "without"),
    "host letters": (MINIMAL + '[network]\nallow = ["b\u00fccher.example"]', "letters, digits", "without"),
    "mode": (MINIMAL + '[network]\nmode = "none"\nallow = ["x.y"]', "does not go with a list", "Leave mode out"),
    "allow nothing": (MINIMAL + '[network]\nmode = "allow"', "needs the hosts", "none"),
    "project name": (
        MINIMAL + "[project]\nname = 5",
        "line 5, [project] name: a project's name is a string",
        "my-crew",
    ),
    "project name empty": (MINIMAL + '[project]\nname = "--"', "cannot be a project's name", "[project] name"),
    "project name long": (MINIMAL + f'[project]\nname = "{"x" * 64}"', "longer than 63", "[project] name"),
    "same project": ("[deployments.a_b]\n[deployments.a-b]", "'a_b' and 'a-b' would be the same project", "Rename"),
    "bare word": ("[deployment]\nframework = crewai\n", "line 2, column 13: not TOML", 'framework = "crewai"'),
    "unclosed": ("[deployment\n", "line 1", "A line is a [table]"),
    "cut off": ('a = """', "line 1: not TOML", "A line is a [table]"),
    "twice": (MINIMAL + "[deployment]\n", "line 4", "A line is"),
    "deep": ("a = " + "[" * 100_000, "not TOML|nested too deeply", None),
    "a long number": ("a = " + "1" * 5000, "not TOML", None),
    "own table": ("[deployments.x]\nrun = 1\n", "line 2, [deployments.x] run: run is a table", "[deployments.x.run]"),
    "own option": (
        MONOREPO.replace('"2g"', "2").partition("[deployments.reddit")[0],
        "line 14, [deployments.web-scraper.run] memory",
        "512m",
    ),
    "shared option": (MONOREPO.replace("100", '"100"').partition("[deployments.reddit")[0], "line 6, [run] pids", None),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named_with_its_place_and_a_hint(case: str) -> None:
    text, detail, hint = MISTAKES[case]
    with pytest.raises(InvalidConfig) as caught:
        load(text)
    assert any(part in caught.value.detail for part in detail.split("|")), caught.value.detail
    assert "crewship.toml" in caught.value.detail or "project" in caught.value.detail
    if hint is not None:
        assert hint in (caught.value.hint or ""), caught.value.hint


def test_all_unknown_keys_are_named_at_once() -> None:
    text = MINIMAL.replace("framework", "framwork") + '[rum]\nmemory = "1g"\n[build]\nignore = []\n'
    with pytest.raises(InvalidConfig) as caught:
        load(text)
    assert caught.value.detail.splitlines() == [
        "crewship.toml, line 4, rum: unknown table 'rum'.",
        "crewship.toml, line 2, [deployment] framwork: unknown key 'framwork'.",
        "crewship.toml, line 7, [build] ignore: unknown key 'ignore'.",
    ]
    assert (caught.value.hint or "").splitlines() == [
        "rum: Did you mean run?",
        "framwork: Did you mean framework?",
        "ignore: Known here: exclude, smoke, apt, extras, requirements.",
    ]
    with pytest.raises(InvalidConfig) as caught:
        load("".join(f"key{number} = 1\n" for number in range(10_000)))
    assert len(caught.value.detail.splitlines()) == 20


def test_a_name_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(MONOREPO, "web-scrapper")
    assert "it has web-scraper, reddit_miner" in caught.value.detail
    assert caught.value.hint == "Did you mean web-scraper?"
    with pytest.raises(InvalidConfig, match="none that is called 'x'"):
        load(MINIMAL, "x")


def test_bytes_that_are_not_utf8_are_named_by_line() -> None:
    with pytest.raises(InvalidConfig, match=r"crewship\.toml, line 2: not UTF-8"):
        load(b"[deployment]\nframework = '\xff'")


@given(st.text())
def test_any_text_is_a_config_or_a_clear_error(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(text)
    assert caught.value.detail.endswith(".")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "1g", "a:b"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    ),
    st.sampled_from(["framework", "entrypoint", "python", "profile", "run", "build", "network"]),
)
def test_any_value_of_a_known_key_is_accepted_or_a_clear_error(value: object, key: str) -> None:
    def toml(value: object) -> str:
        match value:
            case None:
                return "2026-01-31"
            case bool():
                return str(value).lower()
            case int():
                return str(value)
            case str():
                return f'"{value}"'
            case list():
                return f"[{', '.join(map(toml, value))}]"
            case dict():
                return f"{{{', '.join(f'{key} = {toml(item)}' for key, item in value.items())}}}"
        raise AssertionError

    lines = {"framework": '"python"', "entrypoint": '"a:b"', key: toml(value)}
    text = "[deployments.x]\n" + "".join(f"{name} = {item}\n" for name, item in lines.items())
    # Nothing else may come out than this one error.
    with contextlib.suppress(InvalidConfig):
        assert load(text).name == "x"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("64 MB", 64 << 20),
        ("33554432", 32 << 20),
        ("65536K", 64 << 20),
    ],
)
def test_sizes(size: str, expected: int) -> None:
    assert size_bytes(size) == expected


@pytest.mark.parametrize("size", ["", "m", "-1g", "1x", "1e9", "٣g"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes(size)


@pytest.mark.parametrize("size", ["31m", "0g"])
def test_what_is_too_little_memory(size: str) -> None:
    with pytest.raises(ValueError, match="is less than"):
        RunConfig(memory=size)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("research-crew", "research-crew"),
        ("My_Crew", "my-crew"),
        ("  a..b  ", "a-b"),
        ("Zoë 2", "zo-2"),
        ("x" * 63, "x" * 63),
    ],
)
def test_names_are_normalized(raw: str, name: str) -> None:
    assert normalized_name(raw) == name


class TestProjectName:
    def test_the_order_of_the_files(self, tmp_path: Path) -> None:
        folder = tmp_path / "Lead Miner"
        folder.mkdir()
        assert project_name(folder) == "lead-miner"
        (folder / "pyproject.toml").write_text('[tool.poetry]\nname = "poetic"\n')
        assert project_name(folder) == "poetic"
        (folder / "pyproject.toml").write_text('[project]\nname = "lead_miner2"\n[tool.poetry]\nname = "poetic"\n')
        assert project_name(folder) == "lead-miner2"
        (folder / "crewship.toml").write_text(MINIMAL)
        assert project_name(folder) == "lead-miner2"
        (folder / "crewship.toml").write_text(MINIMAL + '[project]\nname = "leads"')
        assert project_name(folder) == "leads"

    def test_of_named_deployments(self, tmp_path: Path) -> None:
        (tmp_path / "crewship.toml").write_text(MONOREPO)
        assert project_name(tmp_path, "reddit_miner") == "reddit-miner"
        with pytest.raises(InvalidConfig, match="several deployments"):
            project_name(tmp_path)

    def test_a_folder_without_a_usable_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "プロジェクト"
        folder.mkdir()
        with pytest.raises(InvalidConfig) as caught:
            project_name(folder)
        assert "[project] name" in (caught.value.hint or "")

    def test_a_broken_pyproject_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[project")
        with pytest.raises(InvalidConfig, match=r"pyproject\.toml, line 1"):
            project_name(tmp_path)

    def test_pyproject_with_odd_values(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text('project = 1\ntool = "x"\n')
        assert project_name(tmp_path) == normalized_name(tmp_path.name)


@pytest.mark.parametrize(
    "path",
    ["../requirements.txt", "/etc/requirements.txt", "a//r.txt", "./r.txt", "", "a\\\\r.txt", "writer", "setup.py"],
)
def test_a_file_of_requirements_is_one_of_the_project(path: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(f'{MINIMAL}[build]\nrequirements = "{path}"\n')
    assert "[build] requirements" in caught.value.detail
    assert "requirements" in (caught.value.hint or "")


def test_each_deployment_may_have_requirements_of_its_own() -> None:
    text = "".join(
        f'[deployments.{name}]\nframework = "python"\nentrypoint = "{name}.crew:kickoff"\n'
        f'[deployments.{name}.build]\nrequirements = "{name}/requirements.txt"\n'
        for name in ("reader", "writer")
    )
    text += '[build]\napt = ["libpq5"]\n'
    for name in ("reader", "writer"):
        build = load(text, name).build
        assert (build.requirements, build.apt) == (f"{name}/requirements.txt", ["libpq5"])
