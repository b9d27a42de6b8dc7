"""A part of the platform is away: calls that need it say which one (503), and work that was accepted waits and then goes on.

A platform of its own, whose store is a MinIO and whose engine is reached by a relay, so that both can be taken away. Nothing
is done to the machine's engine itself.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from activities.spares import SPARE_PREFIX
from tests.fixtures.minio import Minio, make_minio
from tests.fixtures.platform import CrewshipDev, pack, running, until

pytestmark = pytest.mark.platform

FILES = {
    "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
    "crew.py": "import time\n\n\ndef kickoff(inputs):\n"
    "    for number in range(inputs.get('count', 1)):\n"
    "        print('tick', number, flush=True)\n        time.sleep(0.05)\n    return inputs\n",
}
PROJECT = "steady"


class Relay:
    """A unix socket that stands for another one, and can stop to."""

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, target
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and cut those that are."""
        assert self._listener is not None
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            far.connect(self._target)
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        back = threading.Thread(target=self._copy, args=(far, near), daemon=True)
        back.start()
        self._copy(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        """Up to the source's end, which is told to the target."""
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    minio = make_minio(tmp_path_factory.mktemp("store"))
    minio.server.start()
    yield minio
    minio.server.kill()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    client = docker.APIClient()
    target = client.adapters["http+docker://"].socket_path if client.base_url == "http+docker://localhost" else ""
    client.close()
    if not target:
        pytest.skip("the engine is not reached by a unix socket")
    relay = Relay(tmp_path_factory.mktemp("r") / "d.sock", target)
    relay.start()
    yield relay
    relay.stop()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory, store: Minio, relay: Relay) -> Iterator[CrewshipDev]:
    platform = CrewshipDev(
        tmp_path_factory.mktemp("fragile"),
        {"CREWSHIP_OBJECT_STORE": store.url("crewship"), "DOCKER_HOST": f"unix://{relay._path}"},
    )
    with running(platform, leaves_nothing=True) as dev:
        assert dev.deploy(PROJECT, FILES)["status"] == "ready"
        yield dev
        leave_a_stray(dev)


def leave_a_stray(platform: CrewshipDev) -> None:
    """What an outage of the engine leaves of a spare that was being made, a moment before the worker stops."""
    spare, *_ = until(lambda: [found for found in platform.containers(SPARE_PREFIX) if found.status == "running"])
    client = docker.from_env()
    try:
        client.containers.create(spare.image, name=f"{SPARE_PREFIX}stray-{platform.instance}", labels=spare.labels)
    finally:
        client.close()


def is_ready(platform: CrewshipDev) -> bool:
    with suppress(httpx.TransportError):
        return platform.http.get(f"{platform.url}/readyz").status_code == 200
    return False


