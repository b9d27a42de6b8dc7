"""``crewship sealing``: what a person who runs the platform sees when a key is replaced."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from crewship.clock import now
from crewship.db import migrate, open_database, session
from crewship.keyring import open_keyring
from crewship.models import Deployment, EnvVar, Project, Run
from crewship.sealing import Sealer
from crewship.settings import Settings
from tests.cli.conftest import Crewship


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installation with three values."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CREWSHIP_{name.upper()}", raising=False)
    settings = Settings(data_dir=tmp_path)
    sealer = open_keyring(settings).sealer()
    database = open_database(settings.database)
    migrate(database)
    with session(database) as opened:
        opened.add(Project(name="crew"))
        opened.flush()
        for name in ("A", "B", "C"):
            opened.add(
                EnvVar(
                    project="crew", name=name, sealed=sealer.seal(name, f"crew/{name}"), preview="…", since_version=1
                )
            )
    database.dispose()
    return tmp_path


def add(data: Path, *rows: object) -> None:
    database = open_database(Settings(data_dir=data).database)
    with session(database) as opened:
        for row in rows:
            opened.add(row)
            opened.flush()
    database.dispose()


def keys(crewship: Crewship, data: Path) -> list[dict[str, object]]:
    result = crewship("sealing", "status", "--data", str(data), "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)["keys"]
    return found


def test_rotate_then_retire(crewship: Crewship, data: Path) -> None:
    (before,) = keys(crewship, data)
    assert (before["values"], before["development"]) == (3, True)
    rotated = crewship("sealing", "rotate", "--data", str(data))
    assert rotated.exit_code == 0, rotated.output
    assert "3 values have their new seal" in rotated.stderr
    assert "crewship sealing retire" in rotated.stderr
    current, former = keys(crewship, data)
    assert (current["values"], former["values"]) == (3, 0)
    assert former["id"] == before["id"]
    assert current["id"] in rotated.stderr
    retired = crewship("sealing", "retire", "--data", str(data))
    assert retired.exit_code == 0, retired.output
    assert [key["id"] for key in keys(crewship, data)] == [current["id"]]
    again = crewship("sealing", "retire", "--data", str(data))
    assert "is the only key already" in again.stderr


def test_a_rotation_that_was_killed_before_its_first_value_is_finished_with_the_same_key(
    crewship: Crewship, data: Path
) -> None:
    made = open_keyring(Settings(data_dir=data)).put_first()  # and here the machine lost its power
    result = crewship("sealing", "rotate", "--data", str(data), "--json")
    assert json.loads(result.stdout) == {"key": made.id, "new": False, "resealed": 3, "damaged": []}
    assert len(keys(crewship, data)) == 2


def test_retire_keeps_a_key_that_a_value_needs(crewship: Crewship, data: Path) -> None:
    open_keyring(Settings(data_dir=data)).put_first()
    result = crewship("sealing", "retire", "--data", str(data))
    assert result.exit_code == 5
    assert "has sealed 3 values" in result.stderr
    assert "crewship sealing rotate" in result.stderr
    assert len(keys(crewship, data)) == 2


@pytest.mark.parametrize("arguments", [[], ["--force"]])
def test_retire_keeps_the_keys_of_a_run_under_way(crewship: Crewship, data: Path, arguments: list[str]) -> None:
    deployment = Deployment(id="dep_1", project="crew", host="local", source_key="k", source_sha256="s")
    run = Run(
        id="run_1", project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=1, status="running",
        launched_at=now() - timedelta(hours=2),
    )  # fmt: skip
    add(data, deployment, run)
    assert crewship("sealing", "rotate", "--data", str(data)).exit_code == 0
    result = crewship("sealing", "retire", "--data", str(data), *arguments)
    assert result.exit_code == (0 if arguments else 5), result.output
    assert len(keys(crewship, data)) == (1 if arguments else 2)
    if not arguments:
        assert "when a former key was in use" in result.stderr


def test_a_run_that_began_long_after_the_rotation_keeps_nothing(crewship: Crewship, data: Path) -> None:
    deployment = Deployment(id="dep_1", project="crew", host="local", source_key="k", source_sha256="s")
    run = Run(
        id="run_1", project="crew", deployment_id="dep_1", timeout_seconds=60, env_version=1, status="running",
        launched_at=now() + timedelta(hours=2),
    )  # fmt: skip
    add(data, deployment, run)
    crewship("sealing", "rotate", "--data", str(data))
    assert crewship("sealing", "retire", "--data", str(data)).exit_code == 0


def test_values_of_a_key_that_is_lost_are_said(crewship: Crewship, data: Path) -> None:
    lost = Sealer(bytes(range(50, 82)))
    add(data, EnvVar(project="crew", name="LOST", sealed=lost.seal("x", "crew/LOST"), preview="…", since_version=1))
    shown = crewship("sealing", "status", "--data", str(data))
    assert f"{lost.key_id}  1       not here" in shown.stdout
    assert "cannot be read" in shown.stderr
    result = crewship("sealing", "rotate", "--data", str(data))
    assert result.exit_code == 1
    assert "1 values cannot be opened by any key here: crew/LOST" in result.stderr
    assert keys(crewship, data)[0]["values"] == 3


def test_where_nothing_is_nothing_is_made(crewship: Crewship, tmp_path: Path) -> None:
    for command in ("status", "rotate", "retire"):
        result = crewship("sealing", command, "--data", str(tmp_path / "nowhere"))
        assert result.exit_code == 2
        assert "there is no platform in" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_keys_in_the_environment_are_for_their_owner_to_change(
    crewship: Crewship, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "secret.key"
    monkeypatch.setenv("CREWSHIP_SECRET_KEY", path.read_text().split()[0])
    path.unlink()
    result = crewship("sealing", "rotate", "--data", str(data))
    assert result.exit_code == 6
    assert "CREWSHIP_SECRET_KEY" in result.stderr
    assert keys(crewship, data)[0]["values"] == 3
