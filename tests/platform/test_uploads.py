"""An upload that is cut goes on: over a connection that breaks, an API that is killed, a command that is; on MinIO."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crewship.stores import open_store
from crewship.uploads import PART_BYTES
from tests.fixtures.cutting import cutting
from tests.fixtures.minio import Minio, minio  # noqa: F401
from tests.fixtures.platform import ROOT, CrewshipDev, running

pytestmark = pytest.mark.platform

PARTS = 8
SIZE = (PARTS - 1) * PART_BYTES + 1_000_000


@pytest.fixture(scope="module")
def on_minio(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CrewshipDev, str]]:  # noqa: F811
    url = minio.url("uploads-of-a-test")
    with running(CrewshipDev(tmp_path_factory.mktemp("uploads"), {"CREWSHIP_OBJECT_STORE": url})) as dev:
        yield dev, url


def project(folder: Path) -> Path:
    """A crew that says how many bytes came with it; what it has cannot be compressed."""
    folder.mkdir()
    (folder / "crewship.toml").write_text('[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n')
    (folder / "crew.py").write_text("import os\n\n\ndef kickoff(inputs):\n    return os.path.getsize('model.bin')\n")
    (folder / "model.bin").write_bytes(os.urandom(SIZE))
    return folder


def parts(url: str) -> list[str]:
    return [found.key for found in open_store(url).list("uploads/")]


def sources(url: str) -> list[str]:
    return [found.key for found in open_store(url).list("sources/")]


def test_the_api_is_killed_in_the_middle(on_minio: tuple[CrewshipDev, str], tmp_path: Path) -> None:
    dev, url = on_minio
    seen: list[tuple[int, int]] = []

    def kill() -> None:
        seen.append((len(parts(url)), len(sources(url))))
        dev.kill("api")

    crew = project(tmp_path / "killed")
    with cutting(dev.port, int(3.5 * PART_BYTES), on_cut=kill) as cutter:
        done = dev.crewship("--url", cutter.url, "deploy", str(crew))
    assert done.returncode == 0, done.stderr + dev.last_words()
    assert "the upload goes on when it is back" in done.stderr
    assert seen == [(3, 0)]
    # What had come was not sent once more: the archive, the part that broke, and the calls around.
    assert cutter.sent_bytes < SIZE + PART_BYTES + 1_000_000
    assert parts(url) == []
    assert dev.run("killed")["output"] == SIZE


def test_the_command_is_killed_and_the_next_one_goes_on(on_minio: tuple[CrewshipDev, str], tmp_path: Path) -> None:
    dev, url = on_minio
    crew = project(tmp_path / "left")
    env = dev.env | {"CREWSHIP_API_KEY": dev.key, "PYTHONPATH": str(ROOT)}
    started: list[subprocess.Popen[bytes]] = []
    with cutting(dev.port, int(4.5 * PART_BYTES), on_cut=lambda: started[0].kill()) as cutter:
        command = [sys.executable, "-m", "cli.main", "--url", cutter.url, "deploy", str(crew)]
        started.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        assert started[0].wait(120) == -9
    assert len(parts(url)) == 4
    assert dev.http.get("/projects/left").status_code == 404  # nothing of it is to be seen
    before = {found.key for found in open_store(url).list("sources/")}
    with cutting(dev.port) as cutter:
        done = dev.crewship("--url", cutter.url, "deploy", str(crew))
    assert done.returncode == 0, done.stderr
    assert "going on with an upload: 16.8 MB of" in done.stderr
    assert cutter.sent_bytes < SIZE - 4 * PART_BYTES + 1_000_000
    assert parts(url) == []
    assert len(set(sources(url)) - before) == 1
    assert dev.run("left")["output"] == SIZE
