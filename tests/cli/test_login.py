import json
from typing import Any

import pytest

from cli.credentials import read_login
from tests.cli.platform import KEY, Platform


@pytest.fixture
def address(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("CREWSHIP_URL")
    monkeypatch.delenv("CREWSHIP_API_KEY")
    return platform.url


def test_login_stores_a_key_that_works(crewship: Any, address: str) -> None:
    result = crewship("login", address, input=f"{KEY}\n")
    assert result.exit_code == 0
    assert read_login() == (address, KEY)
    assert KEY not in result.output
    assert crewship("runs", "list").exit_code == 0


def test_a_key_that_does_not_work_is_not_stored(crewship: Any, address: str) -> None:
    assert crewship("login", "--url", address, "--api-key", "wrong").exit_code == 3
    assert read_login() is None


@pytest.mark.parametrize(
    ("arguments", "error"), [([], "needs the platform's address"), (["http://x"], "needs an API key")]
)
def test_what_is_missing(crewship: Any, address: str, arguments: list[str], error: str) -> None:
    result = crewship("login", *arguments)
    assert result.exit_code == 2
    assert error in result.stderr


def test_whoami(crewship: Any, address: str) -> None:
    assert crewship("whoami").exit_code == 6
    crewship("login", address, input=KEY)
    shown = json.loads(crewship("whoami", "--json").stdout)
    key = shown.pop("key")
    assert shown == {"url": address, "source": "crewship login", "api_key": "crewship_0123…"}
    assert key["scopes"] == ["admin"]
    output = crewship("whoami").output
    assert "admin in all projects" in output
    assert "never expires" in output
    assert KEY not in output


def test_logout(crewship: Any, address: str) -> None:
    crewship("login", address, input=KEY)
    assert "Logged out" in crewship("logout").stderr
    assert "There was no login" in crewship("logout").stderr
    assert crewship("runs", "list").exit_code == 6
