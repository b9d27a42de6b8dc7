"""A container that an image is made in: files go in, commands run one by one, and what it became is committed.

A build runs strangers' code (a ``setup.py`` is one), as root, because it writes what runs may only read. So it has what a
run has: no capabilities, no new privileges, limits, the runs' network with its rules or none, and never the engine's socket.
It cannot have a read-only root: that is what becomes the image. Volumes and what lies in them do not; so the work happens
in ``/build``, downloads stay in ``/cache``, and what must not be in an image (the index's URL, the CA bundle) comes by a
command's environment or in ``/build``. Nothing but a constant is in the container's own configuration, of which an image
keeps a copy.

Commands are ``exec`` calls, so each has an exit code that its own children cannot forge.
"""

import io
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

import docker.errors
from docker.types import Mount, Ulimit

from crewship.builds import IMAGE_KIND, BuildFailed, canceled
from crewship.docker_connection import ensure_bridge, translated
from crewship.docker_stream import DockerStream
from crewship.engine import LABEL_INSTANCE, LABEL_KIND, ContainerMissing, ImageMissing, Limits
from crewship.errors import Unavailable

BUILD = "/build"
CACHE = "/cache"

_CPU_PERIOD_US = 100_000
_POLL_SECONDS = 0.25  # how late a cancel is seen
_LOOKS = 8  # after so many the engine is asked whether it runs
_MAX_LINE_BYTES = 64 * 1024
_PACKAGE_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"]  # what dpkg cannot do without

OnLine = Callable[[str, str], None]
"""Called with each line of output and its stream."""


