"""What a container uses, seen from the host and through Docker, on a real one."""

from collections.abc import Callable

import pytest

from crewship import docker_meter
from crewship.docker_engine import DockerEngine
from crewship.engine import ContainerSpec
from crewship.recording import Sample
from tests.crewship.test_docker_engine import bridge, probe, probing, spec
from tests.fixtures.engine import connection, engine, platform_image, probe_image

__all__ = ["bridge", "connection", "engine", "platform_image", "probe", "probe_image", "spec"]

pytestmark = pytest.mark.docker

BURN = "sum(number * number for number in range(3_000_000))"
HOLD = "len([bytes(1 << 20) for _ in range(40)])"
WRITE = "[open('/app/file', 'wb').write(bytes(1 << 20)), os.sync()][0]"
SPAWN = "len([subprocess.Popen(['sleep', '60']) for _ in range(3)])"


def first(engine: DockerEngine, container: str) -> Sample:
    looks = engine.meter(container)
    assert looks is not None
    sample = looks.look()
    assert sample is not None
    return sample


def test_it_follows_what_the_crew_does(
    engine: DockerEngine,
    spec: Callable[..., ContainerSpec],
    bridge: str,
) -> None:
    with probing(engine, spec(bridge)) as crew:
        assert crew.ask("1") == "1"
        looks = engine.meter(crew.container)
        assert looks is not None
        if not looks.is_quick:
            pytest.skip("the host's files cannot be seen from here")
        before = looks.look()
        crew.ask(BURN)
        crew.tell("held = [bytes([1]) * (1 << 20) for _ in range(40)]")
        crew.ask(WRITE)
        crew.ask(SPAWN, "subprocess")
        after = looks.look()
        assert before is not None
        assert after is not None
        assert (after.cpu_ms or 0) > (before.cpu_ms or 0)
        assert (after.memory_bytes or 0) - (before.memory_bytes or 0) > 35 << 20
        assert ((before.pids or 0), (after.pids or 0)) == (1, 4)
        assert (after.disk_write_bytes or 0) - (before.disk_write_bytes or 0) >= 1 << 20
        assert before.network_rx_bytes is not None
    assert looks.look() is None
    assert engine.meter(crew.container) is None


def test_docker_tells_the_same(
    engine: DockerEngine,
    spec: Callable[..., ContainerSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with probing(engine, spec()) as crew:
        crew.ask(BURN)
        seen = first(engine, crew.container)
        monkeypatch.setattr(docker_meter, "_groups", lambda pid, container_id: None)
        looks = engine.meter(crew.container)
        assert looks is not None
        assert (looks.is_quick, looks.every_seconds) == (False, 10.0)
        told = first(engine, crew.container)
        assert told.cpu_ms is not None
        assert told.cpu_ms >= (seen.cpu_ms or 0) > 0
        assert (told.pids, told.network_tx_bytes) == (1, 0)
    assert engine.meter(crew.container) is None
