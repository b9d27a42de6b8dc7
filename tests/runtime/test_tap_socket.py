"""What a crew without a network tries to reach is told, by name, once."""

import asyncio
import errno
import socket
import types
import urllib.error
import urllib.request
from typing import Any

import pytest

from runtime.tap_socket import is_closed, tap


class Sockets(types.ModuleType):
    """A ``socket`` module of a machine without a network."""

    SOCK_DGRAM, SOCK_STREAM = socket.SOCK_DGRAM, socket.SOCK_STREAM
    gaierror = socket.gaierror

    def __init__(self) -> None:
        super().__init__("socket")

        def unknown(*arguments: Any, **named: Any) -> Any:
            if arguments[0] in ("localhost", "127.0.0.1"):
                return []
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        class Socket:
            def __init__(self, kind: int = socket.SOCK_STREAM) -> None:
                self.type = kind

            def connect(self, address: Any) -> None:
                if isinstance(address, tuple) and not address[0].startswith("127."):
                    raise OSError(errno.ENETUNREACH, "Network is unreachable")

            def connect_ex(self, address: Any) -> int:
                return errno.ENETUNREACH if not address[0].startswith("127.") else 0

        self.__dict__.update(
            SOCK_DGRAM=self.SOCK_DGRAM, gaierror=self.gaierror, getaddrinfo=unknown, gethostbyname=unknown,
            gethostbyname_ex=unknown, socket=Socket,
        )  # fmt: skip


def tapped() -> tuple[Any, list[tuple[Any, ...]]]:
    told: list[tuple[Any, ...]] = []
    module = Sockets()
    tap(module, lambda name, data: told.append((name, data["host"], data["port"], data["protocol"])))
    return module, told


def test_names_and_addresses_are_told_once_and_errors_stay_what_they_are() -> None:
    module, told = tapped()
    for _ in range(2):
        for port in (443, "443"):
            with pytest.raises(socket.gaierror):
                module.getaddrinfo("api.example.com", port, type=1)
        with pytest.raises(OSError, match="unreachable"):
            module.socket().connect(("10.0.0.1", 80))
        assert module.socket(socket.SOCK_DGRAM).connect_ex(("10.0.0.2", 53)) == errno.ENETUNREACH
        with pytest.raises(socket.gaierror):
            module.gethostbyname("db.example.com")
    assert told == [
        ("network.denied", "api.example.com", 443, "tcp"),
        ("network.denied", "10.0.0.1", 80, "tcp"),
        ("network.denied", "10.0.0.2", 53, "udp"),
        ("network.denied", "db.example.com", None, "tcp"),
    ]


def test_what_stays_in_the_container_is_no_news() -> None:
    module, told = tapped()
    module.getaddrinfo("localhost", 80)
    module.socket().connect(("127.0.0.1", 80))
    module.socket().connect("/tmp/unix.sock")
    assert told == []


def test_closed_means_loopback_alone() -> None:
    assert is_closed(["lo"])
    assert is_closed([])
    assert not is_closed(["lo", "eth0"])


def test_every_client_of_the_standard_library_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, getattr(socket, name))
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, getattr(socket.socket, name), raising=False)
    told: list[str] = []
    tap(socket, lambda name, data: told.append(data["host"]))

    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://one.invalid/", timeout=5)

    async def connect() -> None:
        await asyncio.open_connection("two.invalid", 80)

    with pytest.raises(OSError, match=r"."):
        asyncio.run(connect())
    assert told == ["one.invalid", "two.invalid"]
