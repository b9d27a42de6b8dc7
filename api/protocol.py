"""HTTP as uvicorn speaks it, but large pieces of a stream are written as they are.

uvicorn joins each piece with the frame of its chunk, a copy of half a megabyte for every client that reads. With fifty readers
of a million lines that is a third of what the process spends in Python.
"""

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_LARGE_BYTES = 64 * 1024
"""From here on three writes cost less than one copy."""


class _Cycle(RequestResponseCycle):
    async def send(self, message: Message) -> None:  # type: ignore[override]
        body = message["body"] if message["type"] == "http.response.body" and message.get("more_body") else b""
        if len(body) < _LARGE_BYTES or not self.chunked_encoding or not self.response_started:
            await super().send(message)  # type: ignore[arg-type]
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.transport.write(b"%x\r\n" % len(body))
        self.transport.write(memoryview(body))  # what the socket does not take at once is cut off without a copy
        self.transport.write(b"\r\n")


class Protocol(HttpToolsProtocol):
    """For ``uvicorn.Config(http=...)``."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if type(self.cycle) is RequestResponseCycle:
            self.cycle.__class__ = _Cycle
