"""The API's process: ``python -m api``.

On SIGTERM or SIGINT it takes no new connections, has its event streams end in order (clients resume elsewhere), finishes what it
is answering, and leaves. Then it ends without the interpreter's finalization, in which the Temporal SDK's threads may crash.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from api.app import create_app
from api.protocol import Protocol
from api.state import Platform
from crewship.errors import CrewshipError
from crewship.settings import Settings

_GRACEFUL_SECONDS = 10


class Server(uvicorn.Server):
    """uvicorn, but for two things.

    * It waits for open responses before it ends the lifespan, and event streams have no end: so they are ended first.
    * After an orderly end it raises the signal that asked for it once more, and the process would die of it: so that is left out.
    """

    platform: Platform | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.platform is not None:
            self.platform.feeds.end_streams()
        await super().shutdown(sockets)


def make_server(settings: Settings) -> Server:
    """A server for ``settings``, not started."""

    def on_start(platform: Platform) -> None:
        server.platform = platform

    config = uvicorn.Config(
        create_app(settings, on_start=on_start),
        host=settings.api_host,
        port=settings.api_port,
        http=Protocol,
        access_log=False,  # addresses may hold stream tokens; GET /metrics counts requests by route
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_keep_alive=30,
    )
    server = Server(config)
    return server


def main() -> int:
    """Serve until told to stop; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("alembic", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    server = make_server(Settings())
    try:
        asyncio.run(server.serve())
    except CrewshipError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0 if server.started else 1


if __name__ == "__main__":
    code = main()
    gc.collect()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
