"""The closed bridge in the container engine: for runs that may reach named hosts alone.

``internal``, so the engine itself lets nothing out of it; the guard's rules open the proxy's port, and the proxy knows a run by
its address. So addresses are chosen here and not by the engine: at random, so that one that a run had rests before another has
it, and with the MAC address that belongs to it, which the guard's rules ask for. The engine takes addresses for a network only if
it was told the network's range; which one is free it knows better than we, so it is asked first.
"""

import random
import secrets
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import docker.errors
from docker.types import IPAMConfig, IPAMPool

from crewship.docker_connection import require_apart
from crewship.egress.wiring import mac_of
from crewship.engine import LABEL_INSTANCE

_RANDOM = random.SystemRandom()


def ensure_closed_bridge(api: Any, name: str, instance: str) -> IPv4Address:
    """Make it unless it is there; the host's address on it.

    Raises:
        Unavailable: one of that name is there, and is not as it has to be.
    """
    found = _found(api, name)
    if found is None:
        try:
            _make(api, name, instance, _free_range(api, instance))
        except docker.errors.APIError:
            # Another process may have made it meanwhile.
            if _found(api, name) is None:
                raise
        found = _found(api, name)
    assert found is not None
    require_apart(name, found, is_closed=True)
    return IPv4Address(found["IPAM"]["Config"][0]["Gateway"].partition("/")[0])


def closed_endpoint(api: Any, name: str) -> Any:
    """The configuration of a new container's end on it: an address that nobody has, and what belongs to that."""
    found = api.inspect_network(name)
    pool = found["IPAM"]["Config"][0]
    network, gateway = IPv4Network(pool["Subnet"]), IPv4Address(pool["Gateway"].partition("/")[0])
    taken = {IPv4Address(row["IPv4Address"].partition("/")[0]) for row in (found.get("Containers") or {}).values()}
    address = gateway
    while address == gateway or address in taken:
        address = network[_RANDOM.randrange(1, network.num_addresses - 1)]
    endpoint = api.create_endpoint_config(ipv4_address=str(address), mac_address=mac_of(address))
    return api.create_networking_config({name: endpoint})


def _found(api: Any, name: str) -> Any:
    try:
        return api.inspect_network(name)
    except docker.errors.NotFound:
        return None


def _free_range(api: Any, instance: str) -> dict[str, str]:
    """A subnet and its gateway that the engine would give to a new network."""
    name = f"crewship-range-{secrets.token_hex(4)}"
    network = api.create_network(name, driver="bridge", internal=True, labels={LABEL_INSTANCE: instance})["Id"]
    try:
        pool: dict[str, str] = api.inspect_network(network)["IPAM"]["Config"][0]
        return pool
    finally:
        api.remove_network(network)


def _make(api: Any, name: str, instance: str, pool: dict[str, str]) -> None:
    gateway = pool["Gateway"].partition("/")[0]
    api.create_network(
        name,
        driver="bridge",
        internal=True,
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=pool["Subnet"], gateway=gateway)]),
        options={
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.name": name,
        },
        labels={LABEL_INSTANCE: instance},
        check_duplicate=True,
    )
