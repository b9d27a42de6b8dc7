"""The proxy of runs with ``[network] allow``: what it costs a request, and whether it errs under load.

The servers that runs ask, and that of names, are in this process, at an address of the host that an exception opens. Latency is
compared turn by turn with runs on the open bridge, which have the same rules and the same way but the proxy. Under load every
tenth request comes with one to a host that is not in the list, and with one that has another host's name in its TLS greeting.
"""

import socket
import statistics
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.platform import Platform, platform, project
from benchmarks.report import Row, ms
from crewship.egress.wiring import closed_bridge
from tests.fixtures.origins import Names, Origins

BRIDGE = "crewbench1"
RUNS, REQUESTS = 20, 500
EVERY = 10
ROUNDS, SAMPLES = 5, 100
CODE = '''
import os, socket, ssl, time

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
PROXY = os.environ.get("HTTPS_PROXY", "").removeprefix("http://").partition(":")
GET = b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"


def opened(target, name):
    """A TLS connection to ``target``, by the proxy where there is one; or what the proxy says instead."""
    s = socket.create_connection((PROXY[0], int(PROXY[2])) if PROXY[0] else target, 20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if PROXY[0]:
        s.sendall(b"CONNECT %s:%d HTTP/1.1\\r\\n\\r\\n" % (target[0].encode(), target[1]))
        status = s.recv(4096).split()[1]
        if status != b"200":
            s.close()
            return status.decode()
    try:
        return CONTEXT.wrap_socket(s, server_hostname=name)
    except OSError:
        s.close()
        return "ended"


def asked(connection):
    connection.sendall(GET)
    answer = connection.recv(4096)
    while b"]" not in answer and (more := connection.recv(4096)):
        answer += more
    return answer.startswith(b"HTTP/1.1 200")


def kickoff(inputs):
    return globals()[inputs["do"]](**inputs["with"])


def latency(target, samples):
    """Seconds that a request takes, connection and all; and that one takes on a connection that is there."""
    target = tuple(target)
    fresh, kept = [], []
    for number in range(samples + 3):
        began = time.perf_counter()
        connection = opened(target, "good.test")
        assert asked(connection)
        ready = time.perf_counter()
        assert asked(connection)
        kept.append(time.perf_counter() - ready)
        fresh.append(ready - began)
        connection.close()
    return [fresh[3:], kept[3:]]


def load(good, bad, port, count, every):
    counts = {"through": 0, "wrongly refused": 0, "refused": 0, "wrongly through": 0}
    took = []
    for number in range(count):
        began = time.perf_counter()
        connection = opened((good, port), good)
        is_through = not isinstance(connection, str) and asked(connection)
        took.append(time.perf_counter() - began)
        counts["through" if is_through else "wrongly refused"] += 1
        if not isinstance(connection, str):
            connection.close()
        if number % every == 0:
            for target, name, expected in ((bad, bad, "403"), (good, bad, "ended")):
                came = opened((target, port), name)
                counts["refused" if came == expected else "wrongly through"] += 1
    return counts | {"took": took}
'''


def measure(folder: Path) -> list[Row]:
    host = _own_address()
    origins = Origins(folder)
    names = Names({"good.test": host, "bad.test": host})
    env = {
        "CREWSHIP_NETWORK": BRIDGE,
        "CREWSHIP_NETWORK_DNS": names.address,
        "CREWSHIP_NETWORK_REACH": f"{host}:{origins.tls_port}",
        "CREWSHIP_RUN_CAPACITY": str(RUNS),
    }
    try:
        with platform(env) as where:
            allow = f'[network]\nallow = ["good.test:{origins.tls_port}"]\n'
            where.deploy(project(folder / "restricted", CODE, allow))
            where.deploy(project(folder / "open", CODE))
            return _latency(where, host, origins.tls_port) + _load(where, origins.tls_port)
    finally:
        subprocess.run(
            ["docker", "network", "rm", BRIDGE, closed_bridge(BRIDGE)], check=False, stdout=subprocess.DEVNULL
        )
        names.close()
        origins.close()


def _latency(where: Platform, host: str, port: int) -> list[Row]:
    fresh: list[float] = []
    kept: list[float] = []
    direct_fresh: list[float] = []
    direct_kept: list[float] = []
    # Turn by turn, so that neither has the machine at a better time.
    for _ in range(ROUNDS):
        by_proxy = _output(where, "restricted", "latency", target=["good.test", port], samples=SAMPLES)
        direct = _output(where, "open", "latency", target=[host, port], samples=SAMPLES)
        for ours, came in (
            (fresh, by_proxy[0]),
            (kept, by_proxy[1]),
            (direct_fresh, direct[0]),
            (direct_kept, direct[1]),
        ):
            ours.extend(came)
    return [
        _cost(
            "a request through the egress proxy, connection and TLS included, beyond a direct one", fresh, direct_fresh
        ),
        _cost("the same on a connection that is there", kept, direct_kept),
    ]


def _cost(name: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    cost = (statistics.median(ours) - statistics.median(theirs)) * 1000
    detail = f"p50 {ms(ours):.2f}, p90 {ms(ours, 0.9):.2f} ms against {ms(theirs):.2f}, {ms(theirs, 0.9):.2f}"
    return Row(name, cost, "ms", 5, f"{detail}, {len(ours)} each")


def _load(where: Platform, port: int) -> list[Row]:
    asked: dict[str, Any] = {"good": "good.test", "bad": "bad.test", "port": port, "count": REQUESTS, "every": EVERY}
    with ThreadPoolExecutor(RUNS) as pool:
        came = list(pool.map(lambda _: _output(where, "restricted", "load", **asked), range(RUNS)))
    total = {
        name: sum(one[name] for one in came) for name in ("through", "wrongly refused", "refused", "wrongly through")
    }
    took = [seconds for one in came for seconds in one["took"]]
    detail = f"{total['through']:,} let through, p50 {ms(took):.0f}, p99 {ms(took, 0.99):.0f} ms"
    return [
        Row(f"allowed requests of {RUNS} runs at once, wrongly refused", total["wrongly refused"], "", 0, detail),
        Row(
            "fronts and other hosts among them, wrongly let through",
            total["wrongly through"],
            "",
            0,
            f"{total['refused']:,} refused",
        ),
    ]


def _output(where: Platform, name: str, do: str, **asked: Any) -> Any:
    ended = where.wait(where.run(name, do=do, **{"with": asked}))
    if ended["status"] != "succeeded":
        raise RuntimeError(f"{name}: {ended['error']}")
    return ended["output"]


def _own_address() -> str:
    """Of this host, the one that leads out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect(("192.0.2.254", 9))  # sends nothing
        return str(s.getsockname()[0])
