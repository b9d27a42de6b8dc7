"""Tells what a crew without a network tries to reach.

Outside a container nothing is seen of that: the kernel refuses it before there is a packet. So Python's own calls say it,
with the name that was asked for; what a program in another language tries is not seen.
"""

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Emit = Callable[[str, dict[str, Any]], None]

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")
_MAX_TARGETS = 500
_REFUSED = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


def is_closed(interfaces: "list[str]") -> bool:
    """Whether there is no way out: no interface but the loopback one."""
    return set(interfaces) <= {"lo"}


def tap(module: "ModuleType", emit: "Emit") -> None:
    """Have the ``socket`` module tell; every target once."""
    told: set[tuple[object, object]] = set()
    sockets = vars(module)

    def tell(host: object, port: object, protocol: str) -> None:
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("utf-8", "replace")
        if not isinstance(host, str) or not host or host.startswith(_LOCAL) or (host, port) in told:
            return
        if len(told) < _MAX_TARGETS:
            told.add((host, port))
            emit(
                "network.denied", {"host": host, "port": port if isinstance(port, int) else None, "protocol": protocol}
            )

    def told_when_refused(call: "Any") -> "Any":
        def connect(self: "Any", address: "Any") -> "Any":
            protocol = "udp" if self.type == sockets["SOCK_DGRAM"] else "tcp"
            try:
                answer = call(self, address)
            except OSError as error:
                if isinstance(address, tuple) and (error.errno in _REFUSED or isinstance(error, sockets["gaierror"])):
                    tell(address[0], address[1], protocol)
                raise
            if answer in _REFUSED and isinstance(address, tuple):
                tell(address[0], address[1], protocol)
            return answer

        return connect

    resolve = sockets["getaddrinfo"]

    def getaddrinfo(host: "Any", port: "Any", *arguments: "Any", **named: "Any") -> "Any":
        try:
            return resolve(host, port, *arguments, **named)
        except sockets["gaierror"]:
            number = int(port) if isinstance(port, str) and port.isdigit() else port
            tell(host, number, "tcp")
            raise

    def told_when_unknown(call: "Any") -> "Any":
        def gethostbyname(host: "Any") -> "Any":
            try:
                return call(host)
            except sockets["gaierror"]:
                tell(host, None, "tcp")
                raise

        return gethostbyname

    sockets["getaddrinfo"] = getaddrinfo
    for name in ("gethostbyname", "gethostbyname_ex"):
        sockets[name] = told_when_unknown(sockets[name])
    kind = sockets["socket"]
    kind.connect, kind.connect_ex = told_when_refused(kind.connect), told_when_refused(kind.connect_ex)
