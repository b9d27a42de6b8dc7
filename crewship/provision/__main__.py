"""``python -m crewship.provision [all|engine|temporal|base|squid|minio|runsc ...]``: get what the platform needs, and say how.

Everything that is made here is kept: a second call finds it and takes a second.
"""

import argparse
import sys

from crewship.errors import CrewshipError
from crewship.provision.base_image import ensure_base_image
from crewship.provision.engine import connect, ensure_engine
from crewship.provision.errors import ProvisionError
from crewship.provision.minio import MINIO
from crewship.provision.progress import progress_for
from crewship.provision.runsc import RUNSC
from crewship.provision.squid import ensure_squid
from crewship.provision.temporal import ensure_temporal
from crewship.settings import Settings

_PLATFORM = ("engine", "temporal", "base", "squid")
"""What ``crewship dev`` needs; MinIO and gVisor's runsc are for tests only."""


def main(arguments: list[str] | None = None) -> int:
    """Provision what ``arguments`` name; the exit code."""
    parser = argparse.ArgumentParser("crewship.provision", description="Get what the platform needs on this machine.")
    parser.add_argument("parts", nargs="*", choices=["all", *_PLATFORM, "minio", "runsc"], default="all")
    chosen = parser.parse_args(arguments).parts
    parts = {chosen} if isinstance(chosen, str) else set(chosen)
    if "all" in parts:
        parts |= set(_PLATFORM)
    try:
        _provision(parts)
    except CrewshipError as error:
        print(f"error: {error.detail}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def _provision(parts: set[str]) -> None:
    settings, progress = Settings(), progress_for(sys.stderr)
    found = {}
    if "engine" in parts:
        engine = ensure_engine(settings.cache_dir, progress)
        found["container engine"] = engine.version()["Version"]
        engine.close()
    if "temporal" in parts:
        found["Temporal"] = ensure_temporal(settings.cache_dir, progress, settings.temporal_bin)
    if "base" in parts:
        engine = connect()
        base = ensure_base_image(engine, settings.cache_dir, progress, configured=settings.base_image)
        found["base image"] = base.reference
        engine.close()
    if "squid" in parts:
        try:
            found["egress proxy"] = ensure_squid(settings.cache_dir, progress)
        except ProvisionError as error:
            # Only runs with [network] allow need it.
            print(f"! {error.detail}: {error.hint}", file=sys.stderr)  # noqa: T201
    if "minio" in parts:
        found["MinIO"] = MINIO.ensure(settings.cache_dir, progress)
    if "runsc" in parts:
        found["gVisor"] = RUNSC.ensure(settings.cache_dir, progress)
    for name, value in found.items():
        print(f"✓ {name}: {value}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
