"""The engine's port against a real Docker daemon: profile, streams, life cycle, archive."""

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from crewship.docker_connection import DockerConnection
from crewship.docker_engine import DockerEngine
from crewship.engine import (
    LABEL_DEPLOYMENT,
    LABEL_INSTANCE,
    LABEL_KIND,
    Attachment,
    ContainerMissing,
    ContainerSpec,
    ImageMissing,
    Limits,
)
from crewship.errors import Conflict, Unavailable
from tests.fixtures.engine import connection, engine, platform_image, probe_image  # noqa: F401

pytestmark = pytest.mark.docker

LIMITS = Limits(memory_bytes=256 << 20, cpus=0.5, pids=64)
BRIDGE = f"crewtest{secrets.token_hex(3)}"


@pytest.fixture
def spec(probe_image: str) -> Callable[..., ContainerSpec]:  # noqa: F811
    def make(network: str | None = None, **labels: str) -> ContainerSpec:
        return ContainerSpec(f"crewship-test-{secrets.token_hex(6)}", probe_image, LIMITS, "run", network, labels)

    return make


@pytest.fixture(scope="module")
def bridge(engine: DockerEngine, connection: DockerConnection) -> Iterator[str]:  # noqa: F811
    yield BRIDGE
    for state in engine.list():
        engine.remove(state.id)
    connection.api.remove_network(BRIDGE)


class Probe:
    """A started container and a line of Python for it at a time."""

    def __init__(self, container: str, attachment: Attachment) -> None:
        self.container = container
        self.attachment = attachment

    def tell(self, code: str) -> None:
        self.attachment.write(code.encode() + b"\n")

    def ask(self, expression: str, imports: str = "os") -> str:
        """The value of ``expression``, as it prints."""
        self.tell(f"import sys, {imports}; print({expression}, chr(4))")
        return self.until(b"\x04\n").decode().strip("\x04\n ")

    def until(self, ending: bytes) -> bytes:
        """Output up to ``ending``."""
        output = b""
        while not output.endswith(ending):
            piece = self.attachment.read()
            assert piece is not None, output
            output += piece[1]
        return output


@contextmanager
def probing(engine: DockerEngine, spec: ContainerSpec) -> Iterator[Probe]:  # noqa: F811
    container = engine.create(spec)
    attachment = engine.attach(container)
    try:
        engine.start(container)
        yield Probe(container, attachment)
    finally:
        attachment.close()
        engine.remove(container)


@pytest.fixture
def probe(engine: DockerEngine, spec: Callable[..., ContainerSpec]) -> Iterator[Probe]:  # noqa: F811
    with probing(engine, spec()) as started:
        yield started


def test_the_profile_as_the_kernel_enforces_it(probe: Probe) -> None:
    status = dict(
        line.split(":\t", 1) for line in probe.ask("open('/proc/self/status').read()").splitlines() if ":\t" in line
    )
    assert probe.ask("os.getpid()") == "1"
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")] == [0] * 5
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert probe.ask("resource.getrlimit(resource.RLIMIT_NOFILE)", "resource") == "(1024, 1024)"
    assert probe.ask("resource.getrlimit(resource.RLIMIT_CORE)", "resource") == "(0, 0)"
    assert probe.ask("sorted(os.listdir('/sys/class/net'))") == "['lo']"


def test_what_can_be_written(probe: Probe) -> None:
    flags = {
        fields[1]: fields[3].split(",")
        for fields in (line.split() for line in probe.ask("open('/proc/mounts').read()").splitlines())
    }
    assert "ro" in flags["/"]
    assert {"rw", "noexec", "nosuid", "nodev"} <= set(flags["/tmp"])
    assert {"rw", "nosuid", "nodev"} <= set(flags["/home/crew"])
    assert probe.ask("os.getcwd(), os.stat('/app').st_uid, os.listdir('/app')") == "/app 10001 []"
    for folder in ("/app", "/tmp", "/home/crew", "/dev/shm"):
        assert probe.ask(f"open('{folder}/x', 'w').write('12')") == "2"
    for folder in ("/", "/etc", "/opt/crewship", "/usr/lib", "/home"):
        assert probe.ask(f"os.access('{folder}', os.W_OK)") == "False"


