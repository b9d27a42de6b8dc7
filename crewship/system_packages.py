"""The system packages of an image, as its own package database has them (Debian's and its relatives' ``dpkg``)."""

from dataclasses import dataclass

STATUS = "/var/lib/dpkg/status"
OS_RELEASE = "/usr/lib/os-release"


@dataclass(frozen=True, slots=True)
class SystemPackage:
    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True)
class SystemPackages:
    """What is installed, and by which distribution; empty of an image that has no such database."""

    distribution: str = ""
    """Such as ``debian``."""
    release: str = ""
    """Such as ``12``."""
    packages: tuple[SystemPackage, ...] = ()

    @classmethod
    def parse(cls, status: bytes, os_release: bytes) -> "SystemPackages":
        """Of the files ``STATUS`` and ``OS_RELEASE``; what cannot be read in them is left out."""
        system = {
            key: value.strip().strip('"')
            for key, equals, value in (
                line.partition("=") for line in os_release.decode("utf-8", "replace").splitlines()
            )
            if equals
        }
        found = []
        for paragraph in status.decode("utf-8", "replace").split("\n\n"):
            # Lines that begin with a space go on with the field above, none of which is wanted here.
            fields = {
                key: value.strip()
                for key, colon, value in (line.partition(":") for line in paragraph.splitlines())
                if colon and not key.startswith((" ", "\t"))
            }
            if fields.get("Status", "").endswith(" installed") and "Package" in fields and "Version" in fields:
                found.append(SystemPackage(fields["Package"], fields["Version"], fields.get("Architecture", "")))
        return cls(
            distribution=system.get("ID", ""),
            release=system.get("VERSION_ID", ""),
            packages=tuple(sorted(found, key=lambda package: (package.name, package.architecture))),
        )
