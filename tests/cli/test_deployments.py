from pathlib import Path
from typing import Any

from tests.cli.platform import AT, Platform


def test_promote(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("deployments", "promote", "dep_new", "--with-env")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "✓ research-crew is on dep_new now (43 ms)",
        "  env vars are those of version 2 again, as version 4",
        "  undo: crewship deploy --rollback dep_two --with-env",
    ]
    assert ("POST", "/v1/deployments/dep_new/promote", {"with_env": True}) in platform.requests
    platform.rollback_changed = False
    assert crewship("deployments", "promote", "dep_new").stderr == "research-crew is on dep_new already\n"


def test_history(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deployments", "history").exit_code == 4
    platform.add_project("research-crew")
    assert "has had no current deployment yet" in crewship("deployments", "history").stderr
    row = {
        "id": 2, "kind": "rollback", "deployment_id": "dep_one", "previous_deployment_id": "dep_two",
        "env_version": 4, "previous_env_version": 3, "by": "key_1", "by_name": "admin", "at": AT,
    }  # fmt: skip
    first = row | {
        "id": 1, "kind": "deploy", "previous_deployment_id": None, "env_version": None, "previous_env_version": None,
        "by_name": None,
    }  # fmt: skip
    platform.activations = [row, first]
    lines = [line.split() for line in crewship("deployments", "history").stdout.splitlines()]
    assert lines[0] == ["WHEN", "WHAT", "FROM", "TO", "ENV", "BY"]
    assert lines[1][-7:] == ["rollback", "dep_two", "dep_one", "v3", "→", "v4", "admin"]
    assert lines[2][-5:] == ["deploy", "-", "dep_one", "-", "key_1"]
