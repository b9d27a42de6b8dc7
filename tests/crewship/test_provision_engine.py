"""The container engine and the base image, with a real engine."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crewship.docker_connection import DockerConnection
from crewship.provision import base_image, engine
from crewship.provision.base_image import BaseImage, ensure_base_image, find_base_image
from crewship.provision.engine import DaemonPaths, connect, ensure_engine, start_daemon
from crewship.provision.errors import ProvisionError, PythonUnavailable
from crewship.provision.progress import Silent
from crewship.settings import Settings


@pytest.fixture
def api() -> Iterator[Any]:
    with contextlib.closing(connect()) as client:
        yield client


@pytest.fixture
def base(api: Any) -> BaseImage:
    return ensure_base_image(api, Settings().cache_dir, Silent())


def run_in(api: Any, image: str, program: str) -> str:
    """What a shell program prints in a container."""
    config = api.create_host_config(network_mode="none")
    container = api.create_container(image, ["sh", "-c", program], host_config=config)["Id"]
    try:
        api.start(container)
        code = api.wait(container)["StatusCode"]
        said = api.logs(container).decode()
    finally:
        api.remove_container(container, force=True)
    assert code == 0, said
    return str(said)


@pytest.mark.docker
def test_the_platform_base_has_what_a_deployment_is_made_of(api: Any, base: BaseImage) -> None:
    said = run_in(
        api,
        base.reference,
        "id -u crew; stat -c '%u:%g %n' /app /build /cache /opt/crewship /opt/crewship/source /home/crew;"
        "/opt/crewship/bin/uv --version; python3 -c 'import sys, ssl, sqlite3; print(sys.version_info[:2])'; pwd;"
        "ls /etc/ssl/certs/ca-certificates.crt",
    ).splitlines()
    assert said[0] == "10001"
    assert said[1:7] == [
        "10001:10001 /app", "10001:10001 /build", "10001:10001 /cache", "0:0 /opt/crewship", "0:0 /opt/crewship/source",
        "10001:10001 /home/crew",
    ]  # fmt: skip
    assert said[7].startswith("uv ")
    major, minor = base.python.split(".")
    assert said[8] == f"({major}, {minor})"
    assert said[9] == "/app"


@pytest.mark.docker
def test_the_same_parts_find_the_image_that_is_there(
    api: Any, base: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "_make_platform_base", None)  # would fail if it were called
    assert ensure_base_image(api, Settings().cache_dir, Silent()) == base
    assert find_base_image(api, python=base.python) == base
    assert find_base_image(api, configured=base.reference) == base, "a platform base may be configured itself"


@pytest.mark.docker
def test_it_is_made_again_when_it_is_lost(api: Any, base: BaseImage, tmp_path: Path) -> None:
    """On a slim image of a name of its own, so that nobody's base is taken away."""
    mine = f"crewship/test-slim-{secrets.token_hex(4)}"
    container = api.create_container(base.reference, ["true"])["Id"]
    api.commit(container, mine, "latest", changes=["LABEL crewship.test=1"])
    api.remove_container(container)
    made = None
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base_image, "_LABEL_LAYOUT", "crewship.test-layout")  # by which it is no platform base
            made = ensure_base_image(api, tmp_path, Silent(), configured=mine)
            assert made.reference != base.reference
            assert made.python == base.python
            assert (
                run_in(api, made.reference, "grep -c ^crew: /etc/passwd /etc/group") == "/etc/passwd:1\n/etc/group:1\n"
            )
            api.remove_image(made.reference)
            assert find_base_image(api, configured=mine) is None
            again = ensure_base_image(api, tmp_path, Silent(), configured=mine)
            assert again.reference == made.reference
    finally:
        if made:
            api.remove_image(made.reference, force=True)
        api.remove_image(mine, force=True)


@pytest.mark.docker
def test_a_python_that_cannot_be_had_names_those_that_can(
    api: Any, base: BaseImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_image, "_pull", lambda *_: False)
    with pytest.raises(PythonUnavailable) as caught:
        ensure_base_image(api, tmp_path, Silent(), python="3.99", configured=base.reference)
    assert caught.value.code == "python_version"
    assert "Python 3.99" in caught.value.detail
    assert base.python in str(caught.value.hint)


@pytest.mark.docker
def test_a_configured_image_that_is_nowhere(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_image, "_pull", lambda *_: False)
    with pytest.raises(ProvisionError, match=r"crewship/none:1 is not on this machine and cannot be pulled"):
        ensure_base_image(api, tmp_path, Silent(), configured="crewship/none:1")


def test_an_engine_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ProvisionError, match="the container engine cannot be reached") as caught:
        ensure_engine(tmp_path, Silent())
    assert str(caught.value.hint).startswith("DOCKER_HOST is unix://")
    assert not engine.is_ours_to_install(), "somebody has chosen another engine"


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for sockets, whose names may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="crewship-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root can start an engine")
def test_an_engine_that_we_start_outlives_us_with_live_restore(tmp_path: Path, short: Path) -> None:
    """A second one beside the machine's: other sockets and folders, and no hand on its network."""
    paths = DaemonPaths(short, tmp_path / "data", ("--iptables=false", "--bridge=none", "--ip-forward=false"))
    state = tmp_path / "state"
    try:
        pid = start_daemon(state, paths)
        assert os.getsid(pid) == pid, "it is in a session of its own"
        connection = DockerConnection(f"unix://{paths.socket}")
        info = connection.api.info()
        connection.close()
        assert info["LiveRestoreEnabled"]
        assert info["DockerRootDir"] == str(paths.data)
    finally:
        for process in reversed(engine._started):  # dockerd first: it wants to tell containerd
            process.send_signal(signal.SIGTERM)
            process.wait()
        engine._started.clear()


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("dockerd"), reason="only root can start an engine")
def test_an_engine_that_cannot_start_is_told_with_its_log(tmp_path: Path, short: Path) -> None:
    paths = DaemonPaths(short, tmp_path / "data", ("--storage-driver=nonsense", "--iptables=false", "--bridge=none"))
    try:
        with pytest.raises(ProvisionError, match="the container engine ended") as caught:
            start_daemon(tmp_path / "state", paths)
        assert "nonsense" in caught.value.detail
    finally:
        for process in engine._started:
            process.terminate()
            process.wait()
        engine._started.clear()
        # A daemon mounts its root on itself, and one that could not start leaves that.
        subprocess.run(["umount", tmp_path / "data"], capture_output=True)
