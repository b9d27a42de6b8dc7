"""The image that crews' images are built on: a slim Python, and on it the *platform base*.

The slim Python is, in this order: the configured image; ``python:<version>-slim``, there or pulled; a root file system made
from the machine's own package mirror (``crewship.provision.debian``). The platform base adds the user that crews run as, the
folders that a deployment's image is made of, and ``uv``. It is put together without running anything in it, and named by what
it is made of: equal parts find the image that is there.
"""

import contextlib
import hashlib
import io
import json
import platform
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import docker
import docker.utils
import uv

from crewship.provision import debian
from crewship.provision.commands import locked, run
from crewship.provision.engine import FOREIGN_ERRORS, connect
from crewship.provision.errors import ProvisionError, PythonUnavailable
from crewship.provision.progress import Progress, Step

REPOSITORY = "crewship/base"
DEBIAN_REPOSITORY = "crewship/base-debian"
DEFAULT_PYTHON = "3.11"
"""What the platform's own tests run with; taken when a project asks for none."""

CREW_UID = 10001
UV = "opt/crewship/bin/uv"
"""Path of ``uv`` in the image, from the root."""

_LAYOUT = "1"
"""Part of the name: changes when the platform base is put together in another way."""
_LABEL_PYTHON = "crewship.python"
_LABEL_LAYOUT = "crewship.base-layout"
_CREW_FOLDERS = ("app", "build", "cache", "home/crew")
"""Owned by the crew's user; a deployment's dependencies are installed under it too."""
_ROOT_FOLDERS = ("opt/crewship", "opt/crewship/bin", "opt/crewship/source")
_STALL_SECONDS = 20
"""A registry that sends nothing for so long counts as not reachable."""
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UV_PLATFORMS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A platform base that the engine has.

    Attributes:
        reference: ``crewship/base:py3.11-<hash>``.
        image_id: ``sha256:...``; what an image built on it depends on.
        python: Major and minor version.
    """

    reference: str
    image_id: str
    python: str


@dataclass(frozen=True, slots=True)
class _Slim:
    """An image with Python that a platform base can be made on, or that is one."""

    reference: str
    image_id: str
    python: str
    is_platform_base: bool = False


def ensure_base_image(
    api: Any, cache: Path, progress: Progress, *, python: str | None = None, configured: str = ""
) -> BaseImage:
    """The platform base for a Python version, made when it is missing.

    Args:
        api: The SDK's low-level client (``crewship.provision.engine.connect``).
        cache: Crewship's cache folder.
        progress: Where to show what takes time; nothing is shown when all is there.
        python: Major and minor version; None: the configured image's, else 3.11, else what this machine can make.
        configured: Image to build on (``CREWSHIP_BASE_IMAGE``): a platform base, or any image with Python.

    Raises:
        PythonUnavailable: that version cannot be had here.
        ProvisionError: there is no base image at all, and why.
    """
    if found := find_base_image(api, python=python, configured=configured):
        return found
    with locked(cache, "base-image"):
        slim = _find_slim(api, python, configured) or _get_slim(api, cache, progress, python, configured)
        if found := _finished(api, slim):
            return found
        with progress.step(f"Making the base image for Python {slim.python}") as step:
            return _make_platform_base(api, slim, step, cache / "logs" / "base-image.log")


def find_base_image(api: Any, *, python: str | None = None, configured: str = "") -> BaseImage | None:
    """The platform base for a Python version when it is there already; arguments as above."""
    slim = _find_slim(api, python, configured)
    return _finished(api, slim) if slim else None


def _finished(api: Any, slim: _Slim) -> BaseImage | None:
    if slim.is_platform_base:
        return BaseImage(slim.reference, slim.image_id, slim.python)
    reference = _platform_reference(slim)
    found = _inspect(api, reference)
    return BaseImage(reference, found["Id"], slim.python) if found else None


def _find_slim(api: Any, python: str | None, configured: str) -> _Slim | None:
    """The image to build on, of those that are here."""
    if configured:
        found = _slim_of(api, configured)
        if found is None or python in (None, found.python):
            return found
    if found := _slim_of(api, f"python:{python or DEFAULT_PYTHON}-slim"):
        return found
    suffix = f"-py{python}" if python else ""
    images = api.images(DEBIAN_REPOSITORY)
    made = (tag for image in images for tag in image["RepoTags"] or () if tag.endswith(suffix))
    reference = min(made, default=None)
    return _slim_of(api, reference) if reference else None


def _get_slim(api: Any, cache: Path, progress: Progress, python: str | None, configured: str) -> _Slim:
    """Pull or make the image to build on."""
    if configured and _inspect(api, configured) is None:
        if not _pull(api, configured, progress):
            raise ProvisionError(
                f"the configured base image {configured} is not on this machine and cannot be pulled",
                hint="pull or load it, or unset CREWSHIP_BASE_IMAGE",
            )
        if (found := _slim_of(api, configured)) and python in (None, found.python):
            return found
    reference = f"python:{python or DEFAULT_PYTHON}-slim"
    if _pull(api, reference, progress) and (found := _slim_of(api, reference)):
        return found
    reason = debian.can_bootstrap()
    makes = debian.PYTHON_OF_SUITE.get(debian.codename()) if reason is None else None
    if python and makes and makes != python:
        raise _unavailable(python, api, makes)
    if reason:
        if python and (here := _versions_here(api, configured)):
            raise _unavailable(python, api, *here)
        raise ProvisionError(
            f"there is no base image: {reference} cannot be pulled, and none can be made here, for {reason}",
            hint=f"load one (`docker load`, `docker pull {reference}`), or name one in CREWSHIP_BASE_IMAGE",
        )
    with progress.step("Making a base image from the package mirror (once, about a minute)") as step:
        made = debian.bootstrap(api, DEBIAN_REPOSITORY, step, log=cache / "logs" / "base-image.log")
    found = _slim_of(api, made)
    assert found is not None, "the engine lost the image that it has just imported"
    if python and found.python != python:
        raise _unavailable(python, api, found.python)
    return found


def _versions_here(api: Any, configured: str) -> list[str]:
    """Python versions of the images that are here."""
    names = [configured] if configured else []
    for image in api.images():
        names += [tag for tag in image["RepoTags"] or () if re.match(rf"python:3\.\d+-slim$|{DEBIAN_REPOSITORY}:", tag)]
    return sorted({found.python for name in names if (found := _slim_of(api, name))})


def _unavailable(python: str, api: Any, *others: str) -> PythonUnavailable:
    versions = sorted({*others, *_versions_here(api, "")}, key=lambda version: int(version.partition(".")[2]))
    return PythonUnavailable(
        f"there is no base image for Python {python}: python:{python}-slim is not on this machine and cannot be pulled",
        hint=f"Python {' or '.join(versions)} can be had here; or `docker load` an image named python:{python}-slim",
    )


def _slim_of(api: Any, reference: str) -> _Slim | None:
    """What an image that is here offers; None when it is not here."""
    found = _inspect(api, reference)
    if found is None:
        return None
    labels = found["Config"].get("Labels") or {}
    env = dict(item.split("=", 1) for item in found["Config"].get("Env") or () if "=" in item)
    python = labels.get(_LABEL_PYTHON) or ".".join(env.get("PYTHON_VERSION", "").split(".")[:2])
    if not re.fullmatch(r"3\.\d+", python):
        python = _ask_python(api, found["Id"], reference)
    return _Slim(reference, found["Id"], python, is_platform_base=_LABEL_LAYOUT in labels)


def _ask_python(api: Any, image_id: str, reference: str) -> str:
    """Start the image's Python to learn its version: for a configured image that does not say."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    container = None
    try:
        config = api.create_host_config(network_mode="none")
        container = api.create_container(
            image_id, ["-c", program], entrypoint=["python3"], network_disabled=True, host_config=config
        )["Id"]
        api.start(container)
        code = api.wait(container)["StatusCode"]
        said = api.logs(container, stdout=True, stderr=False).decode().strip()
    except FOREIGN_ERRORS:
        code, said = 1, ""
    finally:
        if container:
            api.remove_container(container, force=True, v=True)
    if code or not re.fullmatch(r"3\.\d+", said):
        raise ProvisionError(
            f"the base image {reference} has no python3 that runs", hint="name another one, such as python:3.11-slim"
        )
    return str(said)


