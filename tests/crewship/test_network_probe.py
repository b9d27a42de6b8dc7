# ruff: noqa: F811 (fixtures that are imported)
"""The probe, on a bridge with and without the guard's rules."""

import pytest

from crewship.docker_connection import DockerConnection
from crewship.docker_engine import DockerEngine
from crewship.engine import ImageMissing
from crewship.errors import Unavailable
from crewship.netguard.firewall import Firewall
from crewship.netguard.rules import Policy
from crewship.network_probe import ProbeFailed, probe
from tests.crewship.test_netguard import needs_root
from tests.fixtures.engine import bridge, connection, engine, platform_image  # noqa: F401

pytestmark = pytest.mark.docker


@needs_root
def test_it_gets_through_without_rules_and_not_with_them(
    engine: DockerEngine, connection: DockerConnection, platform_image: str, bridge: str
) -> None:
    def knock() -> float:
        return probe(connection.api, instance=engine.instance, image=platform_image, bridge=bridge)

    with pytest.raises(ProbeFailed, match=f"From a container on {bridge} the host"):
        knock()
    firewall = Firewall()
    firewall.apply(Policy(bridge))
    try:
        assert knock() > 0
        # One of the two chains is not enough.
        firewall.apply(Policy(bridge))
        firewall._restore(firewall._iptables, [f"-F CREWSHIP-I-{bridge}"])
        with pytest.raises(ProbeFailed, match="the host"):
            knock()
    finally:
        firewall.remove(bridge)
    left = [name for row in connection.api.containers(all=True) for name in row["Names"] or ()]
    assert f"/crewship-probe-{engine.instance}" not in left


def test_an_image_that_is_not_there_is_said(engine: DockerEngine, connection: DockerConnection, bridge: str) -> None:
    with pytest.raises(ImageMissing):
        probe(connection.api, instance=engine.instance, image="crewship/no:such", bridge=bridge)


def test_a_container_that_tells_nothing_is_no_answer(
    engine: DockerEngine, connection: DockerConnection, platform_image: str, bridge: str
) -> None:
    with pytest.raises(Unavailable):
        probe(connection.api, instance=engine.instance, image=platform_image, bridge=bridge, runtime="no-such-runtime")


@needs_root
def test_another_runtime_by_name(
    engine: DockerEngine, connection: DockerConnection, platform_image: str, bridge: str
) -> None:
    """One that every daemon of this kind knows besides its default."""
    runtimes = set(connection.api.info()["Runtimes"]) & {"io.containerd.runc.v2"}
    if not runtimes:
        pytest.skip("this daemon has one runtime")
    firewall = Firewall()
    firewall.apply(Policy(bridge))
    try:
        assert probe(
            connection.api, instance=engine.instance, image=platform_image, bridge=bridge, runtime=runtimes.pop()
        )
    finally:
        firewall.remove(bridge)
