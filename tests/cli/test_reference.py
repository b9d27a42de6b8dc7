from typing import Any

import pytest

from cli.reference import PATH, render


def test_the_page_is_current() -> None:
    assert PATH.read_text(encoding="utf-8") == render(), "run: python -m cli.reference"


def test_no_line_of_the_lists_of_commands_is_cut_in_80_columns(crewship: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ([], ["runs"], ["deployments"], ["env"], ["projects"]):
        shown = crewship(*group, "--help").stdout
        assert "\nCommands:\n" in shown
        assert "..." not in shown.partition("\nCommands:\n")[2], group
