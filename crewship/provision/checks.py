"""What the platform needs, checked one by one; for ``crewship doctor``.

A check changes nothing and makes nothing. What is not there yet but would be made by the next ``crewship dev`` is a warning;
what would stop it, or the promises of a run's container, is a failure.
"""

import contextlib
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crewship.egress.squid import find_squid
from crewship.errors import CrewshipError
from crewship.provision import base_image, engine, squid, temporal
from crewship.settings import Settings

_LOW_BYTES, _TOO_LOW_BYTES = 5 << 30, 1 << 30
"""An image of a crew with CrewAI takes about 1 GiB."""
_AT_START = "`crewship dev` makes it"


@dataclass(frozen=True, slots=True)
class Check:
    """A finding.

    Attributes:
        name: What was looked at.
        status: ``warn`` can be lived with, ``fail`` cannot.
        detail: What was found.
        hint: How to mend it, when there is something to mend.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    hint: str | None = None


def check_machine(settings: Settings) -> Iterator[Check]:
    """Python, container engine, base image, Temporal's CLI, egress proxy, disk space."""
    yield _python()
    with contextlib.ExitStack() as stack:
        try:
            api = stack.enter_context(contextlib.closing(engine.connect()))
            info = api.info()
        except CrewshipError as error:
            hint = "`crewship dev` installs one" if engine.is_ours_to_install() else error.hint
            yield Check("container engine", "fail", error.detail, hint)
            api, info = None, None
        if api is not None:
            yield from _engine(info)
            yield _base(api, settings)
    yield _temporal_cli(settings)
    yield _squid()
    yield from _disks(settings, info)


def check_stores(settings: Settings) -> Iterator[Check]:
    """Database and object store, as the settings name them."""
    yield _database(settings)
    yield _objects(settings)


def check_temporal(settings: Settings, *, expected: bool) -> Check:
    """Temporal's server.

    Args:
        settings: Say where it is.
        expected: Whether one has to run: a platform runs here, or its address is configured.
    """
    address = settings.temporal_address
    binary = None
    with contextlib.suppress(CrewshipError):
        binary = temporal.find_temporal(settings.cache_dir, settings.temporal_bin)
    if temporal.is_serving(binary, address) if binary else temporal.listens(address):
        return Check("Temporal server", "ok", address)
    if not expected:
        return Check("Temporal server", "warn", "not running", "`crewship dev` starts it")
    return Check(
        "Temporal server", "fail", f"nothing answers at {address}", "its log is logs/temporal.log in the data folder"
    )


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _engine(info: dict[str, Any]) -> Iterator[Check]:
    """What of the engine's own account decides whether a run's limits and logs hold."""
    runtime = f"{info['ServerVersion']}, {info['NCPU']} CPUs, {info['MemTotal'] >> 30} GiB"
    yield Check("container engine", "ok", runtime)
    lacking = [
        name
        for key, name in (("MemoryLimit", "memory"), ("PidsLimit", "pids"), ("CpuCfsQuota", "CPU"))
        if info.get(key) is False
    ]
    cgroup = f"v{info.get('CgroupVersion', '1')}, {info.get('CgroupDriver', '?')}"
    if lacking:
        how = "mount the cgroup controllers (package cgroupfs-mount, or a kernel that has them) and restart the engine"
        yield Check("cgroups", "fail", f"{cgroup}; no limits on {', '.join(lacking)}", how)
    else:
        yield Check("cgroups", "ok", f"{cgroup}; memory, pids and CPU are limited")
    driver = info["Driver"]
    if driver == "vfs":
        yield Check("storage driver", "warn", "vfs: each image and container is a full copy", "use overlay2 if you can")
    else:
        yield Check("storage driver", "ok", driver)
    how = "the supervisor of each run measures its files and ends it at the limit; a single file is held by the kernel"
    yield Check("run disk limit", "ok", f"watched: {how}")
    if info.get("LiveRestoreEnabled"):
        yield Check("live restore", "ok", "runs outlive a restart of the engine")
    else:
        how = 'put {"live-restore": true} into /etc/docker/daemon.json and reload the engine (SIGHUP)'
        yield Check("live restore", "warn", "off: a restart of the engine ends all runs", how)
    if "name=seccomp" not in ",".join(info.get("SecurityOptions") or []):
        yield Check("seccomp", "warn", "off: a run may make any system call", "use a kernel with seccomp")
    if info.get("BridgeNfIptables") is False:
        how = "modprobe br_netfilter && sysctl net.bridge.bridge-nf-call-iptables=1"
        yield Check("bridge filter", "warn", "runs on one bridge can reach each other", how)


