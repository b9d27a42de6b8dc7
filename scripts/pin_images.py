"""Pins the images of ``docker-compose.yml`` to what is pulled here: ``make pin`` writes ``docker-compose.override.yml``.

Compose reads that file beside the other one, so from then on each image is the one of that digest, wherever its tag is moved.
What is built here (``build:``) has no digest of a registry and stays as it is.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
OVERRIDE = "docker-compose.override.yml"
MARK = "# Written by `make pin`: the images by their digests. Once more after a `docker compose pull`."


class NotPulled(Exception):
    """An image is not here, or came from no registry."""


def pins(compose: dict[str, Any], digest_of: Callable[[str], str]) -> dict[str, Any]:
    """The services' images with their digests, as an override of ``compose``.

    Args:
        digest_of: Digest by which a registry gave the image of that name; raises ``NotPulled``.
    """
    foreign = {name: service["image"] for name, service in compose["services"].items() if "build" not in service}
    return {"services": {name: {"image": f"{image}@{digest_of(image)}"} for name, image in foreign.items()}}


def pulled_digest(image: str) -> str:
    """The digest by which a registry gave the image that is here.

    Raises:
        NotPulled: there is none.
    """
    command = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    repository = image.rpartition(":")[0]
    digests = json.loads(found.stdout) if found.returncode == 0 else []
    # The engine leaves the registry's name out where it is the usual one.
    matching = [digest for digest in digests or [] if digest.partition("@")[0].endswith(repository)]
    if not matching:
        raise NotPulled(image)
    return str(matching[0].partition("@")[2])


def main(root: Path = ROOT) -> int:
    """Exit code: 0 written, 1 not: an image is not here, or somebody else's file is."""
    override = root / OVERRIDE
    if override.exists() and not override.read_text().startswith(MARK):
        print(f"{override} is not one of `make pin`; have the images pinned there", file=sys.stderr)  # noqa: T201
        return 1
    try:
        found = pins(yaml.safe_load((root / "docker-compose.yml").read_text()), pulled_digest)
    except NotPulled as missing:
        print(f"{missing} is not here, or not from a registry; first: docker compose pull", file=sys.stderr)  # noqa: T201
        return 1
    override.write_text(f"{MARK}\n{yaml.safe_dump(found)}")
    print(f"{override}: {len(found['services'])} images by their digests")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
