import json
from typing import Any

from tests.cli.platform import Platform

GARBAGE = [
    {"kind": "image", "name": "sha256:1", "why": "of dep_0: it failed", "bytes": 2_000_000, "host": "here"},
    {"kind": "volume", "name": "cache", "why": "idle", "bytes": None, "host": "here"},
]


def test_a_dry_run_only_shows(crewship: Any, platform: Platform) -> None:
    platform.garbage = list(GARBAGE)
    result = crewship("gc", "--dry-run")
    header, image, volume = result.stdout.splitlines()
    assert header.split() == ["KIND", "SIZE", "NAME", "WHY"]
    assert image.split()[:4] == ["image", "2.0", "MB", "sha256:1"]
    assert image.endswith("of dep_0: it failed")
    assert volume.split() == ["volume", "-", "cache", "idle"]
    assert "2 things, 2.0 MB would go" in result.stderr
    assert "host there does not answer" in result.stderr
    assert platform.garbage == GARBAGE


def test_it_goes_on_until_nothing_is_left(crewship: Any, platform: Platform) -> None:
    platform.garbage = list(GARBAGE)
    result = crewship("gc")
    assert "2 things removed, 2.0 MB" in result.stderr
    assert platform.garbage == []
    result = crewship("gc")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing to remove" in result.stderr


def test_json(crewship: Any, platform: Platform) -> None:
    platform.garbage = list(GARBAGE)
    found = json.loads(crewship("gc", "--json").stdout)
    assert (found["removals"], found["bytes"], found["dry_run"]) == (GARBAGE, 2_000_000, False)
