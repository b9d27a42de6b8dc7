from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A fake platform that the CLI finds by the environment."""
    platform = Platform()
    platform.start()
    monkeypatch.setenv("CREWSHIP_URL", platform.url)
    monkeypatch.setenv("CREWSHIP_API_KEY", KEY)
    yield platform
    platform.stop()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project that is the working directory."""
    folder = tmp_path / "research-crew"
    folder.mkdir()
    (folder / "main.py").write_text("def kickoff(inputs: dict):\n    return inputs\n")
    (folder / "crewship.toml").write_text('[deployment]\nframework = "python"\nentrypoint = "main:kickoff"\n')
    monkeypatch.chdir(folder)
    return folder
