# ruff: noqa: F811 (fixtures that are imported)
"""The closed bridge in the real engine, and the address of a container that has not been started."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from crewship.closed_bridge import ensure_closed_bridge
from crewship.docker_connection import DockerConnection, ensure_bridge
from crewship.docker_engine import DockerEngine
from crewship.egress.wiring import mac_of
from crewship.engine import ContainerSpec, Limits
from crewship.errors import Unavailable
from tests.fixtures.engine import bridge, connection, engine, platform_image  # noqa: F401

pytestmark = pytest.mark.docker


def test_a_containers_address_is_known_before_it_starts_and_its_mac_belongs_to_it(
    engine: DockerEngine, connection: DockerConnection, platform_image: str, bridge: str
) -> None:
    gateway = ensure_closed_bridge(connection.api, bridge, engine.instance)
    assert ensure_closed_bridge(connection.api, bridge, engine.instance) == gateway
    found = connection.api.inspect_network(bridge)
    assert found["Internal"]
    assert gateway in IPv4Network(found["IPAM"]["Config"][0]["Subnet"])
    limits = Limits(memory_bytes=64 << 20, cpus=1, pids=64)
    made = []
    try:
        for number in range(3):
            name = f"crewship-run-closed-{bridge}-{number}"
            made.append(engine.create(ContainerSpec(name, platform_image, limits, "run", bridge, allow=("a.example",))))
        before = [engine.inspect(container) for container in made]
        assert [state.status for state in before] == ["created"] * 3
        assert len({state.address for state in before} | {str(gateway)}) == 4
        for state in before:
            engine.start(state.id)
            after = engine.inspect(state.id)
            assert after.address == state.address
            (endpoint,) = connection.api.inspect_container(state.id)["NetworkSettings"]["Networks"].values()
            if endpoint["MacAddress"]:  # it runs still
                assert endpoint["MacAddress"] == mac_of(IPv4Address(state.address))
    finally:
        for container in made:
            engine.remove(container)


def test_a_bridge_that_somebody_else_made_is_not_taken(
    engine: DockerEngine, connection: DockerConnection, bridge: str
) -> None:
    ensure_bridge(connection.api, bridge, engine.instance)
    with pytest.raises(Unavailable, match="is not an internal one") as refused:
        ensure_closed_bridge(connection.api, bridge, engine.instance)
    assert f"docker network rm {bridge}" in str(refused.value.hint)
