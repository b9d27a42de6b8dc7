"""What is in an image of dependencies, as its build has written it there."""

from dataclasses import dataclass
from typing import Final

from crewship.build_container import BuildContainer
from crewship.installer import LOCK, PYTHON_VERSION
from crewship.system_packages import OS_RELEASE, STATUS, SystemPackages

_MAX: Final = 32
"""Images that are remembered; what is in one has some tens of kilobytes."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    python: str
    """Version of its interpreter, such as ``3.11.2``."""
    lock: str
    """The packages that are installed, as ``name==version`` lines."""
    system: SystemPackages


def read_facts(container: BuildContainer) -> ImageFacts:
    """Of the image that a container is made from, or becomes.

    Raises:
        ContainerMissing, Unavailable: the engine's reasons.
    """
    lock, python = container.read(LOCK).decode(), container.read(PYTHON_VERSION).decode()
    system = SystemPackages.parse(container.read_if_there(STATUS), container.read_if_there(OS_RELEASE))
    return ImageFacts(python.strip().removeprefix("Python "), lock, system)


class KnownImages:
    """Facts by an image's id. The engine takes longer to read a file than to copy a source into a container, and an image never
    changes. Any thread may call."""

    def __init__(self) -> None:
        self._facts: dict[str, ImageFacts] = {}

    def of(self, image: str, container: BuildContainer) -> ImageFacts:
        """Those of ``image``, read from ``container``, which was made from it, unless they are known."""
        known = self._facts.get(image)
        if known is None:
            known = read_facts(container)
            self.remember(image, known)
        return known

    def remember(self, image: str, facts: ImageFacts) -> None:
        while len(self._facts) >= _MAX:
            self._facts.pop(next(iter(self._facts)), None)
        self._facts[image] = facts
