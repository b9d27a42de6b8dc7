"""What ``crewship doctor`` makes of what it finds."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crewship.db import migrate, open_database
from crewship.folder_storage import FolderStore
from crewship.provision import checks
from crewship.provision.checks import Check, check_stores, check_temporal
from crewship.settings import Settings
from tests.fixtures.servers import free_port

GOOD: dict[str, Any] = {
    "ServerVersion": "27.1", "NCPU": 2, "MemTotal": 8 << 30, "MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True,
    "CgroupVersion": "2", "CgroupDriver": "systemd", "Driver": "overlay2", "LiveRestoreEnabled": True,
    "SecurityOptions": ["name=seccomp,profile=default"], "BridgeNfIptables": True,
}  # fmt: skip


def engine_checks(**changes: object) -> dict[str, Check]:
    return {check.name: check for check in checks._engine({**GOOD, **changes})}


def test_a_good_engine_has_nothing_to_mend() -> None:
    found = engine_checks()
    assert {check.status for check in found.values()} == {"ok"}
    assert found["container engine"].detail == "27.1, 2 CPUs, 8 GiB"
    assert found["cgroups"].detail == "v2, systemd; memory, pids and CPU are limited"
    assert found["run disk limit"].detail.startswith("watched: ")


@pytest.mark.parametrize(
    ("changes", "name", "status", "words"),
    [
        ({"PidsLimit": False, "MemoryLimit": False}, "cgroups", "fail", "no limits on memory, pids"),
        ({"LiveRestoreEnabled": False}, "live restore", "warn", "ends all runs"),
        ({"Driver": "vfs"}, "storage driver", "warn", "full copy"),
        ({"SecurityOptions": None}, "seccomp", "warn", "any system call"),
        ({"BridgeNfIptables": False}, "bridge filter", "warn", "reach each other"),
    ],
)
def test_what_a_lesser_engine_lacks_is_said_with_how_to_mend_it(
    changes: dict[str, object], name: str, status: str, words: str
) -> None:
    check = engine_checks(**changes)[name]
    assert check.status == status
    assert words in check.detail
    assert check.hint


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free_gib", "status"), [(50, "ok"), (3, "warn"), (0.5, "fail")])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(free_gib * (1 << 30))))
    (check,) = checks._disks(Settings(data_dir=tmp_path / "not" / "there"), None)
    assert check.status == status
    assert check.detail == f"{free_gib:.1f} GiB free at {tmp_path}"


def test_stores_that_are_not_made_yet_are_no_fault_and_are_not_made(tmp_path: Path) -> None:
    found = list(check_stores(Settings(data_dir=tmp_path / "data")))
    assert [check.status for check in found] == ["warn", "warn"]
    assert not (tmp_path / "data").exists()


def test_stores_that_work(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    database = open_database(settings.database)
    migrate(database)
    database.dispose()
    FolderStore(tmp_path / "objects").create()
    assert [(check.status, check.detail) for check in check_stores(settings)] == [("ok", "sqlite"), ("ok", "file")]


def test_a_folder_of_objects_that_is_lost_is_a_fault_and_is_not_made_anew(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "crewship.db").touch()
    check = list(check_stores(settings))[1]
    assert (check.status, check.detail) == (
        "fail",
        f"file://{tmp_path}/objects: The object store's folder is not there.",
    )
    assert not (tmp_path / "objects").exists()


def test_configured_stores_that_cannot_be_reached_fail_without_telling_their_secrets(tmp_path: Path) -> None:
    port = free_port()
    settings = Settings(
        data_dir=tmp_path,
        database_url=f"postgresql+psycopg://crewship:geheim@127.0.0.1:{port}/crewship",
        object_store="ftp://key:geheim@127.0.0.1/bucket",
    )
    found = list(check_stores(settings))
    assert [check.status for check in found] == ["fail", "fail"]
    assert all("geheim" not in f"{check.detail}{check.hint}" for check in found)


def test_a_temporal_server_that_is_not_there(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, temporal_address=f"127.0.0.1:{free_port()}")
    assert check_temporal(settings, expected=False).status == "warn"
    assert check_temporal(settings, expected=True).status == "fail"


def test_a_configured_cli_that_does_not_work(tmp_path: Path) -> None:
    check = checks._temporal_cli(Settings(temporal_bin=tmp_path / "none"))
    assert check.status == "fail"
    assert "CREWSHIP_TEMPORAL_BIN" in check.detail
