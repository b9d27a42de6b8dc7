"""A two-way stream with a container: what Docker's attach and exec calls become after their HTTP headers.

Docker's answer is followed, on the same connection, by frames of an 8-byte header (stream, three zeros, length) and as
many bytes. Their first may have come in one read with the headers, so everything is read through the response's own
buffered reader; the SDK's ``attach_socket`` hands out the bare socket, and such bytes are lost. Each attach begins at a
frame's first byte.
"""

import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal

_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 8
_STDERR = 2


class DockerStream:
    """An ``engine.Attachment``. One thread may read while another one writes and a third one closes."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self._reader = response.raw._fp.fp
        self._socket: socket.socket = self._reader.raw._sock
        self._socket.settimeout(None)
        self._stream: Literal["stdout", "stderr"] = "stdout"
        self._left = 0
        """Bytes of the frame in hand that are not read yet."""

    @classmethod
    def open(cls, api: Any, path: str, *, params: dict[str, Any] | None = None, json: Any = None) -> "DockerStream":
        """POST ``path`` of Docker's API and take over the connection. Raises what the SDK raises."""
        response = api.post(
            f"{api.base_url}/v{api.api_version}{path}",
            params=params,
            json=json,
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            stream=True,
            timeout=api.timeout,
        )
        if response.status_code not in (HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.OK):
            api._raise_for_status(response)
        return cls(response)

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """The next piece of output, at most 64 KiB; None at the stream's end or after :meth:`close`."""
        try:
            while self._left == 0:
                header = self._reader.read(_HEADER_BYTES)
                if len(header) < _HEADER_BYTES:
                    return None
                self._stream = "stderr" if header[0] == _STDERR else "stdout"
                self._left = int.from_bytes(header[4:], "big")
            chunk: bytes = self._reader.read1(min(self._left, _CHUNK_BYTES))
        except (OSError, ValueError):  # reset by the daemon's end; ValueError: closed by another thread
            return None
        if not chunk:
            return None
        self._left -= len(chunk)
        return self._stream, chunk

    def write(self, data: bytes) -> None:
        """All of ``data`` to stdin; waits while the container does not read.

        Raises:
            ConnectionError: the engine or the container is gone.
        """
        try:
            self._socket.sendall(data)
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionError("the container's stream is closed") from error

    def close(self) -> None:
        """Let go; a reader in another thread gets None. The container goes on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader, which holds the buffer that close() wants
        self._response.close()
