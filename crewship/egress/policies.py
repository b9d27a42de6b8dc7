"""Who may reach what, as the proxy's helper reads it: one file for each address of a container."""

import os
import re
from ipaddress import IPv4Address
from pathlib import Path

from crewship.egress.wiring import DEFAULT_PORTS

_CONTAINER = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_HOST = re.compile(r"(\*\.)?[a-z0-9_.-]{1,253}(:[0-9]{1,5})?")


class Policies:
    """The files in one folder.

    Args:
        folder: Made when it is not there. What an earlier process of this host has left in it holds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o755, exist_ok=True)
        self._addresses: dict[str, str] = {}
        """By container."""

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(self._addresses)

    def permit(self, container: str, address: str, hosts: tuple[str, ...]) -> None:
        """From now on ``address`` is the container's, and may reach ``hosts``; in one step.

        Raises:
            ValueError: one of them is not what it is said to be.
            OSError: it cannot be written down.
        """
        text = "".join(f"{rule}\n" for host in hosts for rule in rules_of(host))
        if not _CONTAINER.fullmatch(container):
            raise ValueError(container)
        file = self._folder / str(IPv4Address(address))
        for other in [other for other, its in self._addresses.items() if its == file.name and other != container]:
            del self._addresses[other]
        new = self._folder / f".{file.name}"
        new.write_text(text)
        os.chmod(new, 0o644)
        new.rename(file)
        self._addresses[container] = file.name

    def forget(self, container: str) -> None:
        """The container is gone; fine when somebody else has its address by now, or nobody ever told of it."""
        address = self._addresses.pop(container, None)
        if address is not None:
            (self._folder / address).unlink(missing_ok=True)

    def clear(self) -> None:
        """Nobody may reach anything."""
        self._addresses.clear()
        for file in self._folder.iterdir():
            file.unlink()


def rules_of(entry: str) -> list[str]:
    """An entry of ``[network] allow`` as the helper's rules: ``name port``, a rule for each port.

    Raises:
        ValueError: it is none.
    """
    if not _HOST.fullmatch(entry.lower()):
        raise ValueError(entry)
    name, _, port = entry.lower().partition(":")
    return [f"{name} {number}" for number in ([int(port)] if port else DEFAULT_PORTS)]
