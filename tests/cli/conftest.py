from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.cli.platform import KEY, Platform


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes this machine's login, or finds a platform that runs here."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name, folder in (("CONFIG", "config"), ("STATE", "state"), ("DATA", "data"), ("CACHE", "cache")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / folder))
    for name in ("CREWSHIP_URL", "CREWSHIP_API_KEY", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server() -> Iterator[Platform]:
    """The fake platform's server, one for all tests."""
    platform = Platform()
    platform.start()
    yield platform
    platform.stop()


@pytest.fixture
def platform(server: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A fake platform without content that the CLI finds by the environment."""
    monkeypatch.setenv("CREWSHIP_URL", server.url)
    monkeypatch.setenv("CREWSHIP_API_KEY", KEY)
    yield server
    server.clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project that is the working directory."""
    folder = tmp_path / "research-crew"
    folder.mkdir()
    (folder / "main.py").write_text("def kickoff(inputs: dict):\n    return inputs\n")
    (folder / "crewship.toml").write_text('[deployment]\nframework = "python"\nentrypoint = "main:kickoff"\n')
    monkeypatch.chdir(folder)
    return folder


Crewship = Callable[..., Result]


@pytest.fixture
def crewship() -> Crewship:
    """Runs a command in this process: ``crewship("runs", "list", input=...)``."""
    from cli.main import app

    return lambda *arguments, input=None: CliRunner().invoke(app, list(arguments), input=input)
