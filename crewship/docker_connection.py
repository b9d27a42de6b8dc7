"""The connection to Docker that the engine's adapter and the image builder share, and how its errors become the product's.

Connecting is put off to the first call, so that a process comes up while its engine is down and says so when asked.
One client serves all threads. The SDK keeps a connection pool for each URL and closes the least used of 25, which one
thread may do to a pool that another one has just been given; here, all URLs have one pool.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import docker
import docker.errors
import docker.utils
import requests
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

from crewship.engine import LABEL_INSTANCE, ContainerMissing
from crewship.errors import Unavailable

_POOL_CONNECTIONS = 64  # kept open; more are made when needed
_UNIX_BASE_URL = "http+docker://localhost"  # what the SDK calls any unix socket


class _Connection(UnixHTTPConnection):  # type: ignore[misc]
    def connect(self) -> None:
        """As the SDK's, which leaves the socket open when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.unix_socket)
        except OSError:
            sock.close()
            raise
        self.sock = sock


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _UnixAdapter(UnixHTTPAdapter):  # type: ignore[misc]
    """All requests by one connection pool: a unix socket has one peer."""

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        super().__init__(f"http+unix://{socket_path}", timeout_seconds)
        self._pool = _Pool(_UNIX_BASE_URL, self.socket_path, timeout_seconds, _POOL_CONNECTIONS)

    def get_connection(self, url: str, proxies: Any = None) -> _Pool:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


class DockerConnection:
    """A Docker daemon, by the SDK's low-level client.

    Args:
        base_url: Such as ``unix:///var/run/docker.sock``; None: ``DOCKER_HOST`` and its companions, as Docker's own tools
            take them.
        timeout_seconds: For one answer; calls that are known to take longer have their own.
    """

    def __init__(self, base_url: str | None = None, timeout_seconds: float = 60) -> None:
        self._base_url = base_url
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._api: Any = None

    @property
    def api(self) -> Any:
        """The client (``docker.APIClient``).

        Raises:
            Unavailable: the daemon does not answer.
        """
        if self._api is None:
            with self._lock, translated():
                if self._api is None:
                    self._api = self._connect()
        return self._api

    def patient(self, timeout_seconds: float) -> "DockerConnection":
        """Another connection to the same daemon, which waits longer for an answer."""
        return DockerConnection(self._base_url, timeout_seconds)

    def close(self) -> None:
        """Let the connections go; a later call connects anew."""
        with self._lock:
            api, self._api = self._api, None
        if api is not None:
            api.close()

    def _connect(self) -> Any:
        first = self._client(MINIMUM_DOCKER_API_VERSION)
        try:
            return self._client(first.version(api_version=False)["ApiVersion"])
        finally:
            first.close()

    def _client(self, version: str) -> Any:
        options = docker.utils.kwargs_from_env()
        if self._base_url is not None:
            options["base_url"] = self._base_url
        api = docker.APIClient(version=version, timeout=self._timeout_seconds, **options)
        # Proxies and ~/.netrc are for the way to servers; looking for them costs a file's read with each request.
        api.trust_env = False
        if api.base_url == _UNIX_BASE_URL:
            sdks = api.get_adapter(_UNIX_BASE_URL)
            api.mount("http+docker://", _UnixAdapter(sdks.socket_path, self._timeout_seconds))
            sdks.close()
        return api


@contextmanager
def translated(container: str = "") -> Iterator[None]:
    """Turn Docker's errors into ``ContainerMissing`` (404) and ``Unavailable`` (everything else)."""
    try:
        yield
    except docker.errors.NotFound as error:
        raise ContainerMissing(container) from error
    except docker.errors.APIError as error:
        raise Unavailable(f"The container engine refused a request: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise Unavailable(
            f"The container engine (Docker) cannot be reached: {_reason(error)}",
            hint="crewship doctor says what is wrong with it and how to mend it",
        ) from error


def _reason(error: BaseException) -> str:
    """What the operating system said, wrapped by two libraries; or what else it was."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TimeoutError | requests.Timeout):
            return "no answer in time"
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        within = next((each for each in seen.args if isinstance(each, BaseException)), None)
        seen = within or seen.__cause__ or seen.__context__
    return type(error).__name__


def ensure_bridge(api: Any, name: str, instance: str) -> None:
    """Make the bridge that containers share, unless it is there: they reach the outside and not each other.

    The bridge's interface has the network's name, which is what firewall rules go by.
    """
    if _has_network(api, name):
        return
    try:
        api.create_network(
            name,
            driver="bridge",
            options={
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.name": name,
            },
            labels={LABEL_INSTANCE: instance},
            check_duplicate=True,
        )
    except docker.errors.APIError:
        # Another process may have made it between the two calls.
        if not _has_network(api, name):
            raise


def require_apart(name: str, found: Any, *, is_closed: bool = False) -> None:
    """That a bridge keeps containers apart, whoever made it.

    Args:
        name: Its name.
        found: What the engine tells of it.
        is_closed: It is to have no way out.

    Raises:
        Unavailable: it does not.
    """
    options = found.get("Options") or {}
    wrong = None
    if options.get("com.docker.network.bridge.enable_icc") != "false":
        wrong = "lets containers reach each other"
    elif options.get("com.docker.network.bridge.name") != name:
        wrong = "has an interface of another name, which the guard's rules do not know"
    elif is_closed and not found.get("Internal"):
        wrong = "is not an internal one"
    elif found.get("EnableIPv6"):
        wrong = "has IPv6 addresses"
    if wrong is not None:
        raise Unavailable(
            f"The network {name} {wrong}", hint=f"docker network rm {name}: it is made again as it should be"
        )


def _has_network(api: Any, name: str) -> bool:
    try:
        api.inspect_network(name)
    except docker.errors.NotFound:
        return False
    return True


def has_status(error: docker.errors.APIError, status: HTTPStatus) -> bool:
    """Whether the daemon's answer was ``status``."""
    return bool(error.status_code == status)
