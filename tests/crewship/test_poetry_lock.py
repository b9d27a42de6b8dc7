"""``poetry.lock`` as constraints."""

import tomllib

import pytest
from packaging.requirements import Requirement

from crewship.builds import BuildFailed
from crewship.poetry_lock import constraints

HASH = "sha256:" + "a" * 64


def said(text: str) -> tuple[list[str], list[str]]:
    lines, unsaid = constraints(tomllib.loads(text))
    for line in lines.splitlines():
        Requirement(line.partition(" --hash")[0])  # a form that installers read
    return lines.splitlines(), unsaid


def test_each_package_is_pinned_with_its_hashes() -> None:
    lock = f"""
[[package]]
name = "Idna"
version = "3.10"
files = [{{file = "idna.whl", hash = "{HASH}"}}, {{file = "x", hash = "md5:1"}}]
[[package]]
name = "attrs"
version = "24.1"
optional = true
markers = "python_version < '3.12'"
"""
    assert said(lock) == (["attrs==24.1 ; python_version < '3.12'", f"idna==3.10 --hash={HASH}"], [])


def test_several_versions_of_one_package() -> None:
    two = """
[[package]]
name = "numpy"
version = "1.26"
{}
[[package]]
name = "numpy"
version = "2.1"
{}
"""
    assert said(two.format("", "")) == ([], ["numpy"])
    markers = """markers = "python_version < '3.10'" """, """markers = {main = "python_version >= '3.10'"}"""
    assert said(two.format(*markers)) == (
        ["numpy==1.26 ; python_version < '3.10'", "numpy==2.1 ; python_version >= '3.10'"],
        [],
    )


def test_packages_that_no_index_has() -> None:
    lock = """
[[package]]
name = "a"
version = "1"
source = {type = "git", url = "https://h/a.git", reference = "main", resolved_reference = "0123abc"}
[[package]]
name = "b"
version = "1"
source = {type = "url", url = "https://h/b-1.tar.gz"}
[[package]]
name = "c"
version = "1"
source = {type = "directory", url = "lib/c"}
"""
    assert said(lock)[0] == ["a @ git+https://h/a.git@0123abc", "b @ https://h/b-1.tar.gz"]


@pytest.mark.parametrize(
    "lock",
    [
        'package = "x"',
        '[[package]]\nname = "x"',
        '[[package]]\nname = "x y"\nversion = "1"',
        '[[package]]\nname = "x"\nversion = "1 --index-url http://evil"',
        '[[package]]\nname = "x"\nversion = "1"\nmarkers = "a\\n--index-url http://evil"',
    ],
)
def test_what_is_no_lock(lock: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        constraints(tomllib.loads(lock))
    assert "poetry.lock" in caught.value.message
    assert caught.value.hint
