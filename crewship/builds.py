"""What building and trying a deployment say while they work and when they are done.

``crewship.image_builder`` makes the image, ``crewship.smoke`` boots it once. Both tell a ``BuildLog`` what happens as it happens,
and raise ``BuildFailed`` for what is the project's to mend; the platform's own troubles stay ``Unavailable``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from crewship.contracts import RunError
from crewship.system_packages import SystemPackages

LABEL_DEPENDENCIES = "crewship.dependencies"
"""On an image: the hash of everything its dependencies were made from."""
IMAGE_KIND = "image"
"""``LABEL_KIND`` of images; their containers have another one."""


Locks = Callable[[str], str | None]
"""The lock of an earlier build by its dependency key; None: there was none."""


def no_locks(dependency_key: str) -> str | None:
    """Of a builder that keeps nothing."""
    return None


def app_image(deployment_id: str) -> str:
    """The tag of a deployment's image."""
    return f"crewship/app:{deployment_id}"


def cache_volume(instance: str, project: str) -> str:
    """The volume with a project's downloaded packages; one a project, since builds run code of their packages' authors."""
    return f"crewship-{instance}-cache-{project}"


class BuildLog(Protocol):
    """Where a build tells what it does. Called from one thread."""

    def line(self, message: str, level: str, stream: str, /) -> None:
        """A line of output: level as in ``log`` events, stream ``stdout`` or ``stderr``."""
        ...

    def step(
        self, name: str, status: Literal["started", "completed", "failed"], duration_ms: int | None, cached: bool, /
    ) -> None:
        """A step began or ended; ``duration_ms`` is None at the beginning."""
        ...


@dataclass(frozen=True, slots=True)
class BuildStep:
    """A step that is done."""

    name: str
    duration_ms: int
    cached: bool


@dataclass(frozen=True, slots=True)
class BuildBase:
    """The platform base that an image is built on."""

    name: str
    image_id: str
    python: str | None
    """Version of Python that it was asked for; None: any."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A deployment's image on the engine that built it."""

    image_id: str
    """``sha256:<64 hex>``."""
    python: str
    """Version of its interpreter, such as ``3.11.2``."""
    lock: str
    """The packages that are installed, as ``name==version`` lines."""
    dependencies_cached: bool
    steps: tuple[BuildStep, ...]
    base: BuildBase
    system: SystemPackages
    recipe: str
    """Digest of how it was made, besides source, config and base: equal ones make the same of the same."""
    dependency_key: str
    """Digest of all that decides its packages: equal ones have the same."""


class BuildFailed(Exception):
    """The deployment cannot be made from this project.

    Attributes:
        code: One of the error codes of a deployment.
        message: What is wrong, for the project's author.
        hint: What to do about it, or None.
        traceback: The crew's own, or None.
    """

    def __init__(self, code: str, message: str, hint: str | None = None, traceback: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.traceback = traceback

    @property
    def error(self) -> RunError:
        """As activities hand it on (without the traceback, which is kept in the database)."""
        return RunError(code=self.code, message=self.message, hint=self.hint)


def canceled() -> BuildFailed:
    """The failure of a build that was told to stop."""
    return BuildFailed("canceled", "The deployment was canceled")