def _inspect(api: Any, reference: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = api.inspect_image(reference)
    except docker.errors.ImageNotFound:
        return None
    return found


def _pull(api: Any, reference: str, progress: Progress) -> bool:
    """Whether ``reference`` could be pulled; without a registry that is known within seconds."""
    repository, tag = docker.utils.parse_repository_tag(reference)
    impatient = connect(_STALL_SECONDS)
    with contextlib.closing(impatient), progress.step(f"Looking for {reference} in its registry") as step:
        with contextlib.suppress(*FOREIGN_ERRORS):  # no registry is no fault: there are other ways
            for line in impatient.pull(repository, tag or "latest", stream=True, decode=True):
                step.detail(f"{line.get('status', '')} {line.get('progress', '')}".strip())
    return _inspect(api, reference) is not None


def _platform_reference(slim: _Slim) -> str:
    parts = json.dumps([slim.image_id, version("uv"), _LAYOUT])
    return f"{REPOSITORY}:py{slim.python}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def _make_platform_base(api: Any, slim: _Slim, step: Step, log: Path) -> BaseImage:
    """Put user, folders and ``uv`` on ``slim``: files copied into a container that never starts, and a commit."""
    reference = _platform_reference(slim)
    repository, _, tag = reference.rpartition(":")
    container = api.create_container(slim.image_id, ["true"])["Id"]
    try:
        with tempfile.TemporaryFile() as archive, _uv_for(api.info()["Architecture"], step, log) as uv_binary:
            accounts = {name: _read_file(api, container, name) for name in ("/etc/passwd", "/etc/group")}
            _pack(archive, accounts, uv_binary)
            archive.seek(0)
            step.detail("copying")
            api.put_archive(container, "/", archive)
        env = api.inspect_image(slim.image_id)["Config"].get("Env") or []
        path = next((item for item in env if item.startswith("PATH=")), f"PATH={_DEFAULT_PATH}")
        changes = [f"ENV {path}", "ENV LANG=C.UTF-8"]
        changes += ["WORKDIR /app", "ENTRYPOINT []"]
        changes += [f"LABEL {_LABEL_PYTHON}={slim.python} {_LABEL_LAYOUT}={_LAYOUT}"]
        made = api.commit(container, repository, tag, changes=changes)
    finally:
        api.remove_container(container, force=True, v=True)
    return BaseImage(reference, made["Id"], slim.python)


def _pack(archive: IO[bytes], accounts: dict[str, bytes], uv_binary: Path) -> None:
    lines = {
        "/etc/passwd": f"crew:x:{CREW_UID}:{CREW_UID}::/home/crew:/usr/sbin/nologin\n",
        "/etc/group": f"crew:x:{CREW_UID}:\n",
    }
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, owner in [(name, 0) for name in _ROOT_FOLDERS] + [(name, CREW_UID) for name in _CREW_FOLDERS]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(entry)
        for name, line in lines.items():
            kept = [old for old in accounts[name].splitlines(keepends=True) if not old.startswith(b"crew:")]
            data = b"".join(kept) + line.encode()
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.mode, entry.size = 0o644, len(data)
            tar.addfile(entry, io.BytesIO(data))
        entry = tarfile.TarInfo(UV)
        entry.mode, entry.size = 0o755, uv_binary.stat().st_size
        with uv_binary.open("rb") as file:
            tar.addfile(entry, file)


def _read_file(api: Any, container: str, path: str) -> bytes:
    chunks, _ = api.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        file = tar.extractfile(path.rpartition("/")[2])
        assert file is not None, f"{path} is no file"
        return file.read()


@contextlib.contextmanager
def _uv_for(architecture: str, step: Step, log: Path) -> Iterator[Path]:
    """The ``uv`` binary for the engine's machine: ours, unless the engine runs on another kind of machine."""
    ours = uv.find_uv_bin()
    machine = {"arm64": "aarch64", "amd64": "x86_64"}
    if sys.platform == "linux" and machine.get(platform.machine(), platform.machine()) == architecture:
        yield Path(ours)
        return
    with tempfile.TemporaryDirectory() as scratch:
        target = _UV_PLATFORMS.get(architecture, architecture)
        command = [ours, "pip", "install", "--no-deps", "--target", scratch, "--python-platform", target]
        run([*command, f"uv=={version('uv')}"], step, log=log, timeout_seconds=300)
        yield Path(scratch, "bin", "uv")
