"""The pages are held to the product: links lead somewhere, commands exist, every key of crewship.toml is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from crewship.config import DeploymentConfig, load
from crewship.config_file import KEYS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
# What is typed stands in an indented or fenced block, perhaps after a prompt, or in backticks.
TYPED = re.compile(r"(?:^(?: {4}\s*|\$ )|`)(?:\S*/)?crewship (?P<arguments>[^`\n]+)", re.MULTILINE)
SHELL_COMMENT = re.compile(r"\s#\s.*$")


def pages() -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", pages())
def test_commands_and_their_options_exist(page: Path) -> None:
    for arguments in typed(page):
        command, rest = find(arguments)
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.split("=")[0] for word in rest if re.fullmatch(r"--?[a-z].*", word)}
        assert used <= options | {"--url", "--api-key", "--help", "--version"}, f"crewship {shlex.join(arguments)}"


def typed(page: Path) -> Iterator[list[str]]:
    """The arguments of every crewship command that the page shows."""
    for match in TYPED.finditer(page.read_text()):
        try:
            words = shlex.split(SHELL_COMMENT.sub("", match["arguments"]))
        except ValueError as error:
            raise AssertionError(f"crewship {match['arguments']}: {error}") from None
        until = next((place for place, word in enumerate(words) if word in {"|", ">", "&&", ";"}), len(words))
        yield words[:until]


def find(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that ``arguments`` name, and what is left for it."""
    from cli.main import app

    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"crewship {shlex.join(arguments)}: there is no {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def test_every_key_of_crewship_toml_is_described() -> None:
    page = (ROOT / "docs" / "guides" / "configuration.md").read_text()
    sections = dict(re.findall(r"^### `\[(\w+)\]`[^\n]*\n(.*?)(?=^##)", page, re.MULTILINE | re.DOTALL))
    described = {table: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) for table, text in sections.items()}
    assert described == KEYS


def test_the_shown_crewship_toml_is_valid() -> None:
    page = (ROOT / "docs" / "guides" / "configuration.md").read_text()
    shown = re.search(r"^    \[project\]\n(?:    .*\n|\n)+", page, re.MULTILINE)
    assert shown is not None
    assert isinstance(load(re.sub(r"^    ", "", shown[0], flags=re.MULTILINE)), DeploymentConfig)