class BuildContainer:
    """One container, from its creation to its removal.

    Args:
        api: The SDK's client; its timeout must allow for a commit of a large image.
        instance: The installation's name.
        name: The container's name; a left-over one of that name is removed.
        image: What it begins with.
        limits: What it may use.
        timeout_seconds: How long it may be ``watched``.
        command: Its first process; None: one that waits for ``run``.
        network: The bridge, or None for no network.
        cache_volume: Named volume for ``/cache``, or None for none.
        dns: Servers that it asks for names; none: the daemon's.
        may_install_system_packages: Whether it gets the capabilities that Debian's packages need to be installed.
        scratch: Whether ``/build`` is a volume; without, what is put there stays.
        stdin: Whether its first process has one.
    """

    def __init__(
        self,
        api: Any,
        *,
        instance: str,
        name: str,
        image: str,
        limits: Limits,
        timeout_seconds: float,
        command: list[str] | None = None,
        network: str | None = None,
        cache_volume: str | None = None,
        dns: Sequence[str] = (),
        may_install_system_packages: bool = False,
        scratch: bool = True,
        stdin: bool = False,
    ) -> None:
        self._api = api
        self._name = name
        self._instance = instance
        self._timeout_seconds = timeout_seconds
        mounts = []
        if scratch:
            mounts.append(Mount(target=BUILD, source=None, type="volume", no_copy=True, labels=self._labels))
        if cache_volume is not None:
            mounts.append(Mount(target=CACHE, source=cache_volume, type="volume", no_copy=True, labels=self._labels))
        with translated(name):
            _remove(api, name)
            if network is not None:
                ensure_bridge(api, network, instance)
            try:
                # Mounts are no part of the container's own configuration, so the image does not declare them.
                self.id: str = api.create_container(
                    image=image,
                    name=name,
                    # Gives up by itself when whoever started it is gone.
                    entrypoint=command or ["sleep", str(round(timeout_seconds) + 60)],
                    user="0:0",
                    working_dir="/",
                    detach=True,  # or the SDK sets StdinOnce: the first detach would end stdin
                    stdin_open=stdin,
                    labels={**self._labels, LABEL_KIND: "build"},
                    host_config=api.create_host_config(
                        network_mode=network or "none",
                        dns=list(dns) or None if network else None,
                        cap_drop=["ALL"],
                        cap_add=_PACKAGE_CAPABILITIES if may_install_system_packages else None,
                        security_opt=["no-new-privileges:true"],
                        mounts=mounts,
                        mem_limit=limits.memory_bytes,
                        memswap_limit=limits.memory_bytes,
                        cpu_period=_CPU_PERIOD_US,
                        cpu_quota=round(limits.cpus * _CPU_PERIOD_US),
                        pids_limit=limits.pids,
                        ulimits=[
                            Ulimit(name="nofile", soft=4096, hard=4096),
                            Ulimit(name="core", soft=0, hard=0),
                        ],
                        init=False,
                        log_config={"type": "none"},
                    ),
                )["Id"]
            except docker.errors.NotFound as error:
                raise ImageMissing(image) from error

    @property
    def _labels(self) -> dict[str, str]:
        return {LABEL_INSTANCE: self._instance}

    def put(self, folder: str, files: Mapping[str, Path | bytes | str]) -> None:
        """Copy files into ``folder`` (which is there), owned by root: name below the folder → file, content, or link.

        Folders are made as needed. A ``str`` is the target of a symbolic link.
        """
        with tempfile.TemporaryFile() as archive:
            write_tar(archive, files)
            archive.seek(0)
            with translated(self.id):
                self._api.put_archive(self.id, folder, archive)

    def read(self, path: str) -> bytes:
        """The content of a small file."""
        with translated(self.id):
            chunks, _ = self._api.get_archive(self.id, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                file = tar.extractfile(path.rpartition("/")[2])
                return file.read() if file is not None else b""

    def read_if_there(self, path: str) -> bytes:
        """As :meth:`read`; nothing when there is no such file."""
        with suppress(ContainerMissing):
            return self.read(path)
        return b""

    def is_running(self) -> bool:
        with translated(self.id):
            return bool(self._api.inspect_container(self.id)["State"]["Running"])

    def rename(self, name: str) -> None:
        """Take a name; a left-over one of that name is removed."""
        with translated(self.id):
            _remove(self._api, name)
            self._api.rename(self.id, name)
        self._name = name

    def attach(self) -> DockerStream:
        """Its first process's stdin, and its output from now on."""
        with translated(self.id):
            streams = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
            return DockerStream.open(self._api, f"/containers/{self.id}/attach", params=streams)

    def start(self) -> None:
        """Let it run."""
        with translated(self.id):
            self._api.start(self.id)

    def remove(self) -> None:
        """Take it down, and its volumes."""
        with translated(self.id):
            _remove(self._api, self.id)

    @contextmanager
    def watched(self, cancel: threading.Event, stream: DockerStream | None = None) -> Iterator[None]:
        """Killed on ``cancel``, and when its time is up.

        Args:
            stream: Closed when it has ended, however: the engine may leave one open behind it.

        Raises:
            BuildFailed: ``canceled``, or ``build_failed`` when it took too long; whatever else the kill led to.
        """
        if cancel.is_set():
            raise canceled()
        done = threading.Event()
        deadline = time.monotonic() + self._timeout_seconds

        def watch() -> None:
            looks = 0
            while not done.wait(_POLL_SECONDS):
                looks += 1
                if cancel.is_set() or time.monotonic() > deadline:
                    self._kill()
                    break
                if looks % _LOOKS == 0 and self._has_ended():
                    break
            else:
                return
            if stream is not None:
                stream.close()

        watcher = threading.Thread(target=watch, name=f"watch {self._name}", daemon=True)
        watcher.start()
        try:
            yield
        except Exception:
            self._raise_if_stopped(cancel, deadline)
            raise
        finally:
            done.set()
            watcher.join()
        self._raise_if_stopped(cancel, deadline)

    def _has_ended(self) -> bool:
        """Not, when it cannot be asked."""
        with suppress(Unavailable):
            try:
                return not self.is_running()
            except ContainerMissing:
                return True
        return False

    def _raise_if_stopped(self, cancel: threading.Event, deadline: float) -> None:
        if cancel.is_set():
            raise canceled()
        if time.monotonic() > deadline:
            raise BuildFailed(
                "build_failed",
                f"The build took longer than {self._timeout_seconds:.0f} s",
                hint="The operator of the platform can allow more: CREWSHIP_BUILD_TIMEOUT_SECONDS.",
            )

    def run(
        self, command: list[str], *, env: Mapping[str, str] | None = None, folder: str = BUILD, on_line: OnLine
    ) -> int:
        """Run a command to its end: its exit code. ``on_line`` is called as lines come."""
        with translated(self.id):
            created = self._api.exec_create(self.id, command, environment=dict(env or {}), workdir=folder)
            stream = DockerStream.open(self._api, f"/exec/{created['Id']}/start", json={"Detach": False, "Tty": False})
        lines = {"stdout": _Lines("stdout", on_line), "stderr": _Lines("stderr", on_line)}
        try:
            while (piece := stream.read()) is not None:
                lines[piece[0]].feed(piece[1])
        finally:
            stream.close()
        for one in lines.values():
            one.end()
        with translated(self.id):
            code = self._api.exec_inspect(created["Id"])["ExitCode"]
        return -1 if code is None else int(code)

    def commit(self, image: str, labels: Mapping[str, str], *, is_idle: bool, **config: Any) -> str:
        """Make it an image with that tag; its id.

        Args:
            image: Name and tag.
            labels: The image's, besides those of all.
            is_idle: Whether nothing in it is at work; it is stopped for the time otherwise.
            **config: Fields of the image's configuration.
        """
        repository, _, tag = image.rpartition(":")
        conf = {"Labels": {**self._labels, LABEL_KIND: IMAGE_KIND, **labels}, **config}
        with translated(self.id):
            return str(self._api.commit(self.id, repository, tag, pause=not is_idle, conf=conf)["Id"])

    def _kill(self) -> None:
        """Returns when it is dead; fine when it was, or when nothing can be said about it."""
        with suppress(ContainerMissing, Unavailable):
            with suppress(Unavailable), translated(self.id):
                self._api.kill(self.id, "KILL")
            with translated(self.id):
                self._api.wait(self.id)


class _Lines:
    """Cuts a stream into lines; over-long ones are cut where they are too long."""

    def __init__(self, stream: str, on_line: OnLine) -> None:
        self._stream = stream
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        while len(self._rest) > _MAX_LINE_BYTES:
            self._tell(self._rest[:_MAX_LINE_BYTES])
            self._rest = self._rest[_MAX_LINE_BYTES:]

    def end(self) -> None:
        if self._rest:
            self._tell(self._rest)
            self._rest = b""

    def _tell(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", "replace").rstrip("\r"), self._stream)


def write_tar(archive: IO[bytes], files: Mapping[str, Path | bytes | str], *, is_all: bool = True) -> None:
    """Name → file, content, or a symbolic link's target; with the folders that they need.

    Args:
        is_all: Whether it ends here; another one of these may follow otherwise.
    """
    parents = {parent for name in files for parent in PurePosixPath(name).parents if parent.name}
    tar = tarfile.open(fileobj=archive, mode="w")
    for parent in sorted(parents):
        member = tarfile.TarInfo(str(parent))
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
    for name, source in files.items():
        _add(tar, name, source)
    if is_all:
        tar.close()


def _add(tar: tarfile.TarFile, name: str, source: Path | bytes | str) -> None:
    """A member that is the same whoever packs it and whenever."""
    member = tarfile.TarInfo(name)
    member.mode = 0o644
    if isinstance(source, str):
        member.type, member.linkname = tarfile.SYMTYPE, source
        tar.addfile(member)
    elif isinstance(source, bytes):
        member.size = len(source)
        tar.addfile(member, io.BytesIO(source))
    else:
        with source.open("rb") as file:
            found = source.stat()
            member.size, member.mtime, member.mode = found.st_size, int(found.st_mtime), found.st_mode & 0o777
            tar.addfile(member, file)


def _remove(api: Any, container: str) -> None:
    with suppress(docker.errors.NotFound):
        api.remove_container(container, v=True, force=True)
