"""Which files decide what is installed."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from crewship.builds import BuildFailed
from crewship.dependencies import Dependencies, find

EVERYTHING = ("a/b.py", "crew.py")


def look(folder: Path, files: Mapping[str, str], chosen: str | None = None) -> Dependencies:
    for name, content in {"crew.py": "", "a/b.py": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return find(folder, chosen)


@pytest.mark.parametrize(
    ("files", "file", "names"),
    [
        ({}, None, ()),
        ({"requirements.txt": "httpx\n"}, "requirements.txt", ("requirements.txt",)),
        (
            {"requirements.txt": "-r base.txt\n--constraint=c/c.txt # x\n", "base.txt": "-r requirements.txt\n", "c/c.txt": ""},
            "requirements.txt",
            ("base.txt", "c/c.txt", "requirements.txt"),
        ),
        (
            {"requirements.txt": "httpx\n", "pyproject.toml": '[project]\nname = "x"\n'},
            "requirements.txt",
            ("requirements.txt",),
        ),
        ({"pyproject.toml": "[tool.ruff]\n"}, None, ()),
        ({"pyproject.toml": '[project]\nname = "x"\n'}, "pyproject.toml", ("pyproject.toml",)),
        (
            {"pyproject.toml": '[project]\nname = "x"\n', "uv.toml": ""},
            "pyproject.toml",
            ("pyproject.toml", "uv.toml"),
        ),
        (
            {"pyproject.toml": '[project]\nname = "x"\ndynamic = ["version"]\ndependencies = []\n'},
            "pyproject.toml",
            ("pyproject.toml",),
        ),
    ],
)  # fmt: skip
def test_files_that_decide(tmp_path: Path, files: dict[str, str], file: str | None, names: tuple[str, ...]) -> None:
    found = look(tmp_path, files)
    assert (found.file, found.names) == (file, names)


@pytest.mark.parametrize("requirement", [".", "./a", "-e .", "--editable=.", "a/", "x @ file:./a", "x @ ./a", ".[web]"])
def test_a_path_makes_the_whole_source_decide(tmp_path: Path, requirement: str) -> None:
    found = look(tmp_path, {"requirements.txt": f"httpx\n{requirement}\n"})
    assert found.names == (*EVERYTHING, "requirements.txt")


@pytest.mark.parametrize(
    "pyproject",
    [
        '[project]\nname = "x"\ndynamic = ["dependencies"]\n',
        '[tool.poetry.dependencies]\nhttpx = "*"\ny = {path = "a"}\n',
        '[project]\nname = "x"\ndependencies = ["y"]\n[tool.uv.sources]\ny = { path = "a" }\n',
    ],
)
def test_what_a_build_backend_computes_depends_on_the_whole_source(tmp_path: Path, pyproject: str) -> None:
    assert look(tmp_path, {"pyproject.toml": pyproject}).names == (*EVERYTHING, "pyproject.toml")


@pytest.mark.parametrize(
    "requirement", ["httpx>=0.27 # . ./a", "x[extra]~=1.0 ; python_version < '4'", "git+https://h/a.git", "a"]
)
def test_ordinary_requirements_are_no_paths(tmp_path: Path, requirement: str) -> None:
    assert look(tmp_path, {"requirements.txt": f"{requirement}\n"}).names == ("requirements.txt",)


@pytest.mark.parametrize(
    ("requirements", "word"),
    [
        ("-r missing.txt", "no such file"),
        ("-c ../outside.txt", "outside the project"),
        ("../shared", "outside the project"),
        ("-e ../shared", "outside the project"),
        ("shared @ file:///home/me/shared", "outside the project"),
        ("/home/me/wheel.whl", "outside the project"),
        ("./not-there", "no such file"),
    ],
)
def test_what_is_not_among_the_upload_is_named_with_its_line(tmp_path: Path, requirements: str, word: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        look(tmp_path, {"requirements.txt": f"httpx\n{requirements}\n"})
    assert caught.value.code == "dependency_resolution"
    assert caught.value.message.startswith(f"requirements.txt, line 2: {requirements}: ")
    assert word in caught.value.message
    assert caught.value.hint


PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["httpx"]\n'


@pytest.mark.parametrize(
    ("files", "file", "names"),
    [
        ({"pyproject.toml": PROJECT, "uv.lock": "version = 1\n"}, "uv.lock", ("pyproject.toml", "uv.lock")),
        ({"pyproject.toml": PROJECT, "poetry.lock": ""}, "poetry.lock", ("poetry.lock", "pyproject.toml")),
        ({"pyproject.toml": PROJECT, "uv.lock": "", "pylock.toml": ""}, "pylock.toml", ("pylock.toml",)),
        ({"requirements.txt": "", "uv.lock": ""}, "requirements.txt", ("requirements.txt",)),
        (
            {"pyproject.toml": PROJECT, "uv.lock": '[[package]]\nname = "x"\nsource = { editable = "." }\n'},
            "uv.lock",
            ("pyproject.toml", "uv.lock"),
        ),
        (
            {"pyproject.toml": PROJECT, "uv.lock": '[[package]]\nname = "y"\nsource = { directory = "a" }\n'},
            "uv.lock",
            (*EVERYTHING, "pyproject.toml", "uv.lock"),
        ),
        (
            {"pylock.toml": '[[packages]]\nname = "y"\ndirectory = { path = "a" }\n'},
            "pylock.toml",
            (*EVERYTHING, "pylock.toml"),
        ),
    ],
)
def test_a_lock_goes_before_what_it_was_made_from(
    tmp_path: Path, files: dict[str, str], file: str, names: tuple[str, ...]
) -> None:
    found = look(tmp_path, files)
    assert (found.file, found.names) == (file, names)


def test_a_requirements_file_that_a_lock_overrides_is_named(tmp_path: Path) -> None:
    found = look(tmp_path, {"pyproject.toml": PROJECT, "uv.lock": "", "requirements.txt": "httpx\n"})
    assert found.notes == ("uv.lock decides what is installed; requirements.txt is not looked at",)


@pytest.mark.parametrize(
    ("files", "uses_git"),
    [
        ({"requirements.txt": "git+https://h/a.git\n"}, True),
        ({"requirements.txt": "digit==1\n"}, False),
        ({"pyproject.toml": PROJECT + '[tool.uv.sources]\nhttpx = { git = "https://h/a" }\n'}, True),
    ],
)
def test_whether_git_is_needed(tmp_path: Path, files: dict[str, str], uses_git: bool) -> None:
    assert look(tmp_path, files).uses_git is uses_git


def test_poetrys_own_notation(tmp_path: Path) -> None:
    found = look(tmp_path, {"pyproject.toml": '[tool.poetry.dependencies]\nhttpx = "*"\n'})
    assert (found.file, found.names, found.is_poetrys) == ("pyproject.toml", ("pyproject.toml",), True)
    both = look(tmp_path, {"pyproject.toml": PROJECT + '[tool.poetry.dependencies]\nhttpx = {source = "x"}\n'})
    assert not both.is_poetrys


def test_poetrys_python(tmp_path: Path) -> None:
    pyproject = '[build-system]\nrequires = ["poetry-core"]\n[tool.poetry.dependencies]\npython = "^3.10"\n'
    assert look(tmp_path, {"pyproject.toml": pyproject}).requires_python == ">=3.10,<4"


def test_python(tmp_path: Path) -> None:
    found = look(
        tmp_path,
        {"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.10,<3.14"\n', ".python-version": "3.12.4\n"},
    )
    assert (found.requires_python, found.python) == (">=3.10,<3.14", "3.12")


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate(
        [{}, {"requirements.txt": ""}, {"requirements.txt": "a\n"}, {"requirements.txt": "-r b\n", "b": "a"}]
    ):
        folder = tmp_path / str(number)
        digests.add(look(folder, files).digest(folder))
        (folder / "crew.py").write_text("changed")
        digests.add(find(folder).digest(folder))
    assert len(digests) == 4


def test_what_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        look(tmp_path, {"pyproject.toml": "[project\n"})
    assert caught.value.code == "dependency_resolution"
    assert "pyproject.toml" in caught.value.message


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("writer/requirements.txt", ("base.txt", "writer/more.txt", "writer/requirements.txt")),
        ("writer/dev.in", ("writer/dev.in",)),
        ("writer/pyproject.toml", ("uv.toml", "writer/pyproject.toml")),
        ("writer/uv.lock", ("uv.toml", "writer/pyproject.toml", "writer/uv.lock")),
    ],
)
def test_a_file_that_is_chosen(tmp_path: Path, chosen: str, names: tuple[str, ...]) -> None:
    files = {
        "requirements.txt": "six\n",
        "base.txt": "httpx\n",
        "writer/requirements.txt": "-r more.txt\n-r ../base.txt\n",
        "writer/more.txt": "idna\n",
        "writer/dev.in": "idna\n",
        "writer/.python-version": "3.12\n",
        ".python-version": "3.11\n",
    }
    if "requirements" not in chosen and "dev" not in chosen:
        files |= {"uv.toml": "", "writer/uv.lock": "version = 1\n"}
        files["writer/pyproject.toml"] = '[project]\nname = "w"\nrequires-python = ">=3.10"\ndependencies = []\n'
    found = look(tmp_path, files, chosen)
    assert found.names == names
    assert found.path == chosen
    assert (found.place, found.python) == ("writer/", "3.12")
    assert found.requires_python == (">=3.10" if "writer/pyproject.toml" in names else None)


def test_a_chosen_file_with_a_path_beside_it_makes_the_whole_source_decide(tmp_path: Path) -> None:
    found = look(tmp_path, {"writer/requirements.txt": "../a\n"}, "writer/requirements.txt")
    assert found.names == (*EVERYTHING, "writer/requirements.txt")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [("writer/requirements.txt", "[build] requirements"), ("uv.lock", "uv.lock goes with a pyproject.toml beside it")],
)
def test_a_chosen_file_that_is_not_there(tmp_path: Path, chosen: str, words: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        look(tmp_path, {"uv.lock": "version = 1\n"}, chosen)
    assert caught.value.code == "dependency_resolution"
    assert words in caught.value.message
    assert "no such file" in caught.value.message