def test_what_the_engine_was_asked_for(engine: DockerEngine, connection: DockerConnection, probe: Probe) -> None:  # noqa: F811
    found = connection.api.inspect_container(probe.container)
    host = found["HostConfig"]
    assert (found["Config"]["OpenStdin"], found["Config"]["StdinOnce"]) == (True, False)
    assert host["LogConfig"]["Type"] == "none"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (LIMITS.memory_bytes, LIMITS.memory_bytes, 64)
    assert host["CpuQuota"] / host["CpuPeriod"] == 0.5
    assert host["Init"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["NetworkMode"] == "none"
    assert not host["Privileged"]
    assert not host["CapAdd"]
    assert {port["RW"] for port in found["Mounts"]} == {True}
    assert [mount["Destination"] for mount in found["Mounts"] if mount["Type"] == "volume"] == ["/app"]


def test_the_volume_goes_with_the_container(
    engine: DockerEngine,  # noqa: F811
    connection: DockerConnection,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    container = engine.create(spec())
    (mount,) = connection.api.inspect_container(container)["Mounts"]
    connection.api.inspect_volume(mount["Name"])
    engine.remove(container)
    assert not connection.api.volumes(filters={"name": mount["Name"]})["Volumes"]


def test_the_bridge_is_made_and_keeps_containers_apart(
    engine: DockerEngine,  # noqa: F811
    connection: DockerConnection,  # noqa: F811
    spec: Callable[..., ContainerSpec],
    bridge: str,
) -> None:
    with probing(engine, spec(bridge)) as one, probing(engine, spec(bridge)) as other:
        network = connection.api.inspect_network(bridge)
        assert network["Options"]["com.docker.network.bridge.name"] == bridge
        assert one.ask("sorted(os.listdir('/sys/class/net'))") == "['eth0', 'lo']"
        address = connection.api.inspect_container(one.container)["NetworkSettings"]["Networks"][bridge]["IPAddress"]
        one.tell("import socket; server = socket.create_server(('0.0.0.0', 8000))")
        assert one.ask("server.getsockname()") == "('0.0.0.0', 8000)"
        other.tell("import socket; s = socket.socket(); s.settimeout(0.5)")
        assert other.ask(f"s.connect_ex(('{address}', 8000)) == 0") == "False"


def test_a_bridge_that_was_removed_is_made_again(
    connection: DockerConnection,  # noqa: F811
    engine: DockerEngine,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    name = f"cst{secrets.token_hex(4)}"
    container = engine.create(spec(name))
    connection.api.remove_network(name)
    engine.start(container)
    assert engine.inspect(container).status == "running"
    engine.remove(container)
    connection.api.remove_network(name)


def test_create_twice_gives_the_same_container(
    engine: DockerEngine,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    wanted = spec(purpose="adoption")
    container = engine.create(wanted)
    assert engine.create(wanted) == container
    state = engine.inspect(wanted.name)
    assert (state.id, state.name, state.status, state.exit_code) == (container, wanted.name, "created", None)
    assert state.labels["purpose"] == "adoption"
    with pytest.raises(Conflict):
        DockerEngine("another-installation", engine.connection).create(wanted)
    engine.remove(container)


def test_rename_and_list(
    engine: DockerEngine,  # noqa: F811
    connection: DockerConnection,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    one, other = engine.create(spec()), engine.create(spec())
    name = f"crewship-test-{secrets.token_hex(6)}"
    engine.rename(one, name)
    assert {state.id for state in engine.list()} >= {one, other}
    assert {state.name for state in engine.list("run")} >= {name}
    assert engine.names() >= {state.name for state in engine.list()}
    assert engine.list("smoke") == []
    assert DockerEngine("another-installation", connection).list() == []
    with pytest.raises(Conflict):
        engine.rename(other, name)
    engine.remove(one)
    engine.remove(other)


def test_the_end_of_a_container(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    assert engine.wait(probe.container, 0.05) is False
    assert engine.inspect(probe.container).status == "running"
    probe.tell("sys = __import__('sys'); sys.exit(3)")
    assert engine.wait(probe.container, 20) is True
    state = engine.inspect(probe.container)
    assert (state.status, state.exit_code, state.oom_killed) == ("exited", 3, False)
    assert probe.attachment.read() is None
    engine.start(probe.container)
    assert engine.inspect(probe.container).status == "exited", "a container has one life"
    assert engine.kill(probe.container, "TERM") is False


def test_signals_reach_the_first_process(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    probe.tell("import signal; signal.signal(15, lambda *_: print('asked'))")
    assert probe.ask("'ready'") == "ready"
    assert engine.kill(probe.container, "TERM") is True
    assert probe.until(b"asked\n") == b"asked\n"
    assert engine.kill(probe.container, "KILL") is True
    assert engine.wait(probe.container, 20)
    assert engine.inspect(probe.container).exit_code == 137


def test_a_kill_for_memory_is_told(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    probe.tell("hoard = [bytearray(16 << 20) for _ in range(100)]")
    assert engine.wait(probe.container, 30)
    state = engine.inspect(probe.container)
    assert (state.exit_code, state.oom_killed) == (137, True)


def test_both_streams_whole_and_in_order(probe: Probe) -> None:
    line = b"x" * 99 + b"\n"
    probe.tell("import os; [os.write(1, b'x' * 99 + b'\\n') for _ in range(50_000)]; os.write(2, b'done')")
    output, errors = hashlib.sha256(), b""
    count = 0
    while not errors or count < 50_000 * 100:
        piece = probe.attachment.read()
        assert piece is not None
        if piece[0] == "stdout":
            output.update(piece[1])
            count += len(piece[1])
        else:
            errors += piece[1]
    assert (output.hexdigest(), errors) == (hashlib.sha256(line * 50_000).hexdigest(), b"done")


def test_stdin_takes_a_large_input(probe: Probe) -> None:
    probe.tell("x = " + repr("y" * (2 << 20)))
    assert probe.ask("len(x)") == str(2 << 20)


def test_attaching_again_goes_on_at_a_frame(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    probe.tell("import itertools, threading, time; go = threading.Event()")
    probe.tell(
        "threading.Thread(target=lambda: [print(f'{i:09d}', flush=True) for i in itertools.count() "
        "if not go.is_set()], daemon=True).start()"
    )
    seen = b""
    while len(seen) < 100_000:
        piece = probe.attachment.read()
        assert piece is not None
        seen += piece[1]
    for _ in range(5):
        probe.attachment.close()
        assert probe.attachment.read() is None
        probe.attachment = engine.attach(probe.container)
        seen = b""
        while len(seen) < 100_000:
            piece = probe.attachment.read()
            assert piece is not None
            assert piece[0] == "stdout"
            seen += piece[1]
        numbers = [int(line) for line in seen.split(b"\n")[1:-1]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "nothing lost within one attachment"
    probe.tell("go.set(); time.sleep(0.1); print('END')")
    assert probe.until(b"END\n").endswith(b"END\n")


def test_two_readers_each_get_everything(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    other = Probe(probe.container, engine.attach(probe.container))
    probe.tell("print('once')")
    assert probe.until(b"once\n") == other.until(b"once\n")
    other.attachment.close()
    assert probe.ask("1 + 1") == "2", "stdin outlives an attachment"


def test_close_wakes_the_reader(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    read: list[object] = []
    reading = threading.Event()

    def reader() -> None:
        reading.set()
        read.append(probe.attachment.read())

    thread = threading.Thread(target=reader)
    thread.start()
    reading.wait()
    probe.attachment.close()
    thread.join(5)
    assert read == [None]
    assert engine.inspect(probe.container).status == "running"
    with pytest.raises(ConnectionError):
        probe.attachment.write(b"x")


def test_archive(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    digest = hashlib.sha256(b"0123456789abcdef" * (1 << 20)).hexdigest()
    for code in (
        "import os; os.makedirs('/app/artifacts/a/b'); os.chdir('/app/artifacts')",
        "open('empty', 'w').close(); open('a/b/ünïcode 名.txt', 'w').write('deep')",
        "open(b'caf\\xe9', 'w').write('latin'); open('n' * 200, 'w').write('long name')",
        "_ = [open('large', 'ab').write(b'0123456789abcdef' * 65536) for _ in range(16)]",
        "os.link('large', 'a/linked'); os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe'); os.mkdir('folder')",
    ):
        probe.tell(code)
    assert probe.ask("len(os.listdir('.'))") == "8"
    for _ in ("running", "ended"):
        found = {}
        for file in engine.archive(probe.container, "/app/artifacts"):
            sha256, size = hashlib.sha256(), 0
            for chunk in file.chunks:
                sha256.update(chunk)
                size += len(chunk)
                assert len(chunk) <= 64 * 1024
            assert size == file.size_bytes
            found[file.name] = (size, sha256.hexdigest())
        assert {name: size for name, (size, _) in found.items()} == {
            "empty": 0,
            "a/b/ünïcode 名.txt": 4,
            "caf\\xe9": 5,
            "n" * 200: 9,
            "large": 16 << 20,
            "a/linked": 16 << 20,
        }
        assert found["large"][1] == found["a/linked"][1] == digest
        engine.kill(probe.container, "KILL")
        engine.wait(probe.container, 20)


def test_archive_is_read_as_far_as_wanted(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    probe.tell("import os; os.mkdir('artifacts')")
    probe.tell("_ = [open(f'artifacts/{i}', 'wb').write(bytes(1 << 20)) for i in range(8)]")
    assert probe.ask("len(os.listdir('artifacts'))") == "8"
    assert len([file.name for file in engine.archive(probe.container, "/app/artifacts")]) == 8, "no content asked for"
    files = engine.archive(probe.container, "/app/artifacts")
    assert len(next(next(files).chunks)) > 0
    assert len(list(files)) == 7, "the rest of a file is skipped"
    assert list(engine.archive(probe.container, "/app/nothing")) == []
    assert list(engine.archive(probe.container, "/app/artifacts/1")) == [], "a file is no folder"


def test_archive_does_not_follow_a_folder_that_is_a_link(engine: DockerEngine, probe: Probe) -> None:  # noqa: F811
    probe.tell("import os; os.symlink('/etc', '/app/artifacts')")
    assert probe.ask("os.path.islink('/app/artifacts')") == "True"
    assert list(engine.archive(probe.container, "/app/artifacts")) == []


def test_what_is_missing(engine: DockerEngine, spec: Callable[..., ContainerSpec]) -> None:  # noqa: F811
    for call in (engine.inspect, engine.start, engine.attach, lambda name: engine.wait(name, 1)):
        with pytest.raises(ContainerMissing):
            call("crewship-not-there")
    with pytest.raises(ContainerMissing):
        engine.rename("crewship-not-there", "crewship-new-name")
    with pytest.raises(ContainerMissing):
        list(engine.archive("crewship-not-there", "/app"))
    with pytest.raises(ImageMissing):
        engine.create(ContainerSpec("crewship-never", "crewship/not-there:1", LIMITS, "run", None))
    assert engine.kill("crewship-not-there", "KILL") is False
    engine.remove("crewship-not-there")
    engine.remove_image("crewship/not-there:1")
    assert engine.image_exists("crewship/not-there:1") is False


def test_images(engine: DockerEngine, connection: DockerConnection, spec: Callable[..., ContainerSpec]) -> None:  # noqa: F811
    container = engine.create(spec())
    image = connection.api.commit(container, "crewship/test-image", secrets.token_hex(4))["Id"]
    assert engine.image_exists(image)
    user = engine.create(ContainerSpec(f"crewship-test-{secrets.token_hex(6)}", image, LIMITS, "run", None))
    with pytest.raises(Conflict):
        engine.remove_image(image)
    engine.remove(user)
    engine.remove(container)
    engine.remove_image(image)
    assert not engine.image_exists(image)


def test_images_and_what_they_are_built_on(
    engine: DockerEngine,  # noqa: F811
    connection: DockerConnection,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    def commit(image: str, **labels: str) -> str:
        container = engine.create(replace(spec(), image=image))
        conf = {"Labels": {LABEL_INSTANCE: engine.instance, LABEL_KIND: "image"} | labels}
        made = connection.api.commit(container, "crewship/test-image", secrets.token_hex(4), conf=conf)["Id"]
        assert image != spec().image or engine.images_in_use() >= {connection.api.inspect_image(image)["Id"]}
        engine.remove(container)
        return str(made)

    below = commit(spec().image)
    above = commit(below, **{LABEL_DEPLOYMENT: "dep_1"})
    found = {image.id: image for image in engine.images()}
    assert found.keys() >= {below, above}
    assert (found[below].deployment_id, found[above].deployment_id) == (None, "dep_1")
    assert found[below].is_parent_of == {above}
    assert found[above].name.startswith("crewship/test-image:")
    assert found[above].size_bytes < connection.api.inspect_image(above)["Size"]
    for image in (above, below):
        engine.remove_image(image)
    assert not {above, below} & {image.id for image in engine.images()}


def test_volumes_and_networks_that_nobody_has(
    engine: DockerEngine,  # noqa: F811
    connection: DockerConnection,  # noqa: F811
    spec: Callable[..., ContainerSpec],
) -> None:
    name = f"cst{secrets.token_hex(4)}"
    with probing(engine, spec(name)) as used:
        (mount,) = connection.api.inspect_container(used.container)["Mounts"]
        volume = connection.api.inspect_volume(mount["Name"])
        assert volume["Labels"] == {LABEL_INSTANCE: engine.instance}
        left = connection.api.create_volume(labels=volume["Labels"])["Name"]
        others = connection.api.create_volume(labels={LABEL_INSTANCE: "another-installation"})["Name"]
        assert left in engine.dangling_volumes()
        assert not {others, volume["Name"]} & engine.dangling_volumes()
        assert name in engine.networks()
        assert not engine.remove_volume(volume["Name"])
        assert not engine.remove_network(name)
    assert engine.remove_volume(left)
    assert engine.remove_volume(left)
    assert left not in engine.dangling_volumes()
    connection.api.remove_volume(others)
    assert engine.remove_network(name)
    assert engine.remove_network(name)
    assert name not in engine.networks()


def test_an_engine_that_is_down(tmp_path: Path) -> None:
    engine = DockerEngine("nobody", DockerConnection(f"unix://{tmp_path}/docker.sock"))  # noqa: F811
    for call in (engine.check, engine.list, lambda: engine.inspect("x"), lambda: engine.remove("x"), engine.started_at):
        with pytest.raises(Unavailable) as caught:
            call()
        assert "Docker" in caught.value.detail
        assert caught.value.hint


def test_an_engine_that_is_up(engine: DockerEngine) -> None:  # noqa: F811
    engine.check()
    assert engine.started_at() == engine.started_at() != ""


def test_many_threads_share_the_connection(engine: DockerEngine, probe: Probe, probe_image: str) -> None:  # noqa: F811
    failures: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            for attempt in range(20):
                assert engine.inspect(probe.container).status == "running"
                assert not engine.image_exists(f"crewship/not-there:{number}-{attempt}")
                assert json.loads(json.dumps(engine.list("run")[0].labels))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
