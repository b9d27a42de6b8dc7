import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cli import upload
from tests.cli.platform import Log, Platform, problem, step

CHECKOUT = {"PYTHONPATH": str(Path(__file__).parents[2])}
TABLE = 'framework = "python"\nentrypoint = "main:kickoff"\n'


def failing_build() -> Log:
    log = Log()
    log.write(0, "build.started")
    step(log, 100, "dependencies", "started")
    log.write(900, "log", message="no version of nonsense==9", level="info", stream="stderr")
    step(log, 3000, "dependencies", "failed", duration_ms=2900, cached=False)
    log.write(3000, "build.failed", duration_ms=3000, error={"code": "dependency_resolution"})
    log.write(3000, "deployment.failed", deployment_id="dep_new1")
    return log


def test_deploy(crewship: Any, platform: Platform, project: Path) -> None:
    (project / ".env").write_text("SECRET=1")
    platform.next_build.cuts = [2]
    result = crewship("deploy")
    assert result.exit_code == 0
    assert result.stdout == ""
    name, archive, table = platform.uploads[0]
    assert (name, table) == ("research-crew", None)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(tar.getnames()) == ["crewship.toml", "main.py"]
    assert "Deploying research-crew: 2 files" in result.stderr
    assert "   0.1s  ○ dependencies\n   2.0s  ✓ dependencies  1.9 s\n" in result.stderr
    assert "   2.1s  ✓ image  cached\n   3.0s  ✓ dep_new1 is current\n" in result.stderr
    assert "resolved 3 packages" not in result.stderr
    assert "✓ Deployed dep_new1 to research-crew (" in result.stderr
    assert result.stderr.splitlines()[-1] == "  run it: crewship invoke --stream"


def test_a_build_that_fails_says_what_where_and_how_to_mend(crewship: Any, platform: Platform, project: Path) -> None:
    platform.next_build = failing_build()
    error = {"code": "dependency_resolution", "message": "nonsense==9 is not there", "hint": "see requirements.txt, line 2",
             "traceback": None}  # fmt: skip
    platform.next_deployment = {"status": "failed", "error": error, "current": False}
    result = crewship("deploy")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-5:] == [
        "   3.0s  ✗ dependencies  2.9 s",
        "  no version of nonsense==9",
        "error: nonsense==9 is not there [dependency_resolution]",
        "hint: see requirements.txt, line 2",
        "✗ dep_new1 failed; what was current stays current",
    ]


def test_what_an_installer_says_is_said_once(crewship: Any, platform: Platform, project: Path) -> None:
    log = Log()
    log.write(0, "build.started")
    step(log, 100, "dependencies", "started")
    for line in (
        "error: Failed to build `x==1`",
        "  cause: it returned an error",
        "",
        "    [stderr]",
        "    no compiler",
    ):
        log.write(900, "log", message=line, level="info", stream="stderr")
    step(log, 3000, "dependencies", "failed", duration_ms=2900, cached=False)
    log.write(3000, "deployment.failed", deployment_id="dep_new1")
    platform.next_build = log
    message = "Failed to build `x==1`: it returned an error [stderr] no compiler"
    error = {"code": "build_failed", "message": message, "hint": "see the log", "traceback": None}
    platform.next_deployment = {"status": "failed", "error": error, "current": False}
    lines = crewship("deploy").stderr.splitlines()
    assert lines[lines.index("   3.0s  ✗ dependencies  2.9 s") + 1 :] == [
        "      [stderr]",
        "      no compiler",
        "error: Failed to build `x==1`: it returned an error [build_failed]",
        "hint: see the log",
        "✗ dep_new1 failed; what was current stays current",
    ]


def test_json_is_the_deployment(crewship: Any, platform: Platform, project: Path) -> None:
    assert json.loads(crewship("deploy", "--json").stdout) == platform.deployments["dep_new1"]


