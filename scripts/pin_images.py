"""Pins the images of ``docker-compose.yml`` to what is pulled here: ``make pin`` writes ``docker-compose.override.yml``.

Compose reads that file beside the other one, so from then on each image is the one of that digest, wherever its tag is moved.
What is built here has no digest of a registry; what it is built from has, and the build is given it.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
OVERRIDE = "docker-compose.override.yml"
MARK = "# Written by `make pin`: the images by their digests. Once more after a `docker compose pull`."

_ARGUMENT = re.compile(r"^ARG (\w+_IMAGE)=(\S+)$", re.MULTILINE)
"""How the Dockerfiles name what they begin with."""


class NotPulled(Exception):
    """An image is not here, or came from no registry."""


def images(root: Path) -> dict[str, dict[str, Any]]:
    """Each service's part of ``docker-compose.yml`` that names images, by tags: ``image``, or ``build`` with its arguments."""
    found: dict[str, dict[str, Any]] = {}
    for name, service in yaml.safe_load((root / "docker-compose.yml").read_text())["services"].items():
        if "build" not in service:
            found[name] = {"image": service["image"]}
            continue
        build = service["build"] if isinstance(service["build"], dict) else {"context": service["build"]}
        text = (root / build.get("dockerfile", f"{build['context']}/Dockerfile")).read_text()
        found[name] = {"build": {**build, "args": dict(_ARGUMENT.findall(text))}}
    return found


def names(found: dict[str, dict[str, Any]]) -> list[str]:
    """All images in ``found``, each once."""
    each = [list(part["build"]["args"].values()) if "build" in part else [part["image"]] for part in found.values()]
    return sorted({image for some in each for image in some})


def pinned(found: dict[str, dict[str, Any]], digests: dict[str, str]) -> dict[str, Any]:
    """An override with ``digests`` at the images' names."""

    def pin(image: str) -> str:
        return f"{image}@{digests[image]}"

    services = {
        name: {"build": {**part["build"], "args": {key: pin(image) for key, image in part["build"]["args"].items()}}}
        if "build" in part
        else {"image": pin(part["image"])}
        for name, part in found.items()
    }
    return {"services": services}


def pulled_digest(image: str) -> str:
    """The digest by which a registry gave the image that is here.

    Raises:
        NotPulled: there is none.
    """
    command = ["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image]
    inspected = subprocess.run(command, capture_output=True, text=True, check=False)
    digests = json.loads(inspected.stdout) if inspected.returncode == 0 else []
    repository = image.rpartition(":")[0]
    # The engine leaves the registry's name out where it is the usual one.
    matching = [digest for digest in digests or [] if digest.partition("@")[0].endswith(repository)]
    if not matching:
        raise NotPulled(image)
    return str(matching[0].partition("@")[2])


def main(root: Path = ROOT, digest_of: Callable[[str], str] = pulled_digest) -> int:
    """Exit code: 0 written, 1 not: an image is not here, or the file is somebody else's."""
    override = root / OVERRIDE
    if override.exists() and not override.read_text().startswith(MARK):
        print(f"{override} is not one of `make pin`; have the images pinned there", file=sys.stderr)  # noqa: T201
        return 1
    found = images(root)
    digests, missing = {}, []
    for image in names(found):
        try:
            digests[image] = digest_of(image)
        except NotPulled:
            missing.append(image)
    if missing:
        print("not here, or not from a registry; first:", file=sys.stderr)  # noqa: T201
        for image in missing:
            print(f"  docker pull {image}", file=sys.stderr)  # noqa: T201
        return 1
    override.write_text(f"{MARK}\n{yaml.safe_dump(pinned(found, digests))}")
    print(f"{override}: {len(digests)} images by their digests")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
