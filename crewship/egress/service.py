"""The proxy of one container host: keeps a squid running for the runs that may reach named hosts alone.

It runs in the host's network, as squid has to: runs reach it at the host's address on the closed bridge, and nothing else there.
As root it starts squid as the user ``proxy``; where it is not root, squid runs as it does. Either way squid runs under a group of
its own, by which the guard's rules keep it from whatever runs are kept from, whatever a name resolves to and whoever has got
into it.

The worker tells it what a container may reach before that container starts. What it was told goes with it: a worker tells a
proxy that is started again anew.
"""

import asyncio
import contextlib
import logging
import os
import pwd
import resource
import shutil
import signal
import socket
import stat
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from crewship.clock import now
from crewship.egress import helper, squid
from crewship.egress.messages import Done, EgressState, Forget, Permit, line_of, message_of
from crewship.egress.policies import Policies
from crewship.egress.squid import SquidOptions, denial_of, find_squid, squid_conf
from crewship.egress.wiring import CHECKER_ADDRESS, PORTS, EgressOptions, closed_bridge, proxy_group
from crewship.netguard.messages import STATE_SECONDS, Denial
from crewship.netguard.rules import Policy
from crewship.netguard.service import listen
from crewship.netguard.surroundings import address_of, connected, has_v6_loopback, host_resolvers, own_addresses

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_READY_SECONDS = 10.0
_STOP_SECONDS = 5.0
_BACKLOG_BYTES = 1 << 20
"""What may wait for a reader that does not read; more, and it is hung up on."""
_LINE_BYTES = 1 << 20
"""Of a message; a list of hosts is a part of ``crewship.toml``."""
_TOLD_PER_SECOND = 50
_FILES = 65_536
"""The most that Debian's squid is built for."""
_USER = "proxy"
INSTALL = "install it on the container host: apt-get install squid-openssl"