def _base(api: Any, settings: Settings) -> Check:
    try:
        found = base_image.find_base_image(api, configured=settings.base_image)
    except CrewshipError as error:
        return Check("base image", "fail", error.detail, error.hint)
    if found is None:
        return Check("base image", "warn", "not there yet", _AT_START)
    return Check("base image", "ok", f"{found.reference} (Python {found.python})")


def _temporal_cli(settings: Settings) -> Check:
    try:
        found = temporal.find_temporal(settings.cache_dir, settings.temporal_bin)
    except CrewshipError as error:
        return Check("Temporal CLI", "fail", error.detail, error.hint)
    if found is None:
        return Check("Temporal CLI", "warn", "not there yet", "`crewship dev` downloads or builds it")
    return Check("Temporal CLI", "ok", str(found))


def _squid() -> Check:
    found = find_squid()
    if found is None:
        return Check("egress proxy", "warn", "there is no squid: runs with [network] allow are refused", squid.HINT)
    return Check("egress proxy", "ok", found)


def _disks(settings: Settings, info: dict[str, Any] | None) -> Iterator[Check]:
    folders = {"disk of the data folder": settings.data_dir}
    if info and Path(info["DockerRootDir"]).is_dir():
        folders["disk of the engine"] = Path(info["DockerRootDir"])
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        detail = f"{free / (1 << 30):.1f} GiB free at {there}"
        if free < _LOW_BYTES:
            status: Literal["warn", "fail"] = "fail" if free < _TOO_LOW_BYTES else "warn"
            yield Check(name, status, detail, "free some: `docker system df` says what images take")
        else:
            yield Check(name, "ok", detail)


def _database(settings: Settings) -> Check:
    from crewship.db import check, open_database

    if not settings.database_url and not (settings.data_dir / "crewship.db").exists():
        return Check("database", "warn", f"none in {settings.data_dir} yet", _AT_START)
    kind = settings.database.partition(":")[0].partition("+")[0]
    try:
        database = open_database(settings.database)
        with contextlib.closing(_Disposing(database)):
            check(database)
    except CrewshipError as error:
        return Check(
            "database", "fail", f"{kind}: {error.detail}", "is CREWSHIP_DATABASE_URL right, and the server up?"
        )
    return Check("database", "ok", kind)


def _objects(settings: Settings) -> Check:
    from crewship.stores import open_store

    folder = settings.data_dir / "objects"
    # Made right after the database beside it: with that one here, a folder that is not there is lost.
    if not settings.object_store and not folder.exists() and not (settings.data_dir / "crewship.db").exists():
        return Check("object store", "warn", f"none in {settings.data_dir} yet", _AT_START)
    try:
        open_store(settings.objects).check()
    except (CrewshipError, ValueError) as error:
        where = f"{settings.objects}: " if settings.objects.startswith("file:") else ""  # others hold a secret
        return Check(
            "object store",
            "fail",
            f"{where}{error}",
            "is CREWSHIP_OBJECT_STORE right, and the store up, its volume mounted and writable?",
        )
    return Check("object store", "ok", settings.objects.partition(":")[0])


class _Disposing:
    """A database's ``dispose`` under the name that ``closing`` calls."""

    def __init__(self, database: Any) -> None:
        self.close = database.dispose
