"""Reads what the rules refuse, from the kernel: NFLOG over netlink, with the standard library alone.

One reader a group. A packet's first 64 bytes are enough: both addresses, protocol, port.
"""

import errno
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_ULOG = 4
_PACKET, _CONFIG = _ULOG << 8, _ULOG << 8 | 1
_REQUEST_AND_ACK = 0x1 | 0x4
_ERROR = 2
_CFG_CMD, _CFG_MODE, _CFG_TIMEOUT, _CFG_QTHRESH = 1, 2, 4, 5
_BIND = 1
_COPY_PACKET = 2
_PAYLOAD = 9
_SNAP_BYTES = 64
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp"}
_TRIES = 16


@dataclass(frozen=True, slots=True)
class Refused:
    """One packet: from which container, to where. ``port`` is None for what has none."""

    source: str
    host: str
    port: int | None
    protocol: str


class NflogReader:
    """A group of NFLOG, which no other process reads meanwhile.

    Args:
        name: Whose group: the same name gets the same number, unless somebody else has it.

    Raises:
        OSError: the kernel has no NFLOG, or this process may not read it (CAP_NET_ADMIN).
    """

    def __init__(self, name: str) -> None:
        first = 1 + zlib.crc32(name.encode()) % 65000
        for self.group in range(first, first + _TRIES):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
            try:
                self.socket.bind((0, 0))
                self.socket.settimeout(5)
                self._configure(_attribute(_CFG_CMD, struct.pack("B", _BIND)))
                self._configure(_attribute(_CFG_MODE, struct.pack(">IBB", _SNAP_BYTES, _COPY_PACKET, 0)))
                # At once, not when a buffer is full or a second is over.
                self._configure(_attribute(_CFG_QTHRESH, struct.pack(">I", 1)))
                self._configure(_attribute(_CFG_TIMEOUT, struct.pack(">I", 1)))
                self.socket.setblocking(False)
                return
            except OSError as error:
                self.socket.close()
                # The same answer to "somebody else has it" and to "you may not".
                if error.errno not in (errno.EPERM, errno.EBUSY):
                    raise
                refused = error
        raise refused

    def close(self) -> None:
        self.socket.close()

    def read(self) -> Iterator[Refused]:
        """What has come; ends when there is nothing more for now. Packets that came too fast are lost."""
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue
                raise
            yield from _packets(data)

    def _configure(self, attribute: bytes) -> None:
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, self.group) + attribute
        self.socket.send(struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST_AND_ACK, 1, 0) + body)
        while True:
            answer = self.socket.recv(65536)
            _, kind = struct.unpack_from("=IH", answer)
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", answer, 16)
                if code:
                    raise OSError(-code, os.strerror(-code))
                return


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _packets(data: bytes) -> Iterator[Refused]:
    """The packets in one datagram of netlink messages."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if length < 16:
            return
        if kind == _PACKET:
            payload = _find(data[20:length], _PAYLOAD)
            if (refused := refused_of(payload)) is not None:
                yield refused
        data = data[(length + 3) & ~3 :]


def _find(attributes: bytes, wanted: int) -> bytes:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if length < 4:
            break
        if kind & 0x3FFF == wanted:
            return attributes[4:length]
        attributes = attributes[(length + 3) & ~3 :]
    return b""


def refused_of(packet: bytes) -> Refused | None:
    """What an IPv4 packet's first bytes say; None when it is none."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 0xF) * 4
    protocol = _PROTOCOLS.get(packet[9], str(packet[9]))
    port = None
    if protocol in ("tcp", "udp") and len(packet) >= header + 4:
        (port,) = struct.unpack_from(">H", packet, header + 2)
    return Refused(socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20]), port, protocol)
