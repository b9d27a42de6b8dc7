import json
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


def test_what_it_was_built_from(crewship: Any, platform: Platform, project: Path) -> None:
    platform.documents = {"lock": "httpx==0.28.1\nidna==3.10\n", "sbom": '{\n "bomFormat": "CycloneDX"\n}'}
    assert crewship("deployments", "show", "dep_1", "--lock").stdout == "httpx==0.28.1\nidna==3.10\n"
    assert json.loads(crewship("deployments", "show", "dep_1", "--sbom").stdout) == {"bomFormat": "CycloneDX"}
    refused = crewship("deployments", "show", "dep_1", "--sbom", "--lock")
    assert refused.exit_code == 2


def test_diff(crewship: Any, platform: Platform, project: Path) -> None:
    def file(name: str, size: int, sha256: str = "1", executable: bool = False) -> dict[str, Any]:
        return {"name": name, "size_bytes": size, "sha256": sha256, "executable": executable}

    none: dict[str, list[Any]] = {"added": [], "removed": [], "changed": []}
    platform.diff = {
        "same": False,
        "files": {
            "added": [file("new.txt", 1200)],
            "removed": [file("old.py", 310)],
            "changed": [
                {"name": "crew.py", "before": file("crew.py", 2100), "after": file("crew.py", 2200, "2")},
                {"name": "run.sh", "before": file("run.sh", 9), "after": file("run.sh", 9, executable=True)},
            ],
        },
        "dependencies": none | {"changed": [{"name": "httpx", "before": "0.27.0", "after": "0.28.1"}]},
        "system_packages": none | {"added": [{"name": "libpq5:amd64", "version": "15.1"}]},
        "config": [{"key": "run.memory", "before": None, "after": "512m"}],
        "env": {"before": 3, "after": 5, "changes": none | {"removed": ["MODEL"]}},
    }
    result = crewship("deployments", "diff", "dep_1", "dep_2")
    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "files", "+ new.txt 1.2 kB", "- old.py 310 B", "~ crew.py 2.1 kB → 2.2 kB", "~ run.sh is executable now",
        "packages", "~ httpx 0.27.0 → 0.28.1",
        "system packages", "+ libpq5:amd64 15.1",
        "config", "~ run.memory not set → 512m",
        "env, version 3 → 5", "- MODEL",
    ]  # fmt: skip
    assert json.loads(crewship("deployments", "diff", "dep_1", "dep_2", "--json").stdout)["after"] == "dep_2"
    platform.diff = {
        "same": True, "files": none, "dependencies": none, "system_packages": None, "config": [], "env": None
    }  # fmt: skip
    same = crewship("deployments", "diff", "dep_1", "dep_2")
    assert same.stdout == "system packages: not known, one of the two was not built\n"
    assert same.stderr == "dep_1 and dep_2 have the same files, packages and config\n"


def test_cancel(crewship: Any, platform: Platform, project: Path) -> None:
    platform.deployments["dep_1"] = {"id": "dep_1", "status": "building"}
    assert crewship("deployments", "cancel", "dep_1").stderr.splitlines() == [
        "✓ dep_1 is being canceled",
        "  see how it ends: crewship deployments show dep_1",
    ]
    assert platform.build_cancels == ["dep_1"]
    platform.deployments["dep_1"]["status"] = "failed"
    assert crewship("deployments", "cancel", "dep_1").stderr == "dep_1 is failed already\n"
