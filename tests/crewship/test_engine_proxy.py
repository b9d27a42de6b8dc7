"""The proxy that compose puts before the engine lets through what the platform does, and nothing of the host's."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import docker.errors
import httpx
import pytest

from crewship.docker_connection import DockerConnection
from crewship.docker_engine import DockerEngine
from crewship.docker_stream import DockerStream
from crewship.engine import LABEL_INSTANCE, ContainerSpec, Limits
from tests.fixtures.engine import connection, engine, platform_image, probe_image  # noqa: F401
from tests.fixtures.engine_proxy import engine_proxy  # noqa: F401

pytestmark = pytest.mark.docker


@pytest.fixture
def filtered(engine_proxy: str) -> Iterator[DockerConnection]:  # noqa: F811
    connection = DockerConnection(engine_proxy)  # noqa: F811
    yield connection
    connection.close()


@pytest.fixture
def plain(engine_proxy: str) -> Iterator[httpx.Client]:  # noqa: F811
    """Requests as they are written here, without what the SDK makes of them."""
    transport = httpx.HTTPTransport(uds=engine_proxy.removeprefix("unix://"))
    with httpx.Client(base_url="http://engine", transport=transport, timeout=30) as client:
        yield client


def test_a_run_from_its_creation_to_its_end(
    engine: DockerEngine, filtered: DockerConnection, probe_image: str  # noqa: F811
) -> None:  # fmt: skip
    through = DockerEngine(engine.instance, filtered)
    spec = ContainerSpec(
        "crewship-test-proxied", probe_image, Limits(memory_bytes=64 << 20, cpus=1, pids=32), "run", None, {}
    )
    container = through.create(spec)
    try:
        attachment = through.attach(container)
        through.start(container)
        attachment.write(b"print('by the', 'proxy'); open('/app/out.txt', 'w').write('kept')\n")
        said = b""
        while not said.endswith(b"\n"):
            piece = attachment.read()
            assert piece is not None, said
            said += piece[1]
        assert said == b"by the proxy\n"
        assert container in [state.id for state in through.list()]
        attachment.write(b"raise SystemExit(7)\n")
        while attachment.read() is not None:
            pass
        attachment.close()
        assert filtered.api.wait(container)["StatusCode"] == 7
        chunks, _ = filtered.api.get_archive(container, "/app/out.txt")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            member = archive.extractfile("out.txt")
            assert member is not None
            assert member.read() == b"kept"
    finally:
        through.remove(container)
    assert through.list() == []


def test_a_build_container(engine: DockerEngine, filtered: DockerConnection, platform_image: str) -> None:  # noqa: F811
    api = filtered.api
    made = api.create_container(
        image=platform_image, entrypoint=["sleep", "60"], user="0:0", labels={LABEL_INSTANCE: engine.instance, "é": "ü"},
        host_config=api.create_host_config(
            network_mode="none", cap_drop=["ALL"], cap_add=["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
            security_opt=["no-new-privileges:true"],
        ),
    )["Id"]  # fmt: skip
    try:
        api.start(made)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo("large")
            info.size = 5_000_000
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        assert api.put_archive(made, "/tmp", buffer.getvalue())
        command = api.exec_create(made, ["wc", "-c", "/tmp/large"])["Id"]
        stream = DockerStream.open(api, f"/exec/{command}/start", json={"Detach": False, "Tty": False})
        assert b"".join(piece[1] for piece in iter(stream.read, None)) == b"5000000 /tmp/large\n"
        stream.close()
        assert api.exec_inspect(command)["ExitCode"] == 0
        image = api.commit(made, conf={"Labels": {LABEL_INSTANCE: engine.instance}})["Id"]
        assert api.inspect_image(image)["Id"] == image
        api.remove_image(image)
    finally:
        api.remove_container(made, force=True, v=True)


def test_a_smoke_boot_shares_the_network_of_its_build(
    engine: DockerEngine, filtered: DockerConnection, probe_image: str  # noqa: F811
) -> None:  # fmt: skip
    through = DockerEngine(engine.instance, filtered)
    limits, build = Limits(memory_bytes=64 << 20, cpus=1, pids=32), "crewship-build-dep-0a1b"
    holder = through.create(ContainerSpec(build, probe_image, limits, "smoke", None))
    try:
        through.start(holder)
        beside = through.create(ContainerSpec("crewship-test-beside", probe_image, limits, "smoke", None, beside=build))
        try:
            through.start(beside)
            assert through.inspect(beside).status == "running"
        finally:
            through.remove(beside)
    finally:
        through.remove(holder)


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"privileged": True},
        {"NetworkMode": "none", "networkMODE": "host"},
        {"Binds": ["/:/host"]},
        {"Binds": ["/var/run/docker.sock:/s:ro"]},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
        {
            "Mounts": [
                {
                    "Type": "volume", "Target": "/host",
                    "VolumeOptions": {"DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/etc"}}},
                }
            ]
        },
        {"NetworkMode": "host"},
        {"NetworkMode": "container:other"},
        {"NetworkMode": "container:crewship-run-1"},
        {"NetworkMode": "container:crewship-build-dep-1", "networkmode": "container:other"},
        {"PidMode": "container:crewship-build-dep-1"},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"UsernsMode": "host"},
        {"CapAdd": ["SYS_ADMIN"]},
        {"CapAdd": ["CHOWN", "NET_ADMIN"]},
        {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
        {"SecurityOpt": ["seccomp=unconfined"]},
        {"VolumesFrom": ["other"]},
    ],
)  # fmt: skip
def test_nothing_of_the_hosts_is_in_a_container(
    plain: httpx.Client,
    probe_image: str,  # noqa: F811
    host: dict[str, Any],
) -> None:
    for body in ({"HostConfig": host}, {"Labels": {"long": "x" * 70_000}, "HostConfig": host}):
        response = plain.post("/v1.44/containers/create", json={"Image": probe_image, **body})
        if response.status_code == 201:
            plain.delete(f"/containers/{response.json()['Id']}")
        assert response.status_code == 403, body
        assert "refused by the engine proxy" in response.json()["message"]


def test_names_cannot_be_hidden_by_escapes(plain: httpx.Client, probe_image: str) -> None:  # noqa: F811
    body = f'{{"Image": "{probe_image}", "HostConfig": {{"\\u0042inds": ["/:/host"]}}}}'
    response = plain.post("/containers/create", content=body, headers={"Content-Type": "application/json"})
    if response.status_code == 201:
        plain.delete(f"/containers/{response.json()['Id']}")
    assert response.status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/prune"),
        ("POST", "/images/prune"),
        ("POST", "/volumes/prune"),
        ("POST", "/networks/prune"),
        ("POST", "/build"),
        ("POST", "/swarm/init"),
        ("POST", "/containers/x/update"),
        ("POST", "/plugins/pull"),
        ("POST", "/session"),
        ("POST", "/auth"),
        ("GET", "/secrets"),
        ("GET", "/containers/x/export"),
        ("GET", "/images/get"),
        ("PUT", "/swarm"),
        ("GET", "/images/..%2f..%2fsecrets/json"),
    ],
)
def test_what_the_platform_never_calls(plain: httpx.Client, method: str, path: str) -> None:
    for prefix in ("/v1.44", ""):
        response = plain.request(method, f"{prefix}{path}")
        assert response.status_code == 403, response.text
        assert "not a call that Crewship makes" in response.json()["message"]


def test_the_worker_is_told_why(filtered: DockerConnection) -> None:
    with pytest.raises(docker.errors.APIError, match="refused by the engine proxy"):
        filtered.api.prune_containers()
