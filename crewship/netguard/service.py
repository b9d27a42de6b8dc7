"""The guard: sets the rules of one bridge, sees every few seconds that they hold, and tells workers of what they refuse.

It needs root on the container host (or CAP_NET_ADMIN in the host's network namespace) and nothing else: not the engine's
socket, no secret, no network of its own. What it says goes to whoever connects to its unix socket; it listens to nobody.

The rules stay when it ends, for runs go on then. Only when nothing is on the bridge any more does it take them with it.

Two installations may share a bridge. Then one guard has it, and the other passes on what that one says and takes over when
it is gone.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from crewship.egress.wiring import closed_bridge
from crewship.errors import Conflict
from crewship.netguard.firewall import Firewall, FirewallError
from crewship.netguard.messages import STATE_SECONDS, Denial, GuardState, line_of, message_of
from crewship.netguard.nflog import NflogReader
from crewship.netguard.rules import ClosedPolicy, GuardOptions, Policy
from crewship.netguard.surroundings import (
    address_of,
    connected,
    has_v6_loopback,
    host_resolvers,
    resolvers,
)

logger = logging.getLogger(__name__)

_BACKLOG_BYTES = 1 << 20
"""What may wait for a reader that does not read; more, and it is hung up on."""
_INTERFACES = Path("/sys/class/net")


class Guard:
    """See the module. ``firewall`` is given by tests."""

    def __init__(self, options: GuardOptions, firewall: Firewall | None = None) -> None:
        self._options = options
        self._firewall = firewall or Firewall()
        self._reader: NflogReader | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._repairs = 0
        self._was_set = False
        self._stop = asyncio.Event()
        self._server: asyncio.AbstractServer | None = None
        self._on_ready: Callable[[GuardState], None] = lambda state: None
        self.state = GuardState(options.bridge, problem="The rules are being set")

    def end(self) -> None:
        """Have ``serve`` return."""
        self._stop.set()

    async def serve(self, on_ready: Callable[[GuardState], None] = lambda state: None) -> None:
        """Until SIGTERM, SIGINT or SIGHUP.

        Args:
            on_ready: Called once, when the rules were tried for the first time.

        Raises:
            Conflict: another guard listens on the socket.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.end)
        self._on_ready = on_ready
        try:
            while not self._stop.is_set():
                if (server := await self._claim()) is not None:
                    await self._lead(server)
                else:
                    await self._follow()
        finally:
            if self._server is not None:
                self._server.close()
                with contextlib.suppress(OSError):
                    self._options.socket.unlink()
            for client in self._clients:
                client.close()

    async def _claim(self) -> asyncio.AbstractServer | None:
        """Be the one that guards the bridge; None: another one is. Its name goes with the process, whatever ends it."""
        try:
            return await asyncio.start_unix_server(self._take, self._name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return None

    @property
    def _name(self) -> str:
        """Not in the file system: of the host's network, as the bridge is, whichever container the guard is in."""
        return f"\0crewship-netguard/{self._options.bridge}"

    async def _lead(self, server: asyncio.AbstractServer) -> None:
        """Set the rules and see that they stay, until told to end."""
        loop = asyncio.get_running_loop()
        try:
            self._listen_to_the_kernel(loop)
            while not self._stop.is_set():
                await self._look()
                self._tell(line_of(self.state))
                await self._open()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), STATE_SECONDS)
            if is_empty(self._options.bridge) and is_empty(closed_bridge(self._options.bridge)):
                await asyncio.to_thread(self._firewall.remove, self._options.bridge)
        finally:
            server.close()
            if self._reader is not None:
                loop.remove_reader(self._reader.socket)
                self._reader.close()
                self._reader = None

    async def _follow(self) -> None:
        """Two installations share the bridge: pass on what the guard that has it says, until it is gone."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._name)
        except OSError:
            return  # it has just gone
        stopped = asyncio.create_task(self._stop.wait())
        try:
            if _uid_of(writer) != os.geteuid():
                self.state = GuardState(
                    self._options.bridge, f"A guard of another user has {self._options.bridge}", "end that one"
                )
                await self._open()
                await asyncio.wait({stopped}, timeout=STATE_SECONDS)
                return
            while not self._stop.is_set():
                coming = asyncio.create_task(reader.readline())
                await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    return
                if not (line := coming.result()):
                    return
                message = message_of(line)
                if isinstance(message, GuardState):
                    self.state = self._compared(message)
                    line = line_of(self.state)
                self._tell(line)
                await self._open()
        except OSError:
            return
        finally:
            stopped.cancel()
            writer.close()

    def _compared(self, state: GuardState) -> GuardState:
        """What another guard says, if its rules are those that this one would set."""
        ours = {str(reach) for reach in self._options.reach}
        if state.problem is not None or ours == set(state.reach):
            return state
        problem = f"Another guard has {state.bridge}, with other exceptions: {', '.join(state.reach) or 'none'}"
        return replace(state, problem=problem, hint="give each installation a CREWSHIP_NETWORK of its own")

    async def _open(self) -> None:
        """Let workers listen, now that there is something to say."""
        if self._server is None:
            self._server = await listen(self._options.socket, self._take)
            self._on_ready(self.state)

    def _listen_to_the_kernel(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._reader = NflogReader(self._options.bridge)
        except OSError as error:
            # The rules hold without it: what is refused is then not told of.
            logger.warning("refused connections cannot be told of: %s", error)
            return
        loop.add_reader(self._reader.socket, self._denied)

    def _denied(self) -> None:
        if self._reader is not None and self._clients:
            at_ms = time.time_ns() // 1_000_000
            for one in self._reader.read():
                self._tell(line_of(Denial(at_ms, one.source, one.host, one.port, one.protocol)))
        elif self._reader is not None:
            for _ in self._reader.read():
                pass

    async def _look(self) -> None:
        """Set the rules unless they are as they should be."""
        options = self._options
        policy = Policy(
            bridge=options.bridge,
            resolvers=options.dns or resolvers(),
            reach=options.reach,
            connected=connected(options.bridge, closed_bridge(options.bridge)),
            nflog_group=None if self._reader is None else self._reader.group,
        )
        problem = hint = None
        try:
            if not await asyncio.to_thread(self._firewall.is_intact, policy):
                await asyncio.to_thread(self._firewall.apply, policy)
                if self._was_set:
                    self._repairs += 1
                    logger.warning("the rules were changed from outside, or the host's networks were: set again")
                self._was_set = True
        except FirewallError as error:
            problem, hint = error.detail, error.hint
            if problem != self.state.problem:
                logger.error("%s (%s)", problem, hint)
        closed_problem, gateway = await self._look_at_closed(policy)
        self.state = GuardState(
            options.bridge,
            problem,
            hint,
            closed_problem=closed_problem,
            gateway=None if gateway is None else str(gateway),
            blocked=tuple(str(network) for network in policy.blocked),
            reach=tuple(str(reach) for reach in policy.reach),
            resolvers=tuple(str(resolver) for resolver in policy.resolvers),
            repairs=self._repairs,
        )

    async def _look_at_closed(self, policy: Policy) -> tuple[str | None, IPv4Address | None]:
        """The same for the closed bridge. What is wrong with its rules alone stops only runs that would be on it."""
        options = self._options
        gateway = address_of(closed_bridge(options.bridge))
        closed = ClosedPolicy(policy, gateway, options.dns or host_resolvers(), has_v6_loopback())
        try:
            if not await asyncio.to_thread(self._firewall.is_intact, closed):
                await asyncio.to_thread(self._firewall.apply, closed)
        except FirewallError as error:
            if error.detail != self.state.closed_problem:
                logger.error("closed bridge: %s (%s)", error.detail, error.hint)
            return error.detail, gateway
        return None, gateway

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A worker that listens, until it hangs up."""
        self._clients.add(writer)
        try:
            writer.write(line_of(self.state))
            while await reader.read(4096):
                pass
        except OSError:
            pass
        finally:
            self._clients.discard(writer)
            writer.close()

    def _tell(self, line: bytes) -> None:
        for client in list(self._clients):
            if client.transport.get_write_buffer_size() > _BACKLOG_BYTES:
                client.transport.abort()
            else:
                client.write(line)


def _uid_of(writer: asyncio.StreamWriter) -> int:
    """Who is at the other end of a unix socket."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[1])


def is_empty(bridge: str) -> bool:
    """Whether nothing is attached to the bridge, or there is none."""
    try:
        return not any((_INTERFACES / bridge / "brif").iterdir())
    except OSError:
        return True


async def listen(
    path: Path, take: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> asyncio.AbstractServer:
    """A server on ``path``, in the place of one that is dead.

    Raises:
        Conflict: another one is alive.
    """
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    else:
        writer.close()
        raise Conflict(f"Another one listens on {path} already", hint="end that one first")
    path.parent.mkdir(parents=True, exist_ok=True)
    server = await asyncio.start_unix_server(take, path)
    # Who may enter the folder may listen: workers do not run as root, and what is told is no secret.
    os.chmod(path, 0o666)
    return server