def test_no_activate(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("deploy", "--no-activate")
    assert "it is not current" in result.stderr
    assert "crewship invoke dep_new1 --stream" in result.stderr
    assert any("activate=false" in path for _, path, _ in platform.requests)


def test_another_folder_and_project(crewship: Any, platform: Platform, project: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(project.parent)
    result = crewship("deploy", "research-crew", "-p", "other")
    assert result.exit_code == 0
    assert platform.uploads[0][0] == "other"
    assert result.stderr.splitlines()[-1] == "  run it: crewship invoke -p other --stream"


def test_a_small_project_is_checked_by_the_platform_alone(platform: Platform, project: Path) -> None:
    """What checks the values takes longer to load than to send them."""
    code = "import sys, cli.main\ntry: cli.main.main()\nexcept SystemExit: pass\nprint('pydantic' in sys.modules)"
    command = [sys.executable, "-c", code, "deploy"]
    done = subprocess.run(command, cwd=project, env=os.environ | CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done.stderr
    assert len(platform.uploads) == 1


@pytest.mark.parametrize("what", ["a large project", "a list of no patterns"])
def test_a_mistake_is_found_here(crewship: Any, platform: Platform, project: Path, what: str) -> None:
    """Before it is packed and sent."""
    mistake = "smoke = 1" if what == "a large project" else "exclude = [1]"
    (project / "crewship.toml").write_text(f"[deployment]\n{TABLE}[build]\n{mistake}\n")
    if what == "a large project":
        (project / "data.bin").write_bytes(bytes(2 << 20))
    result = crewship("deploy")
    assert result.exit_code == 1
    assert "crewship.toml, line 5" in result.stderr
    assert not platform.uploads


def test_named_deployments(crewship: Any, platform: Platform, project: Path) -> None:
    (project / "crewship.toml").write_text(f"[deployments.Search]\n{TABLE}[deployments.write]\n{TABLE}")
    assert crewship("deploy").exit_code == 2
    assert platform.uploads == []
    assert crewship("deploy", "-n", "Search").exit_code == 0
    assert crewship("deploy", "--all").exit_code == 0
    assert [(name, table) for name, _, table in platform.uploads] == [
        ("search", "Search"), ("search", "Search"), ("write", "write"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "exit_code", "error"),
    [
        (["nowhere"], 2, "nowhere is not a folder"),
        (["dep_abc"], 2, "crewship deploy --rollback dep_abc"),
        ([".."], 1, "there is no crewship.toml in .."),
        (["--all", "-n", "x"], 2, "--all does not go with -n"),
        (["--rollback", "--all"], 2, "--rollback does not go with --all"),
        (["--rollback", "nowhere"], 2, "neither a deployment's id nor a folder"),
        (["-n", "other"], 1, "none that is called 'other'"),
    ],
)
def test_bad_arguments(
    crewship: Any, platform: Platform, project: Path, arguments: list[str], exit_code: int, error: str
) -> None:
    result = crewship("deploy", *arguments)
    assert result.exit_code == exit_code
    assert error in result.stderr
    assert platform.uploads == []


def test_rollback(crewship: Any, platform: Platform, project: Path) -> None:
    result = crewship("deploy", "--rollback")
    assert result.stderr.splitlines() == [
        "✓ research-crew is on dep_one again (43 ms)",
        "  undo: crewship deploy --rollback dep_two",
    ]
    assert ("POST", "/v1/projects/research-crew/rollback", {}) in platform.requests
    platform.deployments["dep_old"] = {"id": "dep_old", "project": "research-crew"}
    done = json.loads(crewship("deploy", "--rollback", "dep_old", "--json").stdout)
    assert (done["project"], done["deployment_id"]) == ("research-crew", "dep_old")
    assert crewship("deploy", "--rollback", "dep_none").exit_code == 4
    platform.rollback_changed = False
    assert crewship("deploy", "--rollback", "dep_old").stderr == "research-crew is on dep_old already\n"


def test_rollback_of_another_project_only_when_it_is_named(
    crewship: Any, platform: Platform, project: Path, monkeypatch: Any
) -> None:
    platform.deployments["dep_other"] = {"id": "dep_other", "project": "elsewhere"}
    refused = crewship("deploy", "--rollback", "dep_other")
    assert refused.exit_code == 4
    assert refused.stderr == (
        "error: dep_other is a deployment of elsewhere, and this folder's project is research-crew\n"
        "hint: if you mean that one: crewship deploy --rollback dep_other -p elsewhere\n"
    )
    assert not [call for call in platform.requests if call[0] == "POST"]
    done = [
        "✓ elsewhere is on dep_other again (43 ms)",
        "  undo: crewship deploy --rollback dep_two -p elsewhere",
    ]
    assert crewship("deploy", "--rollback", "dep_other", "-p", "elsewhere").stderr.splitlines() == done
    (project / "crewship.toml").write_text(f"[deployments.one]\n{TABLE}[deployments.Two]\n{TABLE}")
    assert "this folder's project is one or two" in crewship("deploy", "--rollback", "dep_other").stderr
    platform.deployments["dep_here"] = {"id": "dep_here", "project": "two"}
    assert crewship("deploy", "--rollback", "dep_here").exit_code == 0
    monkeypatch.chdir(project.parent)  # a folder that is no project's
    assert crewship("deploy", "--rollback", "dep_other").stderr.splitlines() == done


def test_deployments(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deployments", "list").exit_code == 4
    crewship("deploy")
    lines = crewship("deployments", "list").stdout.splitlines()
    assert lines[1].split()[:3] == ["●", "dep_new1", "ready"]
    shown = crewship("deployments", "show", "dep_new1").stdout
    assert "dep_new1 (current)" in shown
    assert "in 3.2 s" in shown
    assert json.loads(crewship("deployments", "show", "dep_new1", "--json").stdout)["image"] == "sha256:1"


def test_projects(crewship: Any, platform: Platform) -> None:
    assert "No projects yet" in crewship("projects", "list").stderr
    platform.add_project("research-crew", "dep_one")
    assert crewship("projects", "list").stdout.splitlines()[1].split()[:2] == ["research-crew", "dep_one"]
    refused = crewship("projects", "delete", "research-crew")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert crewship("projects", "delete", "other", "--yes").exit_code == 4
    assert crewship("projects", "delete", "research-crew", "--yes").exit_code == 0
    assert platform.projects == {}


def test_a_rollback_says_which_vars_differ(crewship: Any, platform: Platform, project: Path) -> None:
    platform.env_changes = {"added": ["NEW"], "removed": [], "changed": ["KEY", "MODEL"]}
    assert crewship("deploy", "--rollback").stderr.splitlines() == [
        "✓ research-crew is on dep_one again (43 ms)",
        "warning: the env vars have changed since dep_one was current, and stay as they are: "
        "added NEW; changed KEY, MODEL",
        "  --with-env restores version 2 of them",
        "  undo: crewship deploy --rollback dep_two",
    ]
    as_json = crewship("deploy", "--rollback", "--json")
    assert json.loads(as_json.stdout)["env"]["changes"]["added"] == ["NEW"]
    assert as_json.stderr.startswith("warning: the env vars have changed")
    assert crewship("deploy", "--rollback", "--with-env").stderr.splitlines() == [
        "✓ research-crew is on dep_one again (43 ms)",
        "  env vars are those of version 2 again, as version 4",
        "  undo: crewship deploy --rollback dep_two --with-env",
    ]
    assert ("POST", "/v1/projects/research-crew/rollback", {"with_env": True}) in platform.requests
    refused = crewship("deploy", "--with-env")
    assert refused.exit_code == 2
    assert "--with-env goes with --rollback" in refused.stderr


def sent(platform: Platform) -> str:
    """Digest of the archive that was sent last."""
    return hashlib.sha256(platform.uploads[-1][1]).hexdigest()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source counts as one that is not sent unasked."""
    monkeypatch.setattr(upload, "SMALL_BYTES", 0)


def test_a_small_source_is_sent_unasked(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deploy").exit_code == 0
    assert [path for method, path, _ in platform.requests if method == "POST"] == [
        "/v1/projects/research-crew/deployments"
    ]


@pytest.mark.usefixtures("large")
def test_a_source_that_is_there_is_not_sent(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deploy").exit_code == 0
    platform.sources[sent(platform)] = b"kept"
    assert crewship("deploy").exit_code == 0
    assert platform.uploads[-1] == ("research-crew", b"kept", None)


@pytest.mark.usefixtures("large")
def test_nothing_has_changed(crewship: Any, platform: Platform, project: Path) -> None:
    assert crewship("deploy").exit_code == 0
    platform.sources[sent(platform)], platform.unchanged = b"kept", "dep_new1"
    result = crewship("deploy")
    assert result.exit_code == 0
    assert "✓ Nothing has changed: dep_new1 is current (" in result.stderr
    assert result.stderr.splitlines()[-1] == "  build it all the same: crewship deploy --force"
    assert len(platform.uploads) == 1
    assert json.loads(crewship("deploy", "--json").stdout)["unchanged"] is True
    forced = crewship("deploy", "--force")
    assert "✓ Deployed dep_new2 to research-crew" in forced.stderr
    assert crewship("deploy", "--rollback", "--force").exit_code == 2


@pytest.mark.usefixtures("large")
def test_a_platform_that_takes_less_gets_the_largest_files_named(
    crewship: Any, platform: Platform, project: Path
) -> None:
    (project / "model.bin").write_bytes(bytes(3 << 20))
    unknown = problem(404, "source_unknown", "the project has no such source")
    platform.fail_next = [unknown, problem(413, "source_too_large", "The upload is larger than 1,000 bytes")]
    result = crewship("deploy")
    assert result.exit_code == 1
    assert "error: The upload is larger than 1,000 bytes" in result.stderr
    assert "3 MiB  model.bin" in result.stderr
    assert "[build] exclude in crewship.toml" in result.stderr


def test_ctrl_c_cancels_the_build(platform: Platform, project: Path) -> None:
    log = Log()
    log.write(0, "build.started")
    step(log, 100, "dependencies", "started")
    log.hold_after = 2
    platform.next_build = log

    def cancel(dep_id: str) -> None:
        platform.deployments[dep_id] |= {"status": "failed", "current": False, "error": {"code": "canceled"}}
        step(log, 900, "dependencies", "failed", duration_ms=800, cached=False)
        log.write(1000, "build.failed", duration_ms=1000, error={"code": "canceled"})
        log.write(1000, "deployment.failed", deployment_id=dep_id)
        log.released.set()

    platform.on_build_cancel = cancel
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "deploy"], cwd=project, stderr=subprocess.PIPE, text=True,
        env=os.environ | CHECKOUT,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Deploying research-crew")
        assert process.stderr.readline() == "   0.1s  ○ dependencies\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert platform.build_cancels == ["dep_new1"]
    assert rest == [
        "canceling dep_new1; Ctrl-C again leaves it",
        "   0.9s  ✗ dependencies  800 ms",
        "✗ dep_new1 was canceled; what was current stays current",
    ]
