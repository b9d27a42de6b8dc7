"""The container engine's port. Adapter: ``crewship.docker_engine``.

Small on purpose: what runs, builds and sweeps need. Containers are named by us and labelled with the installation's
name, and nothing that does not carry that label is ever touched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from crewship.recording import Looks

LABEL_INSTANCE = "crewship.instance"
LABEL_KIND = "crewship.kind"
"""``run``, ``spare``, ``smoke`` or ``build``."""
LABEL_DEPLOYMENT = "crewship.deployment"


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int = 4 << 30
    """Largest single file; that all of them keep to it is the supervisor's part (``runtime.disk``)."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A hardened container (design §4): the adapter adds the profile, callers cannot loosen it."""

    name: str
    image: str
    limits: Limits
    kind: Literal["run", "spare", "smoke"]
    network: str | None
    """Bridge's name, or None for no network."""
    labels: dict[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    """Hosts that the proxy lets it reach; with any, ``network`` is the closed bridge."""
    beside: str | None = None
    """With no network: the running container without one whose network namespace it shares."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    id: str
    name: str
    status: Literal["created", "running", "exited", "other"]
    exit_code: int | None
    oom_killed: bool
    labels: dict[str, str]
    started_at: str
    """As the engine writes it."""
    runtime: str = ""
    """What it is run by, such as ``runc`` or ``runsc``."""
    address: str = ""
    """Its own on the bridge, as long as it runs, on the closed bridge before that too; empty without a network."""


@dataclass(frozen=True, slots=True)
class ImageState:
    id: str
    name: str
    """A tag, or the id when it has none."""
    size_bytes: int
    """Without what it is built on."""
    created_at: datetime
    deployment_id: str | None
    """None: an image of dependencies."""
    is_parent_of: frozenset[str]
    """Ids of the images that are built on it, anybody's."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A regular file in a container; ``chunks`` must be read before the next file is asked for."""

    name: str
    """Relative to the archive's root; non-UTF-8 bytes as backslash escapes."""
    size_bytes: int
    chunks: Iterator[bytes]


class Attachment(Protocol):
    """A container's stdin and stdout. Reading and writing may happen in two threads."""

    def read(self) -> tuple[Literal["stdout", "stderr"], bytes] | None:
        """The next piece of output; None at the stream's end (which is not the container's end: ask ``inspect``)."""
        ...

    def write(self, data: bytes) -> None:
        """All of ``data`` to stdin.

        Raises:
            ConnectionError: the engine or the container is gone.
        """
        ...

    def close(self) -> None:
        """Let go; a reader in another thread gets None. The container goes on."""
        ...


class Engine(Protocol):
    """Blocking. Raises ``Unavailable`` when the engine cannot be reached, ``ContainerMissing``, ``ImageMissing``."""

    def check(self) -> None: ...

    def create(self, spec: ContainerSpec) -> str:
        """Create without starting; the container's id. One of that name that is there already is returned as it is."""
        ...

    def rename(self, container: str, name: str) -> None: ...

    def attach(self, container: str) -> Attachment:
        """Attach to stdin, stdout and stderr; before ``start`` nothing is missed."""
        ...

    def start(self, container: str) -> None:
        """Start; fine when it runs or ran already."""
        ...

    def kill(self, container: str, signal: str) -> bool:
        """Signal the container's init; False when it is not running (any more)."""
        ...

    def wait(self, container: str, timeout_seconds: float) -> bool:
        """Whether it ended within the time."""
        ...

    def inspect(self, container: str) -> ContainerState: ...

    def remove(self, container: str) -> None:
        """Kill and remove it with its volume; fine when it is not there."""
        ...

    def list(self, kind: str | None = None) -> list[ContainerState]:
        """This installation's containers, ended ones too."""
        ...

    def names(self) -> set[str]:
        """Names of this installation's containers, ended ones too, by one request: may be asked often."""
        ...

    def meter(self, container: str) -> Looks | None:
        """How to look at what a running container uses; None when it does not run, or when the engine does not answer."""
        ...

    def archive(self, container: str, path: str) -> Iterator[ArchiveFile]:
        """Regular files under folder ``path``, links and devices left out, also after the container's end."""
        ...

    def image_exists(self, image: str) -> bool: ...

    def remove_image(self, image: str) -> None: ...

    def images(self) -> Sequence[ImageState]:
        """This installation's images, those of deployments and those of dependencies."""
        ...

    def images_in_use(self) -> set[str]:
        """Ids of the images that containers were made from, anybody's, but those that this installation has
        started ahead."""
        ...

    def remove_volume(self, volume: str) -> bool:
        """Remove a named volume; False when a container still uses it, fine when it is not there."""
        ...

    def dangling_volumes(self) -> set[str]:
        """Names of this installation's volumes that no container has."""
        ...

    def networks(self) -> set[str]:
        """Names of this installation's networks."""
        ...

    def remove_network(self, network: str) -> bool:
        """Remove a network; False when a running container is attached to it, fine when it is not there."""
        ...

    def started_at(self) -> str:
        """When the engine's daemon started, as far as it tells; changes when it was restarted."""
        ...


class ContainerMissing(LookupError):
    """No container has that name."""


class ImageMissing(LookupError):
    """The engine does not have that image."""
