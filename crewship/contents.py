"""What a deployment consists of, kept beside it for as long as there is the deployment, whatever becomes of image and source.

Two objects: the files of its source by digest, written when its build begins, and what the build has made of them (base image,
resolved packages), written when there is an image. From two deployments' contents comes what differs between them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import orjson
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import TypeAdapter

from crewship.builds import BuiltImage
from crewship.objects import build_key, files_key
from crewship.source import SourceFile
from crewship.storage import ObjectMissing, ObjectStore, read
from crewship.system_packages import SystemPackages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Build:
    """What an image was built from."""

    base_name: str
    base_image: str
    """Its id (digest)."""
    python: str
    lock: str
    """The packages that are installed, a requirement a line."""
    system: SystemPackages

    @classmethod
    def of(cls, built: BuiltImage) -> "Build":
        return cls(built.base.name, built.base.image_id, built.python, built.lock, built.system)


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that is installed."""

    name: str
    """As the lock spells it."""
    version: str | None
    url: str | None
    """Where it came from, when that is no index; then the version may not be known."""

    @property
    def pin(self) -> str:
        return self.version or self.url or ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is in the second of two and not in the first, the other way round, and what is in both but not the same."""

    added: Mapping[str, Any]
    removed: Mapping[str, Any]
    changed: Mapping[str, tuple[Any, Any]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


_FILES: TypeAdapter[dict[str, SourceFile]] = TypeAdapter(dict[str, SourceFile])
_BUILD: TypeAdapter[Build] = TypeAdapter(Build)


def keep_files(store: ObjectStore, deployment_id: str, files: Mapping[str, SourceFile]) -> None:
    """Idempotent."""
    store.put(files_key(deployment_id), orjson.dumps({name: asdict(files[name]) for name in sorted(files)}))


def keep_build(store: ObjectStore, deployment_id: str, build: Build) -> None:
    """Idempotent."""
    store.put(build_key(deployment_id), orjson.dumps(asdict(build)))


def read_files(store: ObjectStore, deployment_id: str) -> dict[str, SourceFile] | None:
    """Name → file; None when they were not kept: its build has not begun, or is older than this."""
    return _read(store, files_key(deployment_id), _FILES)


def read_build(store: ObjectStore, deployment_id: str) -> Build | None:
    """None when there is none: the build has not come so far, or is older than this."""
    return _read(store, build_key(deployment_id), _BUILD)


def _read(store: ObjectStore, key: str, kind: TypeAdapter[T]) -> T | None:
    try:
        return kind.validate_json(read(store, key))
    except ObjectMissing:
        return None


def packages(lock: str) -> dict[str, Package]:
    """Normalized name → package of a lock's lines; comments, hashes and options are passed over."""
    found: dict[str, Package] = {}
    for line in lock.replace("\\\n", " ").splitlines():
        words = line.split(" --hash")[0].split(" #")[0].strip()
        if not words or words.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(words)
        except InvalidRequirement:
            continue
        pins = [pin.version for pin in requirement.specifier if pin.operator in ("==", "===")]
        package = Package(requirement.name, pins[0] if pins else None, requirement.url)
        found[canonicalize_name(requirement.name)] = package
    return found


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """What differs between two mappings."""
    both = before.keys() & after.keys()
    return Changes(
        added={name: after[name] for name in sorted(after.keys() - before.keys())},
        removed={name: before[name] for name in sorted(before.keys() - after.keys())},
        changed={name: (before[name], after[name]) for name in sorted(both) if before[name] != after[name]},
    )


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key → value of a nested config; what is not set (None) is not there."""

    def walk(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in table.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            elif value is not None:
                yield f"{prefix}{key}", value

    return dict(walk(config, ""))
