"""The container engine's port, by Docker.

Every container gets the same hardened profile, and a caller cannot loosen it: a uid of its own, a read-only root, no
capabilities, no new privileges, limits for memory (no swap), CPU and processes, no log of the engine's, and an anonymous
volume at ``/app`` that goes with the container. What is not set is Docker's default: its seccomp profile, its masked
paths. Measured, the profile costs nothing at the start; the bridge costs 80 ms. So does the mode "none", which a container
without a network has all the same: with its network disabled it would not know who "localhost" is.

The image's first process is the supervisor, which reaps and forwards signals, so Docker's own init is off. Stdin stays open
for the container's life (``StdinOnce`` is off), so that a reader that went away attaches again.

A run's path is four calls: create, attach, start, and wait or kill. Nothing is asked that is not needed for them.
"""

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

import docker.errors
import requests
import urllib3.exceptions
from docker.types import Mount, Ulimit

from crewship.closed_bridge import closed_endpoint, ensure_closed_bridge
from crewship.docker_connection import DockerConnection, ensure_bridge, has_status, translated
from crewship.docker_meter import open_meter
from crewship.docker_stream import DockerStream
from crewship.engine import (
    LABEL_DEPLOYMENT,
    LABEL_INSTANCE,
    LABEL_KIND,
    ArchiveFile,
    Attachment,
    ContainerMissing,
    ContainerSpec,
    ContainerState,
    ImageMissing,
    ImageState,
)
from crewship.errors import Conflict, Unavailable
from crewship.recording import Looks
from crewship.streams import as_file

UID = 10001
HOME = "/home/crew"
APP = "/app"

_CPU_PERIOD_US = 100_000
_SHM_BYTES = 64 << 20
_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 10
_SANDBOX_PIDS = 512
"""gVisor's own threads count too, 26 for one process and 118 for 61; with too few it ends as a whole, and says nothing."""
_TMPFS = {
    # Pages of a tmpfs count as the container's memory. Nothing can be started from /tmp; HOME is where packages unpack
    # libraries that they load, and /app allows as much.
    "/tmp": "rw,noexec,nosuid,nodev,size=64m,nr_inodes=10k,mode=1777",
    HOME: f"rw,exec,nosuid,nodev,size=256m,nr_inodes=10k,mode=0700,uid={UID},gid={UID}",
}
_KINDS = frozenset({"run", "spare", "smoke", "build"})
_STATUSES: dict[str, Literal["created", "running", "exited", "other"]] = {
    "created": "created",
    "running": "running",
    "exited": "exited",
}


