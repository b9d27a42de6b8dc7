"""What Crewship stands on goes away at random points of runs, and comes back: the object store, the engine, the tail."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import pytest

from tests.faults.engine_proxy import EngineProxy
from tests.faults.runs import BOUND_SECONDS, RUNS_AT_ONCE, TickingRun, deployed
from tests.fixtures.minio import Minio, make_minio
from tests.fixtures.platform import CrewshipDev

pytestmark = [pytest.mark.platform, pytest.mark.timeout(int(BOUND_SECONDS) * 2)]

FLOOD = 4000
"""Lines in a burst: most of the log goes to the object store as segments."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minio]:
    """A MinIO of these tests' own, for they kill it."""
    minio = make_minio(tmp_path_factory.mktemp("store"))
    minio.server.start()
    yield minio
    minio.server.kill()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProxy]:
    with_engine = docker.from_env()
    address = urlsplit(with_engine.api.base_url)
    with_engine.close()
    path = Path("/var/run/docker.sock") if address.hostname == "localhost" else Path(address.path)
    if not path.is_socket():
        pytest.skip("the engine does not listen on a unix socket")
    proxy = EngineProxy(tmp_path_factory.mktemp("engine") / "s", path)
    proxy.start()
    yield proxy
    proxy.kill()


@pytest.fixture(scope="module")
def platform(store: Minio, engine: EngineProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    """A platform on MinIO, with an engine that can go away."""
    settings = {
        "CREWSHIP_RUN_CAPACITY": str(RUNS_AT_ONCE + 1),
        "CREWSHIP_OBJECT_STORE": store.url("faults"),
        "DOCKER_HOST": engine.url,
    }
    with deployed(CrewshipDev(tmp_path_factory.mktemp("outside"), settings)) as dev:
        yield dev


@pytest.mark.parametrize("kind", ["object store", "engine"])
def test_nothing_is_lost_while_it_is_away(
    platform: CrewshipDev,
    store: Minio,
    engine: EngineProxy,
    kind: str,
    strike_number: int,
    chance: random.Random,
    record_property: Callable[[str, object], None],
) -> None:
    runs = []
    for _ in range(RUNS_AT_ONCE):
        runs.append(TickingRun(platform, burst=FLOOD if kind == "object store" else 400))
        threading.Event().wait(chance.uniform(0, 1.5))
    threading.Event().wait(chance.uniform(0, 2.5))
    struck = time.monotonic()
    part = store.server if kind == "object store" else engine
    part.kill()
    threading.Event().wait(chance.uniform(0.2, 4.0))
    part.start()
    for run in runs:
        run.ended()
        record_property(f"struck: {kind}", time.monotonic() - struck)
    for run in runs:
        run.check()


def test_without_a_tail(tmp_path_factory: pytest.TempPathFactory) -> None:
    with deployed(CrewshipDev(tmp_path_factory.mktemp("untold"), {"CREWSHIP_TAIL": "off"})) as platform:
        assert not (platform.data / "tail.sock").exists()
        runs = [TickingRun(platform, seconds=2) for _ in range(RUNS_AT_ONCE)]
        for run in runs:
            run.check()
