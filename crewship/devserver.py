"""``crewship dev``: the whole platform on one machine, as child processes of one.

Temporal's development server and, as root, the network's guard and the proxy of runs with ``[network] allow``; then the worker
and the API, with the embedded adapters: SQLite, a folder of objects, a unix socket as tail. All state is below one data folder,
which one process at a time holds by a lock. What must not change between two starts is in ``dev.json`` there: the
installation's name, which labels its containers, and Temporal's port.

Stopping goes in order: API, worker, Temporal. The worker lets go of containers that run; they go on and are adopted at the
next start. While it runs, a file in the user's state folder tells the CLI on this machine where it is.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from crewship.devstate import (
    LOOPBACK,
    admin_key,
    check_port,
    hold,
    keep,
    kept_state,
    refuse_held,
    registered,
    valid_key,
)
from crewship.processes import Child, ChildLog, ChildSpec
from crewship.provision import base_image, engine, squid, temporal
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Progress
from crewship.settings import Settings

HOST_NAME = "local"
"""The worker's host name. Not the machine's, which changes on a laptop: task queues are named after it."""

_WORKER_READY, _GUARD_READY, _EGRESS_READY = b"worker ready", b"guard ready", b"egress ready"
_LONGEST_SOCKET_PATH = 100
"""A unix socket's path has 107 bytes on Linux and 103 elsewhere."""
_STARTING_SECONDS = 90.0
_STOP_SECONDS = 30.0
"""Worker and API finish what they are at in 10 s; more is for a machine under load."""
_ANSWER_SECONDS = 5.0
_NETGUARD, _EGRESS = "netguard", "egress"
_MODULES = {
    name: (sys.executable, "-P", "-m", module)
    for name, module in (
        ("worker", "worker"),
        ("api", "api"),
        (_NETGUARD, "crewship.netguard"),
        (_EGRESS, "crewship.egress"),
    )
}
"""``-P``: a folder called ``api`` where the user happens to be is not ours."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """Where it listens and keeps its state.

    Attributes:
        data: Folder of all state.
        host: Address the API listens on; Temporal and its UI stay on the loopback address.
        port: The API's.
        ui_port: Of Temporal's UI.
        commands: What is run as ``worker``, ``api``, ``netguard`` and ``egress``; without one of the last two there is none.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8700
    ui_port: int = 8701
    commands: Mapping[str, Sequence[str]] = field(default_factory=lambda: _MODULES)

    @property
    def url(self) -> str:
        """Where a client on this machine finds the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Running:
    """What to tell about a platform that is ready. ``api_key`` is None unless it was made just now."""

    url: str
    api_key: str | None
    temporal_ui: str
    data: Path


class DevServer:
    """The platform as child processes.

    Args:
        options: Where it listens and keeps its state.
        settings: Of the environment; what it says of Temporal, database, object store and tail is used.
        progress: Shows what has to be made or started.
        say: Tells a person what happens later: a child that died, the stop.
    """

    def __init__(self, options: DevOptions, settings: Settings, progress: Progress, say: Callable[[str], None]) -> None:
        self._options = options
        self._settings = settings
        self._progress = progress
        self._say = say
        self._children: list[Child] = []
        self._needs_guard = settings.network_guard == "required" and _NETGUARD in options.commands
        # Its own rules are the machine's, which takes root; a guard that somebody else started has a socket somewhere.
        self._starts_guard = self._needs_guard and os.geteuid() == 0 and settings.network_guard_socket is None
        self._starts_temporal = "temporal_address" not in settings.model_fields_set
        if self._starts_temporal:
            self._ui_url = f"http://127.0.0.1:{options.ui_port}"
        else:
            self._ui_url = settings.temporal_ui_url

    def serve(self, on_ready: Callable[[Running], None]) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; returns when all of it has stopped.

        Args:
            on_ready: Called once, when everything answers.

        Raises:
            PortInUse, DataInUse, Usage, ProvisionError, ChildFailed: it cannot run, and why.
        """
        options = self._options
        # Before anything is made; that the folder is held says more than that the holder's ports are in use.
        refuse_held(options.data)
        check_port(options.host, options.port, "--port")
        if self._starts_temporal:
            check_port(LOOPBACK, options.ui_port, "--ui-port")
        with hold(options.data):
            self._kept = kept_state(options.data)
            self._children = [Child(spec, self._say) for spec in self._plan()]
            asyncio.run(self._run(on_ready))

    async def _run(self, on_ready: Callable[[Running], None]) -> None:
        stop = asyncio.Event()

        def stop_or_kill() -> None:
            if stop.is_set():  # asked a second time: whoever asks does not want to wait
                for child in self._children:
                    child.kill()
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop_or_kill)
        stopping = asyncio.create_task(stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                with registered(self._options.url, self._options.data):
                    await self._announce(on_ready)
                    self._advise()
                    await stopping
            self._say("stopping; runs in containers go on and are taken up again at the next start")
        finally:
            stopping.cancel()
            starting.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            for child in reversed(self._children):
                await child.stop()

    async def _announce(self, on_ready: Callable[[Running], None]) -> None:
        """Say that it is ready; the admin key once in a folder's life, however many starts failed before."""
        options, key = self._options, None
        if not self._kept.key_shown:
            key = await asyncio.to_thread(valid_key, self._settings, options.data)
        on_ready(Running(options.url, key, self._ui_url, options.data))
        if key:
            keep(options.data, replace(self._kept, key_shown=True))

    @property
    def _guard_socket(self) -> Path:
        return self._settings.network_guard_socket or self._options.data / "netguard.sock"

    def _advise(self) -> None:
        """Say what is missing for runs to be let onto their network."""
        if self._needs_guard and not self._starts_guard and not self._guard_socket.exists():
            self._say(
                "no run is started until a network guard keeps runs from this machine and private networks:\n"
                f"  sudo crewship netguard --data {self._options.data}\n"
                "or do without one: CREWSHIP_NETWORK_GUARD=off"
            )

    async def _start(self) -> None:
        """Temporal and the network's guard first; then worker and API at once, for most of their start is loading."""
        with self._progress.step("Starting the platform") as step:
            first = [child for child in self._children if child.spec.name in ("temporal", _NETGUARD, _EGRESS)]
            for together in (first, [child for child in self._children if child not in first]):
                step.detail(" and ".join(child.spec.name for child in together))
                tasks = [asyncio.create_task(child.start()) for child in together]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    def _plan(self) -> list[ChildSpec]:
        """Get what is missing on this machine; the children in the order of their start."""
        options, settings = self._options, self._settings
        client = engine.ensure_engine(settings.cache_dir, self._progress)
        with contextlib.closing(client):
            base = base_image.ensure_base_image(
                client, settings.cache_dir, self._progress, configured=settings.base_image
            )
        if self._starts_guard:
            with contextlib.suppress(ProvisionError):  # the proxy says what is missing
                squid.ensure_squid(settings.cache_dir, self._progress)
        kept = self._kept
        plan = []
        address = settings.temporal_address
        if self._starts_temporal:
            binary = temporal.ensure_temporal(settings.cache_dir, self._progress, settings.temporal_bin)
            address = f"{LOOPBACK}:{kept.temporal_port}"
            plan.append(self._temporal(binary, kept.temporal_port))
        env = self._child_env(kept.instance, address, base.reference)
        if self._starts_guard:
            plan.append(self._module(_NETGUARD, env, _says(_GUARD_READY)))
            if _EGRESS in options.commands and settings.network_proxy_socket is None:
                plan.append(self._module(_EGRESS, env, _says(_EGRESS_READY)))
        plan.append(self._module("worker", env, _says(_WORKER_READY)))
        env = {**env, "CREWSHIP_BOOTSTRAP_ADMIN_KEY": admin_key(options.data)}
        plan.append(self._module("api", env, self._api_answers))
        return plan

    def _temporal(self, binary: Path, port: int) -> ChildSpec:
        database = self._options.data / "temporal.db"
        command = temporal.server_arguments(binary, port=port, ui_port=self._options.ui_port, database=database)

        async def serves(_: ChildLog) -> bool:
            if not await _listens(LOOPBACK, port):
                return False
            return await asyncio.to_thread(temporal.is_serving, binary, f"{LOOPBACK}:{port}")

        return ChildSpec(
            "temporal", command, self._log("temporal"), serves, folder=self._options.data, is_stuck=Interrupted()
        )

    def _module(self, name: str, env: Mapping[str, str], is_ready: Callable[[ChildLog], Awaitable[bool]]) -> ChildSpec:
        return ChildSpec(
            name,
            self._options.commands[name],
            self._log(name),
            is_ready,
            env,
            folder=self._options.data,
            ready_seconds=_STARTING_SECONDS,
            stop_seconds=_STOP_SECONDS,
        )

    def _log(self, name: str) -> Path:
        return self._options.data / "logs" / f"{name}.log"

    async def _api_answers(self, _: ChildLog) -> bool:
        address = urlsplit(self._options.url)
        return await _status(address.hostname or LOOPBACK, self._options.port, "/readyz") == 200

    def _child_env(self, instance: str, temporal_address: str, base: str) -> dict[str, str]:
        """Settings of worker and API, where they differ from what they would read in the environment."""
        options, settings = self._options, self._settings
        env = {
            "CREWSHIP_DATA_DIR": str(options.data),
            "CREWSHIP_CACHE_DIR": str(settings.cache_dir),
            "CREWSHIP_TEMPORAL_ADDRESS": temporal_address,
            "CREWSHIP_TEMPORAL_UI_URL": self._ui_url,
            "CREWSHIP_API_HOST": options.host,
            "CREWSHIP_API_PORT": str(options.port),
            "CREWSHIP_BASE_IMAGE": base,
        }
        if "instance" not in settings.model_fields_set:
            env["CREWSHIP_INSTANCE"] = instance
        if "host" not in settings.model_fields_set:
            env["CREWSHIP_HOST"] = HOST_NAME
        if len(os.fsencode(options.data / "netguard.sock")) > _LONGEST_SOCKET_PATH:
            folder = Path(tempfile.gettempdir(), f"crewship-{instance}")
            folder.mkdir(mode=0o700, exist_ok=True)
            if not settings.tail:
                env["CREWSHIP_TAIL"] = f"unix://{folder / 'tail.sock'}"
            if settings.network_guard_socket is None:
                env["CREWSHIP_NETWORK_GUARD_SOCKET"] = str(folder / "netguard.sock")
            if settings.network_proxy_socket is None:
                env["CREWSHIP_NETWORK_PROXY_SOCKET"] = str(folder / "egress.sock")
        bundle = os.environ.get("SSL_CERT_FILE", "")
        if settings.build_ca_bundle is None and Path(bundle).is_file():
            env["CREWSHIP_BUILD_CA_BUNDLE"] = bundle
        return env


class Interrupted:
    """Whether Temporal's database connection is interrupted for good, by what it logs.

    Its development server has one connection to SQLite, and a call that its caller gives up in the wrong moment leaves that one
    in a state in which every further statement is interrupted: a defect of the driver, met with queries that timed out while
    there was no worker (ADR 0030). It would say that it is healthy, and do nothing. PostgreSQL has no part of this.
    """

    _WORDS, _MANY, _LOOKS = b"interrupted (9)", 5, 2

    def __init__(self) -> None:
        self._bad_looks = 0

    def __call__(self, log: ChildLog) -> bool:
        is_bad = log.news().count(self._WORDS) >= self._MANY
        self._bad_looks = self._bad_looks + 1 if is_bad else 0
        if self._bad_looks < self._LOOKS:
            return False
        self._bad_looks = 0
        return True


def _says(words: bytes) -> Callable[[ChildLog], Awaitable[bool]]:
    async def says(log: ChildLog) -> bool:
        return log.has(words)

    return says


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _status(host: str, port: int, path: str) -> int | None:
    """The status that a GET is answered with, or None when nothing answers within seconds."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                words = (await reader.readline()).split()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None