class DockerEngine:
    """``crewship.engine.Engine`` by a Docker daemon (API 1.41 and later).

    Args:
        instance: This installation's name; its containers carry it as a label, and others are never listed.
        connection: The daemon; None: the one that ``DOCKER_HOST`` names, or the local one.
        runtime: What containers are run by, one that the daemon knows; empty: its default.
        dns: Servers that containers on a bridge ask for names; none: the daemon's.
    """

    def __init__(
        self,
        instance: str,
        connection: DockerConnection | None = None,
        *,
        runtime: str = "",
        dns: Sequence[str] = (),
    ) -> None:
        self.instance = instance
        self._runtime, self._dns = runtime, list(dns)
        self.connection = connection or DockerConnection()
        self._bridges: set[str] = set()
        """Those that were seen or made by this process."""

    def close(self) -> None:
        """Let the connections go; attachments stay."""
        self.connection.close()

    def check(self) -> None:
        with translated():
            self.connection.api.ping()

    def create(self, spec: ContainerSpec) -> str:
        api = self.connection.api
        with translated(spec.name):
            if spec.network is not None and not spec.allow and spec.network not in self._bridges:
                ensure_bridge(api, spec.network, self.instance)
                self._bridges.add(spec.network)
            if spec.network is not None and spec.allow:
                ensure_closed_bridge(api, spec.network, self.instance)
            try:
                created = api.create_container(
                    image=spec.image,
                    name=spec.name,
                    user=f"{UID}:{UID}",
                    working_dir=APP,
                    labels={**spec.labels, LABEL_INSTANCE: self.instance, LABEL_KIND: spec.kind},
                    stdin_open=True,
                    detach=True,  # or the SDK sets StdinOnce: the first detach would end stdin
                    host_config=self._host_config(api, spec),
                    networking_config=closed_endpoint(api, spec.network) if spec.network and spec.allow else None,
                )
            except docker.errors.NotFound as error:
                raise ImageMissing(spec.image) from error
            except docker.errors.APIError as error:
                if not has_status(error, HTTPStatus.CONFLICT):
                    raise
                return self._existing(spec.name)
        return str(created["Id"])

    def _host_config(self, api: Any, spec: ContainerSpec) -> Any:
        limits = spec.limits
        is_plain = self._runtime in ("", "runc")
        # A sandbox of another kind has a network stack of its own, which takes over what it is given.
        apart = f"container:{spec.beside}" if spec.beside and is_plain else "none"
        return api.create_host_config(
            network_mode=spec.network or apart,
            dns=self._dns or None if spec.network else None,
            dns_opt=["timeout:1", "attempts:1"] if spec.network else None,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            tmpfs=_TMPFS,
            # Labelled, so that one that the engine leaves behind (it was killed in a removal) is known as ours.
            mounts=[Mount(target=APP, source=None, type="volume", labels={LABEL_INSTANCE: self.instance})],
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            # As a quota: Docker refuses nano_cpus beyond the host's CPUs, and a config may come from a larger host.
            cpu_period=_CPU_PERIOD_US,
            cpu_quota=round(limits.cpus * _CPU_PERIOD_US),
            pids_limit=limits.pids if is_plain else max(limits.pids, _SANDBOX_PIDS),
            runtime=self._runtime or None,
            ulimits=[
                Ulimit(name="nofile", soft=1024, hard=1024),
                Ulimit(name="fsize", soft=limits.disk_bytes, hard=limits.disk_bytes),
                Ulimit(name="core", soft=0, hard=0),
            ],
            shm_size=_SHM_BYTES,
            init=False,
            log_config={"type": "none"},
            restart_policy={"Name": "no"},
        )

    def _existing(self, name: str) -> str:
        """Id of our container that has the name already."""
        found = self.connection.api.inspect_container(name)
        if found["Config"]["Labels"].get(LABEL_INSTANCE) != self.instance:
            raise Conflict(f"A container that is not ours has the name {name}")
        return str(found["Id"])

    def rename(self, container: str, name: str) -> None:
        with translated(container):
            try:
                self.connection.api.rename(container, name)
            except docker.errors.APIError as error:
                if has_status(error, HTTPStatus.CONFLICT):
                    raise Conflict(f"There is a container {name} already") from error
                raise

    def attach(self, container: str) -> Attachment:
        with translated(container):
            return DockerStream.open(
                self.connection.api,
                f"/containers/{container}/attach",
                params={"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1},
            )

    def start(self, container: str) -> None:
        # Docker starts an ended container a second time when asked to; a container of ours has one life.
        state = self.inspect(container)
        if state.status != "created":
            return
        api = self.connection.api
        with translated(container):
            try:
                api.start(container)
            except docker.errors.NotFound:
                network = api.inspect_container(container)["HostConfig"]["NetworkMode"]
                if network.startswith(("none", "container:")) or _address(self._endpoint(container, network)):
                    raise
                ensure_bridge(api, network, self.instance)  # removed since it was made
                api.start(container)

    def _endpoint(self, container: str, network: str) -> dict[str, Any]:
        found = self.connection.api.inspect_container(container)["NetworkSettings"]["Networks"]
        return dict(found.get(network) or {})

    def kill(self, container: str, signal: str) -> bool:
        with translated(container):
            try:
                self.connection.api.kill(container, signal)
            except docker.errors.APIError as error:
                if has_status(error, HTTPStatus.NOT_FOUND) or has_status(error, HTTPStatus.CONFLICT):
                    return False
                # It may have ended under the daemon's hands.
                with suppress(ContainerMissing):
                    if self.inspect(container).status == "running":
                        raise
                return False
        return True

    def wait(self, container: str, timeout_seconds: float) -> bool:
        """As the port says; one that was never started counts as ended."""
        with translated(container):
            try:
                self.connection.api.wait(container, timeout=(_CONNECT_SECONDS, max(timeout_seconds, 0.001)))
            except requests.ReadTimeout:
                return False
            except requests.ConnectionError as error:
                # The answer's headers come at once and its body at the container's end.
                if error.args and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError):
                    return False
                raise
        return True

    def inspect(self, container: str) -> ContainerState:
        with translated(container):
            found = self.connection.api.inspect_container(container)
        state = found["State"]
        status = _STATUSES.get(state["Status"], "other")
        return ContainerState(
            id=found["Id"],
            name=found["Name"].lstrip("/"),
            status=status,
            exit_code=state["ExitCode"] if status == "exited" else None,
            oom_killed=bool(state["OOMKilled"]),
            labels=found["Config"]["Labels"] or {},
            started_at=state["StartedAt"],
            runtime=found["HostConfig"].get("Runtime") or "",
            address=next(filter(None, map(_address, found["NetworkSettings"]["Networks"].values())), ""),
        )

    def remove(self, container: str) -> None:
        api = self.connection.api
        with suppress(ContainerMissing), translated(container):
            try:
                api.remove_container(container, v=True, force=True)
            except docker.errors.APIError as error:
                if not has_status(error, HTTPStatus.CONFLICT):
                    raise
                # Somebody else is removing it; done means gone.
                api.wait(container, condition="removed")

    def list(self, kind: str | None = None) -> list[ContainerState]:
        states = []
        for row in self._rows(kind):
            with suppress(ContainerMissing):
                states.append(self.inspect(row["Id"]))
        return states

    def names(self) -> set[str]:
        # One that is being removed may have no name any more.
        return {row["Names"][0].lstrip("/") for row in self._rows() if row["Names"]}

    def _rows(self, kind: str | None = None) -> Iterable[Any]:
        wanted = LABEL_KIND if kind is None else f"{LABEL_KIND}={kind}"
        with translated():
            rows = self.connection.api.containers(
                all=True, filters={"label": [f"{LABEL_INSTANCE}={self.instance}", wanted]}
            )
        # A container that a person made from one of our images inherits the image's labels and is not ours.
        return [row for row in rows if row["Labels"].get(LABEL_KIND) in _KINDS]

    def meter(self, container: str) -> Looks | None:
        try:
            return open_meter(self.connection.api, container)
        except Unavailable:
            return None

    def archive(self, container: str, path: str) -> Iterator[ArchiveFile]:
        api = self.connection.api
        try:
            with translated(container):
                stream, _ = api.get_archive(container, path, chunk_size=_CHUNK_BYTES)
        except ContainerMissing:
            self.inspect(container)  # raises when it is the container that is missing, not the path
            return
        hard_links: list[tuple[str, str]] = []
        with closing(_TarStream(stream)) as tar:
            for member in tar.members():
                name = member.name.partition("/")[2]
                if member.islnk():
                    hard_links.append((name, member.linkname))
                elif member.isreg() and name:
                    yield ArchiveFile(name, member.size, tar.chunks(member))
        # A file with two names is in the stream once; the second name is a file of its own to those who read it.
        parent = path.rstrip("/").rpartition("/")[0]
        for name, first_name in hard_links:
            yield from self._single_file(container, f"{parent}/{first_name}", name)

    def _single_file(self, container: str, path: str, name: str) -> Iterator[ArchiveFile]:
        with suppress(ContainerMissing):
            with translated(container):
                stream, _ = self.connection.api.get_archive(container, path, chunk_size=_CHUNK_BYTES)
            with closing(_TarStream(stream)) as tar:
                for member in tar.members():
                    if member.isreg():
                        yield ArchiveFile(name, member.size, tar.chunks(member))

    def image_exists(self, image: str) -> bool:
        try:
            with translated(image):
                self.connection.api.inspect_image(image)
        except ContainerMissing:
            return False
        return True

    def remove_image(self, image: str) -> None:
        with suppress(ContainerMissing), translated(image):
            try:
                self.connection.api.remove_image(image)
            except docker.errors.APIError as error:
                if has_status(error, HTTPStatus.CONFLICT):
                    raise Conflict(f"Image {image} is in use") from error
                raise

    def images(self) -> Sequence[ImageState]:
        with translated():
            rows = {row["Id"]: row for row in self.connection.api.images(all=True)}
        children: dict[str, set[str]] = {}
        for row in rows.values():
            children.setdefault(row["ParentId"], set()).add(row["Id"])
        return [
            ImageState(
                id=row["Id"],
                name=next(iter(row["RepoTags"] or ()), row["Id"]),
                size_bytes=row["Size"] - rows.get(row["ParentId"], {"Size": 0})["Size"],
                created_at=datetime.fromtimestamp(row["Created"], UTC),
                deployment_id=(row["Labels"] or {}).get(LABEL_DEPLOYMENT),
                is_parent_of=frozenset(children.get(row["Id"], ())),
            )
            for row in rows.values()
            if (row["Labels"] or {}).get(LABEL_INSTANCE) == self.instance
        ]

    def images_in_use(self) -> set[str]:
        with translated():
            rows = self.connection.api.containers(all=True)
        ours = [row for kind in ("spare", "build") for row in self._rows(kind) if row["Names"]]
        ahead = {row["Id"] for row in ours if row["Names"][0].startswith(("/crewship-spare-", "/crewship-bench-"))}
        return {row["ImageID"] for row in rows if row["Id"] not in ahead}

    def remove_volume(self, volume: str) -> bool:
        with translated():
            try:
                self.connection.api.remove_volume(volume)
            except docker.errors.APIError as error:
                if has_status(error, HTTPStatus.CONFLICT):
                    return False
                if not has_status(error, HTTPStatus.NOT_FOUND):
                    raise
        return True

    def dangling_volumes(self) -> set[str]:
        with translated():
            ours = {"label": f"{LABEL_INSTANCE}={self.instance}", "dangling": "true"}
            return {row["Name"] for row in self.connection.api.volumes(filters=ours)["Volumes"] or ()}

    def networks(self) -> set[str]:
        with translated():
            rows = self.connection.api.networks(filters={"label": f"{LABEL_INSTANCE}={self.instance}"})
        return {row["Name"] for row in rows}

    def remove_network(self, network: str) -> bool:
        with translated():
            try:
                self.connection.api.remove_network(network)
            except docker.errors.APIError as error:
                if has_status(error, HTTPStatus.FORBIDDEN):
                    return False
                if not has_status(error, HTTPStatus.NOT_FOUND):
                    raise
        self._bridges.discard(network)
        return True

    def started_at(self) -> str:
        """When the daemon made its default bridge, which it does at each start that finds no running container.

        Docker does not tell its own start. Empty when the daemon has no default bridge.
        """
        try:
            with translated():
                return str(self.connection.api.inspect_network("bridge")["Created"])
        except ContainerMissing:
            return ""


def _address(endpoint: dict[str, Any]) -> str:
    """A container's address on a network: the one it has, or is to have."""
    return str(endpoint.get("IPAddress") or (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or "")


class _TarStream:
    """A tar that is read from chunks as they come, never held whole. Raises ``Unavailable`` when it ends early."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._source = chunks
        with self._checked():
            self._tar = tarfile.open(
                fileobj=as_file(self._received()),
                mode="r|",
                bufsize=_CHUNK_BYTES,
                encoding="utf-8",
                errors="backslashreplace",
            )

    def _received(self) -> Iterator[bytes]:
        with translated():
            yield from self._source

    def members(self) -> Iterator[tarfile.TarInfo]:
        while True:
            with self._checked():
                member = self._tar.next()
            if member is None:
                return
            yield member
            # The reader keeps every member it has seen, for a way back that a stream does not have.
            self._tar.members = []  # type: ignore[attr-defined]

    def chunks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """A regular member's bytes, until the next member is asked for."""
        with self._checked():
            file = self._tar.extractfile(member)
        while file is not None:
            with self._checked():
                chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk

    def close(self) -> None:
        self._tar.close()
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except tarfile.TarError as error:
            raise Unavailable("The container engine's answer ended within a file") from error
