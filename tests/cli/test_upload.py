"""What is large goes up in parts, and goes on where it was."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cli import upload
from tests.cli.platform import Platform
from tests.fixtures.cutting import cutting


@pytest.fixture
def large(project: Path) -> Path:
    """A project of eight parts and a rest."""
    (project / "model.bin").write_bytes(os.urandom(8_300_000))
    return project


def port(platform: Platform) -> int:
    return urlsplit(platform.url).port or 0


def test_a_large_source_goes_in_parts(crewship: Any, platform: Platform, large: Path) -> None:
    result = crewship("deploy")
    assert result.exit_code == 0, result.stderr
    assert platform.puts == list(range(9))
    assert "going on" not in result.stderr
    (upload_,) = platform.uploads
    assert len(upload_[1]) > 8_300_000
    assert crewship("deploy").exit_code == 0  # what was sent is known
    assert platform.puts == list(range(9))


def test_a_small_one_goes_whole(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deploy").exit_code == 0
    assert platform.puts == []
    assert not [path for _, path, _ in platform.requests if "/uploads" in path]


def test_after_a_cut_only_the_part_that_broke_is_sent_again(
    crewship: Any, platform: Platform, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cutting(port(platform), 2_500_000, 5_000_000) as cutter:
        monkeypatch.setenv("CREWSHIP_URL", cutter.url)
        result = crewship("deploy")
    assert result.exit_code == 0, result.stderr
    assert cutter.cut == 2
    assert sorted(platform.puts) == list(range(9))
    assert result.stderr.count("the upload goes on when it is back") == 2
    assert cutter.sent_bytes < 8_300_000 + 2 * platform.part_bytes + 100_000


def test_the_next_deploy_goes_on(
    crewship: Any, platform: Platform, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_PATIENCE_SECONDS", 0.0)
    with cutting(port(platform), 3_500_000) as cutter:
        monkeypatch.setenv("CREWSHIP_URL", cutter.url)
        broken = crewship("deploy")
    assert broken.exit_code == 6
    assert "the next crewship deploy goes on where this one stopped" in broken.stderr
    assert platform.uploads == []
    before = list(platform.puts)
    assert before == [0, 1, 2]
    monkeypatch.setenv("CREWSHIP_URL", platform.url)
    result = crewship("deploy")
    assert result.exit_code == 0, result.stderr
    assert "going on with an upload: 3.0 MB of 8.3 MB are there" in result.stderr
    assert platform.puts == list(range(9))


def test_what_was_dropped_meanwhile_is_begun_anew(
    crewship: Any, platform: Platform, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.client import Client

    keep = Client.put

    def put_and_lose(self: Client, path: str, content: bytes) -> None:
        if path.endswith("/4") and len(platform.puts) == 4:
            platform.parts.clear()
        keep(self, path, content)

    monkeypatch.setattr(Client, "put", put_and_lose)
    assert crewship("deploy").exit_code == 0
    assert platform.puts == [0, 1, 2, 3, *range(9)]
