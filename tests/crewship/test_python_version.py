"""Which Python a project gets: crewship.toml, requires-python, .python-version, in this order."""

import pytest

from crewship.builds import BuildFailed
from crewship.python_version import allowed_minors, choose_python, poetry_range


@pytest.mark.parametrize(
    ("configured", "requires", "pinned", "version", "note"),
    [
        (None, None, None, None, None),
        ("3.12", None, None, "3.12", None),
        ("3.11", ">=3.10", "3.12", "3.11", ".python-version says 3.12; Python 3.11 is taken"),
        (None, ">=3.10,<3.14", None, None, None),
        (None, ">=3.12", None, "3.12", None),
        (None, "<3.11", None, "3.10", None),
        (None, ">=3.10,<3.14", "3.12", "3.12", None),
        (None, ">=3.12", "3.10", "3.12", "not followed"),
        (None, "~=3.11.4", "3.12", None, "not followed"),
        (None, None, "3.13", "3.13", None),
        (
            "3.7",
            None,
            "3.12",
            "3.7",
            ".python-version says 3.12; Python 3.7 is taken",
        ),  # whether there is one, the base images tell
        (None, None, "3.7", "3.7", None),
    ],
)
def test_the_order(
    configured: str | None, requires: str | None, pinned: str | None, version: str | None, note: str | None
) -> None:
    found = choose_python(configured, requires, pinned)
    assert found.version == version
    assert (found.note is None) if note is None else (note in (found.note or ""))
    assert bool(found.source) == (version is not None)


@pytest.mark.parametrize(
    ("configured", "requires", "words"),
    [
        ("3.10", ">=3.11", ('python = "3.10"', 'requires-python = ">=3.11"', 'python = "3.11"')),
        ("3.13", ">=3.9,<3.13", ('python = "3.13"', "<3.13", 'python = "3.11"')),
        (None, ">=4", ("No release", ">=4", ">=3.10,<3.14")),
        (None, "three", ("three", "not a range", ">=3.10,<3.14")),
    ],
)
def test_a_conflict_names_both_sides_and_the_way_out(configured: str | None, requires: str, words: tuple[str]) -> None:
    with pytest.raises(BuildFailed) as caught:
        choose_python(configured, requires, None)
    assert caught.value.code == "python_version"
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"


def test_a_range_of_patch_releases_allows_its_minor() -> None:
    assert allowed_minors(">=3.11.5,<3.12") == ["3.11"]
    assert allowed_minors("==3.11.*") == ["3.11"]


@pytest.mark.parametrize(
    ("constraint", "range_"),
    [
        ("^3.10", ">=3.10,<4"),
        ("~3.11", ">=3.11,<3.12"),
        ("^3.10.2", ">=3.10.2,<4"),
        (">=3.10,<4.0", ">=3.10,<4.0"),
        (">=3.10 <3.13", ">=3.10,<3.13"),
        ("3.11", "==3.11.*"),
        ("^3.10 || ^3.12", None),
    ],
)
def test_poetrys_ranges(constraint: str, range_: str | None) -> None:
    assert poetry_range(constraint) == range_