def refused(answer: httpx.Response, part: str) -> None:
    """503 that names ``part`` and says what to do."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"]
    body = answer.json()
    assert body["code"] == "unavailable"
    assert part in body["detail"], body
    assert "crewship doctor" in body["hint"], body


def row(platform: CrewshipDev, name: str) -> dict[str, Any]:
    """What readiness says of one dependency."""
    found = platform.http.get(f"{platform.url}/readyz").json()
    return next(dict(item) for item in found["dependencies"] if item["name"] == name)


def counts(platform: CrewshipDev) -> tuple[int, int]:
    return (
        len(platform.get("/runs", project=PROJECT, limit=100)["runs"]),
        len(platform.get(f"/projects/{PROJECT}/deployments", limit=100)["deployments"]),
    )


def test_the_workflow_engine_is_away(fragile: CrewshipDev) -> None:
    done = fragile.run(PROJECT)
    before = counts(fragile)
    with fragile.frozen("temporal"):
        began = time.monotonic()
        until(lambda: fragile.http.post("/runs", json={"project": PROJECT}).status_code == 503)
        refused(fragile.http.post("/runs", json={"project": PROJECT}), "Temporal")
        refused(fragile.upload("new-project", pack(FILES)), "Temporal")
        refused(fragile.http.delete(f"/projects/{PROJECT}"), "Temporal")
        refused(
            fragile.http.post(f"/projects/{PROJECT}/rollback", json={"deployment_id": done["deployment_id"]}),
            "Temporal",
        )
        assert time.monotonic() - began < 60
        assert fragile.http.get(f"{fragile.url}/healthz").status_code == 200
        assert not row(fragile, "temporal")["ok"]
        # What is recorded can be read as ever.
        assert fragile.ended(done["id"]) == done
        assert fragile.events(done["id"])[-1]["type"] == "run.completed"
        by_cli = fragile.crewship("invoke", "-p", PROJECT)
        assert by_cli.returncode == 6, by_cli
        assert "Temporal" in by_cli.stderr
        assert "hint: crewship doctor" in by_cli.stderr
    until(lambda: is_ready(fragile), 60)
    assert counts(fragile) == before  # nothing half-made
    assert fragile.http.get("/projects/new-project").status_code == 404
    assert fragile.get(f"/projects/{PROJECT}")["status"] == "active"
    assert fragile.run(PROJECT)["status"] == "succeeded"


def test_the_object_store_is_away(fragile: CrewshipDev, store: Minio) -> None:
    done = fragile.run(PROJECT)
    before = counts(fragile)
    store.server.kill()
    try:
        refused(fragile.upload(PROJECT, pack(FILES | {"new.txt": "x"})), "object store")
        assert not row(fragile, "object_store")["ok"]
        assert fragile.http.get(f"{fragile.url}/readyz").status_code == 503
        by_cli = fragile.crewship("deploy", str(_folder(fragile)), "-p", PROJECT)
        assert by_cli.returncode == 6, by_cli
        assert "object store" in by_cli.stderr
        # A run is accepted and does its work; it is closed when its log can be archived.
        waiting = fragile.start_run(PROJECT, {"count": 3})
        fragile.logged(waiting, "tick 2")
        assert fragile.get(f"/runs/{done['id']}")["status"] == "succeeded"
        # It was tried, and is tried again.
        until(lambda: "close_run" in fragile.log("worker") and waiting in fragile.log("worker"))
    finally:
        store.server.start()
    run = fragile.ended(waiting)
    assert (run["status"], run["output"]) == ("succeeded", {"count": 3}), run["error"]
    assert [event["type"] for event in fragile.events(waiting)] == ["run.started", "log", "log", "log", "run.completed"]
    assert counts(fragile) == (before[0] + 1, before[1])
    assert fragile.deploy(PROJECT, FILES)["status"] == "ready"


def test_the_container_engine_is_away(fragile: CrewshipDev, relay: Relay) -> None:
    first = fragile.get(f"/projects/{PROJECT}")["current_deployment_id"]
    second = fragile.deploy(PROJECT, FILES)["id"]
    ticking = fragile.start_run(PROJECT, {"count": 60})
    fragile.logged(ticking, "tick 3")
    relay.stop()
    try:
        refused(fragile.http.post(f"/projects/{PROJECT}/rollback"), "engine")
        assert fragile.get(f"/projects/{PROJECT}")["current_deployment_id"] == second
        until(lambda: row(fragile, "container_engine")["ok"] is False)
        before = counts(fragile)
        refused(fragile.http.post("/runs", json={"project": PROJECT, "input": {"count": 1}}), "engine")
        refused(fragile.upload(PROJECT, pack(FILES)), "engine")
        assert counts(fragile) == before
    finally:
        relay.start()
    run = fragile.ended(ticking)
    assert run["status"] == "succeeded", run
    messages = [event["data"]["message"] for event in fragile.events(ticking, types="log")]
    assert messages == [f"tick {number}" for number in range(60)]
    until(lambda: row(fragile, "container_engine")["ok"])
    assert fragile.run(PROJECT, {"count": 1})["status"] == "succeeded"
    answer = fragile.http.post(f"/projects/{PROJECT}/rollback")
    assert (answer.status_code, answer.json()["deployment_id"]) == (200, first)


def test_the_worker_is_away(fragile: CrewshipDev) -> None:
    done = fragile.run(PROJECT)
    with fragile.frozen("worker"):
        waiting = fragile.start_run(PROJECT)
        began = time.monotonic()
        assert fragile.get(f"/runs/{waiting}", wait=1)["status"] == "pending"
        assert time.monotonic() - began < 5
        with opened(fragile, waiting) as answer:
            assert answer.status_code == 200  # a stream that is open and has nothing yet
        assert fragile.events(done["id"])[-1]["type"] == "run.completed"
    assert fragile.ended(waiting)["status"] == "succeeded"


def test_nobody_listens(fragile: CrewshipDev) -> None:
    fragile_url, fragile.url = fragile.url, "http://127.0.0.1:9"
    try:
        done = fragile.crewship("runs", "list", "-p", PROJECT)
    finally:
        fragile.url = fragile_url
    assert done.returncode == 6
    assert "cannot connect to http://127.0.0.1:9" in done.stderr
    assert "crewship dev" in done.stderr


@contextmanager
def opened(platform: CrewshipDev, run_id: str) -> Iterator[httpx.Response]:
    with platform.http.stream("GET", f"/runs/{run_id}/events", timeout=10) as answer:
        yield answer


def _folder(platform: CrewshipDev) -> Path:
    folder = platform.data.parent / "steady"
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_text(content + "\n")
    return folder
