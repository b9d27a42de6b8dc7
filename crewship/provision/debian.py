"""A Debian or Ubuntu root file system with Python, made by debootstrap from this machine's own package mirror.

For machines that can reach a package mirror but no image registry. Mirror and suite are those of the machine's *enabled* apt
sources, so whatever network rules hold here have been met already.
"""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crewship.provision.commands import run
from crewship.provision.engine import install_packages
from crewship.provision.errors import ProvisionError
from crewship.provision.progress import Step

PYTHON_OF_SUITE = {
    "bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13", "jammy": "3.10", "noble": "3.12", "plucky": "3.13",
}  # fmt: skip
"""Known before a minute is spent on it; an unknown suite is bootstrapped and looked at."""

_BOOTSTRAP_SECONDS = 900
_PACKAGES = "python3,python3-venv,ca-certificates"
_NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/man", "usr/share/info", "usr/share/locale")


@dataclass(frozen=True, slots=True)
class Source:
    """An apt source that holds a suite.

    Attributes:
        url: The mirror.
        suite: Its suite, a code name.
        components: Of the suite, ``main`` among them.
        keyring: File with the keys it is signed by, when the source names one.
    """

    url: str
    suite: str
    components: tuple[str, ...]
    keyring: Path | None = None


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """This machine's code name, such as ``bookworm``; empty when it has none."""
    try:
        text = os_release.read_text()
    except OSError:
        return ""
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)', text, re.MULTILINE)
    return found[1] if found else ""


def find_source(suite: str, etc: Path = Path("/etc/apt")) -> Source | None:
    """The enabled apt source that holds ``suite`` itself (not its updates), or None.

    Args:
        suite: A code name.
        etc: The folder with ``sources.list`` and ``sources.list.d``.
    """
    for source in _sources(etc):
        if source.suite == suite and "main" in source.components and source.url.startswith(("http", "file:")):
            return source
    return None


def _sources(etc: Path) -> Iterator[Source]:
    folder = etc / "sources.list.d"
    for path in (etc / "sources.list", *sorted(folder.glob("*.list"))):
        for line in _read(path).splitlines():
            yield from _one_line(line)
    for path in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", _read(path)):
            yield from _stanza(stanza)


def _one_line(line: str) -> Iterator[Source]:
    """``deb [signed-by=/x.gpg arch=amd64] http://mirror suite main contrib``."""
    found = re.match(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)", line.strip())
    if found:
        keyring = re.search(r"signed-by=(\S+)", found[1] or "")
        for url in _mirrors(found[2]):
            yield Source(url, found[3], tuple(found[4].split()), _keyring(keyring[1] if keyring else ""))


def _stanza(stanza: str) -> Iterator[Source]:
    """A deb822 paragraph; a value goes on in lines that begin with a blank, and ``#`` lines are comments anywhere."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
        return
    for uri in fields.get("uris", "").split():
        for url in _mirrors(uri):
            for suite in fields.get("suites", "").split():
                yield Source(
                    url, suite, tuple(fields.get("components", "").split()), _keyring(fields.get("signed-by", ""))
                )


def _mirrors(uri: str) -> list[str]:
    """``uri``, or what the list holds that a ``mirror+file:`` one names (cloud images have that)."""
    if not uri.startswith("mirror+file:"):
        return [uri.rstrip("/")]
    lines = _read(Path(uri.removeprefix("mirror+file:"))).splitlines()
    return [line.split()[0].rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def _keyring(value: str) -> Path | None:
    """A keyring file; a key that stands in the source itself is left to debootstrap's own keyrings."""
    return Path(value) if value.startswith("/") and Path(value).is_file() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def can_bootstrap() -> str | None:
    """Why a root file system cannot be made here, or None when it can."""
    if platform.system() != "Linux" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "that needs root on Debian or Ubuntu"
    suite = codename()
    if find_source(suite) is None:
        return f"no enabled apt source holds {suite or 'this system'}"
    return None


def bootstrap(api: Any, repository: str, step: Step, *, log: Path) -> str:
    """Make a root file system of this machine's own suite and import it as an image; its reference.

    The tag says suite and Python: ``<repository>:bookworm-py3.11``.

    Args:
        api: The SDK's low-level client.
        repository: Of the image.
        step: Where to show what it is at.
        log: File for debootstrap's output.

    Raises:
        ProvisionError: it cannot be made here, or could not be.
    """
    suite = codename()
    source = find_source(suite)
    reason = can_bootstrap()
    if reason or source is None:
        raise ProvisionError(f"a base image cannot be made on this machine: {reason}")
    if shutil.which("debootstrap") is None:
        install_packages(["debootstrap"], step, log=log)
    with tempfile.TemporaryDirectory(prefix="crewship-base-") as scratch:
        root = Path(scratch) / "root"
        components = [name for name in source.components if name in ("main", "universe")]
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", f"--components={','.join(components)}"]
        if source.keyring:
            command.append(f"--keyring={source.keyring}")
        hint = f"does the package mirror {source.url} answer?"
        run([*command, suite, root, source.url], step, log=log, timeout_seconds=_BOOTSTRAP_SECONDS, hint=hint)
        step.detail("importing it into the engine")
        python = os.readlink(root / "usr/bin/python3").removeprefix("python")
        _strip(root)
        (root / "usr/bin/python").symlink_to("python3")
        tag = f"{suite}-py{python}"
        _import(api, root, repository, tag)
    return f"{repository}:{tag}"


def _strip(root: Path) -> None:
    """Remove what a container never reads; licences stay."""
    for name in _NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True, exist_ok=True)
    for folder, _, files in os.walk(root / "usr/share/doc"):
        for name in files:
            if name != "copyright":
                Path(folder, name).unlink()


def _import(api: Any, root: Path, repository: str, tag: str) -> None:
    command = [
        "tar",
        "-C",
        str(root),
        "--numeric-owner",
        "--exclude=./proc/*",
        "--exclude=./sys/*",
        "--exclude=./dev/*",
        "-c",
        ".",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as packer:
        api.import_image_from_stream(
            packer.stdout, repository, tag, changes=[f"LABEL crewship.python={tag.partition('-py')[2]}"]
        )
    if packer.returncode:
        raise ProvisionError("the root file system could not be packed")