class _Trouble(Exception):
    """Why squid does not serve: the message says what, ``hint`` how to mend it."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


class _Idle(Exception):
    """Nobody has wanted the closed bridge yet, so there is nothing to serve."""


class Egress:
    """See the module."""

    def __init__(self, options: EgressOptions) -> None:
        self._options = options
        self._interface = closed_bridge(options.bridge)
        self._stop = asyncio.Event()
        self._clients: set[asyncio.StreamWriter] = set()
        self._folder = Path()
        self._policies: Policies | None = None
        self._squid: asyncio.subprocess.Process | None = None
        self._running: SquidOptions | None = None
        self._heard = b""
        self._second, self._told = 0, Counter[str]()
        """How much of each run was told of in this second."""
        self.state = EgressState(problem="The proxy is being started", hint="it takes a second")

    def end(self) -> None:
        """Have ``serve`` return."""
        self._stop.set()

    async def serve(self, on_ready: Callable[[EgressState], None] = lambda state: None) -> None:
        """Until ``end`` is called, or SIGTERM, SIGINT or SIGHUP where nobody else handles them.

        Args:
            on_ready: Called once, when workers can tell it something.

        Raises:
            Conflict: another one listens on the socket.
        """
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="crewship-egress-") as folder:
            self._folder = Path(folder)
            self._prepare()
            log = os.open(self._folder / squid.DENIALS, os.O_RDWR | os.O_NONBLOCK)
            server = await listen(self._options.socket, self._take)
            try:
                loop.add_reader(log, self._refused, log)
                on_ready(self.state)
                told_at = 0.0
                while not self._stop.is_set():
                    before = self.state
                    await self._look()
                    if self.state != before or loop.time() - told_at > STATE_SECONDS:
                        self._tell(line_of(self.state))
                        told_at = loop.time()
                    await self._pause()
            finally:
                server.close()
                with contextlib.suppress(OSError):
                    self._options.socket.unlink()
                for client in self._clients:
                    client.close()
                await self._end_squid()
                loop.remove_reader(log)
                os.close(log)

    async def _pause(self) -> None:
        """Until it is time to look again: at once when squid has ended."""
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._stop.wait())]
        if self._squid is not None:
            waits.append(asyncio.create_task(self._squid.wait()))
        await asyncio.wait(waits, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        if self._squid is not None and self._squid.returncode is not None and not self._stop.is_set():
            self.state = EgressState("squid has ended", "another one is being started", "", self.state.known)
            self._tell(line_of(self.state))

    # --- squid --------------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Squid may read all of the folder, and write its log and its pipe: not the policies."""
        folder = self._folder
        folder.chmod(0o755)
        self._policies = Policies(folder / squid.POLICIES)
        shutil.copyfile(helper.__file__, folder / squid.HELPER)
        os.mkfifo(folder / squid.DENIALS, 0o600)
        (folder / squid.LOG).touch(0o600)
        (folder / squid.CERTIFICATE).touch(0o600)
        (folder / squid.CERTIFICATE).write_bytes(_certificate())
        if os.geteuid() == 0:
            with contextlib.suppress(KeyError):  # without squid there may be no such user; ``_look`` says so
                user = pwd.getpwnam(_USER).pw_uid
                for name in (squid.DENIALS, squid.LOG, squid.CERTIFICATE):
                    os.chown(folder / name, user, -1)

    async def _look(self) -> None:
        """Have squid run as it should."""
        try:
            wanted = self._wanted()
            if self._squid is None or self._running is None or _place(self._running) != _place(wanted):
                await self._end_squid()
                await self._start_squid(wanted)
            elif self._running != wanted:
                self._write(wanted)
                self._squid.send_signal(signal.SIGHUP)  # reads the file again, and keeps the connections
            self._running = wanted
            problem, hint, url = None, None, f"http://{wanted.address}:{wanted.port}"
        except _Idle:
            await self._end_squid()
            problem, hint, url = None, None, ""
        except _Trouble as trouble:
            await self._end_squid()
            problem, hint, url = str(trouble), trouble.hint, ""
            if problem != self.state.problem:
                logger.warning("%s (%s)", problem, hint)
        assert self._policies is not None
        self.state = EgressState(problem, hint, url, self._policies.known)

    def _wanted(self) -> SquidOptions:
        """How squid should run now.

        Raises:
            _Trouble: it cannot.
            _Idle: there is no need to.
        """
        if find_squid() is None:
            raise _Trouble("There is no squid", INSTALL)
        group = proxy_group(self._options.bridge)
        if os.geteuid() != 0 and os.getegid() != group:
            raise _Trouble(
                f"The proxy of {self._interface} has to run under the group {group}",
                f"start it as root, or in compose set CREWSHIP_EGRESS_GROUP={group} in .env",
            )
        if self._squid is not None and self._squid.returncode is not None:
            words = _last_words(self._folder / squid.LOG)
            self._squid = None
            logger.error("squid ended: %s", words)
        address = address_of(self._interface)
        if address is None:
            raise _Idle
        bridges = (self._options.bridge, self._interface)
        policy = Policy(self._options.bridge, reach=self._options.reach, connected=connected(*bridges))
        return SquidOptions(
            folder=self._folder,
            address=address,
            port=self._port(address),
            python=_python(),
            resolvers=self._options.dns or host_resolvers(),
            blocked=policy.blocked,
            own=tuple(own for own in own_addresses() if not any(own in network for network in policy.blocked)),
            reach=self._options.reach,
            has_v6=has_v6_loopback(),
            files=min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], _FILES),
        )

    def _port(self, address: IPv4Address) -> int:
        """That squid has, or is to have."""
        running = self._running
        if self._squid is not None and running is not None and running.address == address:
            return running.port
        # The one that it had is tried first: runs know it.
        tried: list[int] = [*PORTS] if running is None else [running.port, *PORTS]
        for port in tried:
            if _is_free(address, port) and _is_free(CHECKER_ADDRESS, port):
                return port
        raise _Trouble(f"No port from {PORTS[0]} to {PORTS[-1]} is free at {address}", "end what listens there")

    def _write(self, options: SquidOptions) -> None:
        (self._folder / squid.CONF).write_text(squid_conf(options))

    async def _start_squid(self, options: SquidOptions) -> None:
        binary = find_squid()
        self._write(options)
        # It must not outlive this process: the next one's policies are not where it would look for them.
        command = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
        # What it shares with its helpers is named after the service: no two of a host may have one name.
        service = f"crewship{zlib.crc32(self._interface.encode()):08x}{options.port}"
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam(_USER)
            except KeyError:
                raise _Trouble(f"There is no user {_USER!r}", INSTALL) from None
            group = str(proxy_group(self._options.bridge))
            command += [
                f"--reuid={user.pw_uid}", f"--regid={group}", "--clear-groups", "--inh-caps=-all",
                "--bounding-set=-all",
            ]  # fmt: skip
        began = now()
        with (self._folder / squid.LOG).open("ab") as log:
            try:
                self._squid = await asyncio.create_subprocess_exec(
                    *command, "--", str(binary), "-N", "-n", service, "-f", str(self._folder / squid.CONF),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder,
                    start_new_session=True,  # a terminal's Ctrl-C is this process's to pass on
                )  # fmt: skip
            except OSError as error:
                raise _Trouble(f"squid cannot be started: {error}", "install util-linux (setpriv)") from error
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await _serves(options.address, options.port):
                    if self._squid.returncode is not None:
                        raise _Trouble(
                            f"squid does not start: {_last_words(self._folder / squid.LOG)}", "is it squid-openssl?"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise _Trouble(f"squid does not serve at {options.address}:{options.port}", "see its log") from None
        logger.info("squid serves %s after %.1f s", self._interface, (now() - began).total_seconds())

    async def _end_squid(self) -> None:
        process, self._squid = self._squid, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    # --- the worker ---------------------------------------------------------------------------------------------------

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A worker, until it hangs up."""
        self._clients.add(writer)
        try:
            writer.write(line_of(self.state))
            buffer = b""
            while (data := await reader.read(65536)) and len(buffer) < _LINE_BYTES:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    if (done := self._obey(line)) is not None:
                        writer.write(line_of(done))
                await writer.drain()
        except OSError:
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    def _obey(self, line: bytes) -> Done | None:
        """Do what a worker says; None: nothing was done."""
        assert self._policies is not None
        try:
            match message_of(line):
                case Permit() as permit:
                    self._policies.permit(permit.container, permit.address, permit.hosts)
                    return Done(permit.number)
                case Forget() as forget:
                    self._policies.forget(forget.container)
                    return Done(forget.number)
                case _:
                    return None
        except (ValueError, TypeError, OSError) as error:
            logger.warning("not obeyed: %s", error)
            return None

    def _refused(self, log: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(log, 65536):
                *lines, self._heard = (self._heard + data).split(b"\n")
                for line in lines:
                    if (denial := denial_of(line)) is not None and self._is_worth_telling(denial):
                        self._tell(line_of(denial))

    def _is_worth_telling(self, denial: Denial) -> bool:
        """As the guard's rules have it: a flood of one run is refused like anything else, and not told whole."""
        second = denial.at_ms // 1000
        if second != self._second:
            self._second, self._told = second, Counter()
        self._told[denial.source] += 1
        return self._told[denial.source] <= _TOLD_PER_SECOND

    def _tell(self, line: bytes) -> None:
        for client in list(self._clients):
            if client.is_closing():
                self._clients.discard(client)
            elif client.transport.get_write_buffer_size() > _BACKLOG_BYTES:
                client.transport.abort()
            else:
                client.write(line)


def _place(options: SquidOptions) -> tuple[IPv4Address, int]:
    """What squid cannot change while it runs."""
    return options.address, options.port


def _python() -> str:
    """An interpreter that the proxy's user can run: this one's may be in somebody's home."""
    own = os.path.realpath(sys.executable)
    if os.geteuid() != 0 or all(path.stat().st_mode & stat.S_IXOTH for path in (Path(own), *Path(own).parents)):
        return own
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if found is None:
        raise _Trouble(f"{own} cannot be run by the user {_USER!r}", "apt-get install python3-minimal")
    return found


def _certificate() -> bytes:
    """Key and certificate that squid wants for a port that looks into TLS; no client is ever shown them."""
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "crewship egress")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(pem)


def _is_free(address: IPv4Address, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((str(address), port))
        except OSError:
            return False
        return True


async def _serves(address: IPv4Address, port: int) -> bool:
    """Whether a CONNECT comes through the front to the checker, which the front knows a moment after it listens."""
    try:
        reader, writer = await asyncio.open_connection(str(address), port, local_addr=(str(address), 0))
        try:
            writer.write(f"CONNECT {squid.READY}:443 HTTP/1.1\r\n\r\n".encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
        finally:
            writer.close()
    except OSError:
        return False


def _last_words(log: Path) -> str:
    """What squid said last that matters."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "FATAL" in line or "ERROR" in line]
    return (told or lines or ["nothing"])[-1]
