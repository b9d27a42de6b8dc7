"""Artifacts of a run: fetched beside where they go, checked, and only then put in place."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cli.client import Client, artifact_path, save, segment
from cli.human import count, size
from cli.output import say, say_done
from crewship.errors import CrewshipError, NotFound, Usage


def list_all(client: Client, run_id: str) -> list[dict[str, Any]]:
    """All artifacts of a run."""
    listed: list[dict[str, Any]] = client.pages(f"/runs/{segment(run_id)}/artifacts", "artifacts")["artifacts"]
    return listed


def download_all(client: Client, run_id: str, folder: Path, *, overwrite: bool) -> None:
    """Save every artifact under ``folder``, by its name.

    Raises:
        Usage: ``folder`` is a file, or a file is there already with another content and ``overwrite`` is not set.
    """
    refuse_file(folder)
    artifacts = list_all(client, run_id)
    if not artifacts:
        say(f"{run_id} has no artifacts")
        return
    targets = [(artifact, inside(folder, artifact["name"])) for artifact in artifacts]
    if not overwrite:
        for artifact, path in targets:
            _refuse_other(path, artifact)
    for artifact, path in targets:
        fetch(client, run_id, artifact, path)
    total = sum(artifact["size"] for artifact in artifacts)
    say_done(f"Saved {count(len(artifacts), 'artifact')} in {folder} ({size(total)})")


def download_one(client: Client, run_id: str, name: str, output: Path | None, *, overwrite: bool) -> None:
    """Save one artifact as ``output`` (default: its name without folders, here), or write it to stdout for ``-``.

    Raises:
        NotFound: the run has no such artifact.
        Usage: a file is there already with another content, and ``overwrite`` is not set.
    """
    artifacts = list_all(client, run_id)
    artifact = next((item for item in artifacts if item["name"] == name), None)
    if artifact is None:
        names = [item["name"] for item in artifacts]
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise NotFound(
            f"{run_id} has no artifact {name!r}", hint=f"it has: {shown}" if names else "it has none",
            code="artifact_not_found",
        )  # fmt: skip
    if str(output) == "-":
        from cli.watch import write_bytes

        with client.download(artifact_path(run_id, name)) as (_, chunks):
            for chunk in chunks:
                write_bytes(sys.stdout, chunk)
        return
    path = output or Path(PurePosixPath(name).name)
    if path.is_dir():
        path = path / PurePosixPath(name).name
    if not overwrite:
        _refuse_other(path, artifact)
    fetch(client, run_id, artifact, path)
    say_done(f"Saved {path} ({size(artifact['size'])})")


def fetch(client: Client, run_id: str, artifact: dict[str, Any], path: Path) -> None:
    """Save one artifact at ``path``; it appears there only when it is whole and its digest is right."""
    from cli.progress import Progress

    digest = hashlib.sha256()

    def checked(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            digest.update(chunk)
            yield chunk
        if artifact.get("sha256") and digest.hexdigest() != artifact["sha256"]:
            raise CrewshipError(f"{artifact['name']} arrived damaged", hint="try again")

    with Progress(artifact["name"], artifact["size"]) as progress:
        try:
            with client.download(artifact_path(run_id, artifact["name"])) as (_, chunks):
                save(checked(chunks), path, progress.advance)
        except OSError as error:
            raise CrewshipError(
                f"{path} cannot be written: {error.strerror}", hint="save it elsewhere: -o PATH"
            ) from None


def inside(folder: Path, name: str) -> Path:
    """Where an artifact goes under ``folder``; never outside of it, whatever its name.

    Raises:
        CrewshipError: the name would leave the folder.
    """
    parts = PurePosixPath(name).parts
    path = folder.joinpath(*parts)
    if not parts or name.startswith("/") or ".." in parts or not path.resolve().is_relative_to(folder.resolve()):
        raise CrewshipError(f"the artifact {name!r} would be saved outside {folder}", hint="fetch it alone, with -o")
    return path


def refuse_file(folder: Path) -> None:
    """Raise ``Usage`` when there is something at ``folder`` that is none."""
    if folder.exists() and not folder.is_dir():
        raise Usage(
            f"{folder} is a file, and artifacts are saved in a folder",
            hint="name a folder; for one artifact in one file: crewship runs download RUN FILE -o PATH",
        )


def _refuse_other(path: Path, artifact: dict[str, Any]) -> None:
    """A file that is there already stays, unless it is this very artifact."""
    if not path.exists():
        return
    if path.is_file() and path.stat().st_size == artifact["size"]:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == artifact.get("sha256"):
                return
    raise Usage(f"{path} is there already, with other content", hint="-o puts it elsewhere, --force replaces it")
