"""The process: it starts on its own, and ends with 0 however often it is told to."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from crewship import db
from crewship.models import Deployment, Project
from tests.api.conftest import ADMIN_KEY
from tests.api.test_runs import run

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process, self.url = process, url

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(15):
            return await self.process.wait()


@pytest.fixture
async def api_process(tmp_path: Path) -> AsyncIterator[Process]:
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CREWSHIP_")},
        "CREWSHIP_DATA_DIR": str(tmp_path), "CREWSHIP_API_PORT": str(port), "CREWSHIP_BOOTSTRAP_ADMIN_KEY": ADMIN_KEY,
        "CREWSHIP_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "api", cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as http:
            while True:
                assert process.returncode is None
                try:
                    await http.get(f"{url}/healthz")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield Process(process, url)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_serves_without_temporal_and_says_what_is_missing(api_process: Process) -> None:
    async with httpx.AsyncClient(base_url=api_process.url) as http:
        response = await http.get("/readyz", timeout=20)
        rows = {row["name"]: row["ok"] for row in response.json()["dependencies"]}
        assert [name for name, ok in rows.items() if not ok] == ["temporal", "worker"]
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        assert (await http.get("/v1/runs", headers=headers)).json() == {"runs": [], "next_cursor": None}
    assert await api_process.stop() == 0


async def test_it_ends_in_order_with_streams_open(api_process: Process, tmp_path: Path) -> None:
    engine = db.open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    with db.session(engine) as session:
        for row in (
            Project(name="crew"),
            Deployment(id="dep_1", project="crew", status="ready", host="h", source_key="k", source_sha256="s"),
            run(1, status="running"),
        ):
            session.add(row)
            session.flush()
    engine.dispose()
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with (
        httpx.AsyncClient(base_url=api_process.url, headers=headers, timeout=20) as http,
        http.stream("GET", "/v1/runs/run_000000000001/events") as response,
    ):
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"retry: 1000\n"
        ended = asyncio.create_task(api_process.stop(signal.SIGINT))
        async for _ in chunks:  # ends cleanly, or httpx raises
            pass
        assert await ended == 0


async def test_headers_without_end_are_refused(api_process: Process) -> None:
    url = httpx.URL(api_process.url)

    async def answer(*pieces: bytes) -> bytes:
        """The answer's first line; that of a 431 may be lost when the connection is closed on what is still being sent."""
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            async with asyncio.timeout(20):
                return await reader.readline()
        except ConnectionError:
            return b"HTTP/1.1 431 (not heard)"
        finally:
            writer.close()

    begin, end = b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"\r\n"
    assert await answer(begin, b"X-A: " + b"a" * 8000 + b"\r\n", end) == b"HTTP/1.1 200 OK\r\n"
    endless = (b"X-%d: %b\r\n" % (number, b"a" * 10_000) for number in range(10_000))
    assert (await answer(begin, *endless)).startswith(b"HTTP/1.1 431 ")
    assert (await answer(b"GET /" + b"a" * 2_000_000)).startswith(b"HTTP/1.1 431 ")
    # A large body is not a head, and a connection that is used again counts anew.
    body = b"POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
    assert (await answer(body, b" " * 900_000)).startswith(b"HTTP/1.1 4")
    async with httpx.AsyncClient(base_url=api_process.url) as http:
        for _ in range(20):
            assert (await http.get("/healthz", headers={"x-a": "a" * 8000})).status_code == 200
