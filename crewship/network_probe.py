"""Tries from inside what runs must not reach: a container on their bridge, as they are made, that knocks and reports.

Each target is knocked at by TCP, which must not be answered. The host itself and the metadata service are sent a datagram
besides, which the guard's rules answer in a way that nothing else does: "administratively prohibited". So an address at
which simply nobody listens does not pass for a guarded one; two datagrams see both chains, and the kernel answers only six
at once.

Runs that have a kernel of their own (gVisor) are tried twice: that kernel tells a program nothing of such an answer, so it is
asked for TCP alone, and the datagrams are sent by a container of the engine's default runtime. The rules are the host's and see
both alike.
"""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import docker.errors

from crewship.closed_bridge import closed_endpoint
from crewship.docker_connection import ensure_bridge, translated
from crewship.docker_stream import DockerStream
from crewship.engine import ImageMissing
from crewship.errors import CrewshipError, Unavailable

TARGETS = ("169.254.169.254", "10.254.254.254", "172.31.254.254", "192.168.254.254")
"""The cloud's metadata service first, and an address of each private range; the host itself is known inside as the gateway."""

_PATIENCE_SECONDS = 6
"""The kernel answers so many datagrams a second; a run that had the same address before may have used them up."""
_LIMIT_SECONDS = 30.0

_KNOCK = """
import errno, json, socket, struct, sys, time
targets, patience, proxy = json.loads(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
with open("/proc/net/route") as routes:
    rows = [line.split() for line in routes.readlines()[1:]]
gateways = [socket.inet_ntoa(struct.pack("=I", int(row[2], 16))) for row in rows if row[1] == "00000000"]
until = time.monotonic() + patience
# On the closed bridge there may be no route, which is as good as a refusal, to anywhere but the host itself.
if proxy:
    proxy, _, port = proxy.partition(":")
    gateways = [proxy]

def tcp(host, port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((host, port)) == 0

def prohibited(host):
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.5)
            try:
                s.connect((host, 9))
                s.send(b"crewship")
                s.recv(1)
                return False
            except TimeoutError:
                if time.monotonic() > until:
                    return False
            except OSError as error:
                return error.errno == errno.EHOSTUNREACH or bool(proxy and host != proxy and error.errno == errno.ENETUNREACH)

def refuses():
    # A proxy that serves: it is there, and lets nobody through that it was not told of.
    try:
        with socket.create_connection((proxy, int(port)), 3) as s:
            s.sendall(b"CONNECT crewship.invalid:443 HTTP/1.1\\r\\nHost: crewship.invalid\\r\\n\\r\\n")
            return s.recv(12).endswith(b" 403")
    except OSError:
        return False

found = {host: "open" if tcp(host, 80) else "refused" for host in gateways + targets}
for host in gateways + targets[:1] if patience else []:
    if found[host] == "refused" and not prohibited(host):
        found[host] = "unguarded"
print(json.dumps({"gateways": gateways, "found": found, "proxy": refuses() if proxy else None}), flush=True)
"""


class ProbeFailed(Exception):
    """Something could be reached that must not be: the message says what."""


def probe(
    api: Any,
    *,
    instance: str,
    image: str,
    bridge: str,
    targets: Sequence[str] = TARGETS,
    runtime: str = "",
    proxy: str = "",
) -> float:
    """Knock at all targets and at the host; seconds that it took.

    The containers, one after the other, are gone afterwards. Their name is the installation's, so that two probes at once are
    one too many: whoever calls sees to that.

    Args:
        api: The engine's client.
        instance: The installation's name.
        image: Any image with a ``python3``.
        bridge: The runs' bridge; made when it is not there.
        targets: Addresses that must be refused.
        runtime: The engine's runtime that runs are started by; empty: its default.
        proxy: URL of the proxy that is to be the only way out, on the closed bridge; empty: it is an open one.

    Raises:
        ProbeFailed: a target is open.
        ImageMissing: no such image.
        Unavailable: the engine does not answer, or the container told nothing.
    """
    began = time.monotonic()
    if not proxy:
        with translated(bridge):
            ensure_bridge(api, bridge, instance)
    name = f"crewship-probe-{instance}{'-closed' if proxy else ''}"
    if runtime:  # first: without a guard the other one fails, and whether this one works is all that is asked
        try:
            output = _knock(api, name, image, bridge, targets, runtime, proxy)
        except CrewshipError as error:
            raise Unavailable(
                f"The runtime {runtime!r} starts no container: {error.detail}",
                hint=f"try it by hand on the container host: docker run --rm --runtime {runtime} {image} true",
            ) from error
        _judge(output, bridge, proxy)
    _judge(_knock(api, name, image, bridge, targets, proxy=proxy), bridge, proxy)
    return time.monotonic() - began


def _knock(
    api: Any, name: str, image: str, bridge: str, targets: Sequence[str], runtime: str = "", proxy: str = ""
) -> bytes:
    """What a container tells that has knocked at everything, by TCP alone when it has a ``runtime`` of its own."""
    patience = 0 if runtime else _PATIENCE_SECONDS
    with translated(name):
        _remove(api, name)
        try:
            container = api.create_container(
                image=image,
                name=name,
                entrypoint=["/usr/bin/env", "python3", "-I", "-S", "-c", _KNOCK],
                command=[json.dumps(list(targets)), str(patience), proxy.removeprefix("http://")],
                user="10001:10001",
                detach=True,
                host_config=api.create_host_config(
                    network_mode=bridge,
                    read_only=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges:true"],
                    mem_limit=256 << 20,
                    pids_limit=512 if runtime else 16,
                    runtime=runtime or None,
                    log_config={"type": "none"},
                ),
                networking_config=closed_endpoint(api, bridge) if proxy else None,
            )["Id"]
        except docker.errors.NotFound as error:
            raise ImageMissing(image) from error
        try:
            return _output(api, container)
        finally:
            _remove(api, container)


def _judge(output: bytes, bridge: str, proxy: str) -> None:
    """Raise ``ProbeFailed`` when something could be reached, ``Unavailable`` when the container told nothing."""
    try:
        told = json.loads(output)
        found: dict[str, str] = told["found"]
        gateways: list[str] = told["gateways"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"The network's probe told nothing: {output.decode('utf-8', 'replace')[-300:]!r}") from error
    if not gateways:
        raise Unavailable(f"The network's probe had no way out of {bridge}")
    wrong = [
        f"{'the host' if host in gateways else host} {'can be reached' if how == 'open' else 'is not guarded'}"
        for host, how in found.items()
        if how != "refused"
    ]
    if told.get("proxy") is False:
        wrong.append(f"the proxy at {proxy} does not answer as it should")
    if wrong:
        raise ProbeFailed(f"From a container on {bridge} {', '.join(wrong)}")


def _output(api: Any, container: str) -> bytes:
    """What the container prints, until its end or for so long."""
    stream = DockerStream.open(api, f"/containers/{container}/attach", params={"stream": 1, "stdout": 1, "stderr": 1})
    parts: list[bytes] = []
    try:
        api.start(container)
        api.wait(container, timeout=_LIMIT_SECONDS)
        while (piece := stream.read()) is not None:
            parts.append(piece[1])
    finally:
        stream.close()
    return b"".join(parts)


def _remove(api: Any, container: str) -> None:
    with suppress(docker.errors.NotFound):
        api.remove_container(container, v=True, force=True)
