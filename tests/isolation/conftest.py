"""One platform and one hostile crew for all tests of this folder; each test is a run of it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.platform import CrewshipDev, running

CREW = Path(__file__).parent / "crews" / "hostile"


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    with running(CrewshipDev(tmp_path_factory.mktemp("isolation"))) as dev:
        for name in ("hostile", "closed", "small"):
            deployment = dev.deploy(name, CREW, name=name)
            assert deployment["status"] == "ready", deployment
        yield dev


class Listener:
    """Somebody on the host, on all its addresses, whom nobody from a run may reach."""

    def __init__(self) -> None:
        self.visitors: list[str] = []
        self._tcp = socket.create_server(("0.0.0.0", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("0.0.0.0", self.port))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, address = self._tcp.accept()
                self._came(address)
                peer.close()

    def _receive(self) -> None:
        with suppress(OSError):
            while (packet := self._udp.recvfrom(100))[1] is not None:
                self._came(packet[1])
                self._udp.sendto(*packet)

    def _came(self, address: tuple[str, int]) -> None:
        if not address[0].startswith("127."):  # the test itself
            self.visitors.append(address[0])

    def close(self) -> None:
        for one in (self._tcp, self._udp):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listening = Listener()
    with socket.create_connection(("127.0.0.1", listening.port)):
        pass  # it is really there
    yield listening
    listening.close()


@pytest.fixture(scope="session")
def host_addresses() -> list[str]:
    """Of this machine: the one that leads out, the engine's, loopback as the container sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("192.0.2.254", 9))  # sends nothing
        out = str(s.getsockname()[0])
    return ["gateway", out, "172.17.0.1", "127.0.0.1"]


def run(
    platform: CrewshipDev, do: str, project: str = "hostile", **input: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run to its end, and its events."""
    ended = platform.ended(platform.start_run(project, {"do": do, **input}))
    return ended, platform.ndjson(f"/runs/{ended['id']}/events")


def denied(events: list[dict[str, Any]]) -> set[tuple[str, int | None, str]]:
    """What the log says was refused."""
    return {
        (event["data"]["host"], event["data"]["port"], event["data"]["protocol"])
        for event in events
        if event["type"] == "network.denied"
    }
