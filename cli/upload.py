"""Bring a packed source to the platform, so that a deployment is made of it.

Its digest is offered first, unless sending is as quick as asking: what the project was deployed from before is not sent again. A
small archive goes whole; a larger one in parts, of which only those go that are not there, so that after a broken connection, a
restart of the platform or another ``crewship deploy`` of the same files it goes on where it was.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import httpx

from crewship.errors import Conflict, NotFound, TooLarge, Unavailable

if TYPE_CHECKING:
    from typing import BinaryIO

    from cli.client import Client
    from cli.pack import Packed
    from cli.progress import Progress

T = TypeVar("T")

_WHOLE_BYTES: Final = 4 * 1024 * 1024
"""What is sent in one call, and begun anew when that breaks."""
SMALL_BYTES: Final = 64 * 1024
"""What is sent unasked."""
_PATIENCE_SECONDS: Final = 60.0
"""How long the platform may be away before the upload is given up; it restarts in far less."""
_WAIT_SECONDS: Final = (0.2, 0.5, 1.0, 2.0)
_ROUNDS: Final = 3
"""How often parts are sent that were there and are not any more."""


def send(
    client: "Client", project: str, packed: "Packed", name: str | None, *, activate: bool, force: bool
) -> dict[str, Any]:
    """Have a deployment made of the archive; the Deployment.

    Raises:
        TooLarge: the platform takes less than we have; the hint names the largest files.
        Unavailable: it was away for too long; the hint says that the next deploy goes on.
    """
    from cli.client import segment
    from cli.pack import leave_out

    path = f"/projects/{segment(project)}/deployments"
    fields = {"name": name} if name else {}
    query = {"activate": None if activate else "false", "force": "true" if force else None}

    def offer() -> dict[str, Any]:
        deployment: dict[str, Any] = client.offer(path, {**fields, "source_sha256": packed.sha256}, **query)
        return deployment

    if packed.size_bytes > SMALL_BYTES:
        try:
            return offer()
        except (NotFound, Conflict) as error:
            if error.code not in ("source_unknown", "upload_incomplete"):
                raise
    try:
        if packed.size_bytes <= _WHOLE_BYTES:
            return _send_whole(client, path, packed, fields, query)
        return _send_parts(client, f"/projects/{segment(project)}/uploads", packed, offer)
    except TooLarge as error:
        raise TooLarge(error.detail, code=error.code, hint=leave_out(packed.largest)) from None


def _send_whole(
    client: "Client", path: str, packed: "Packed", fields: dict[str, str], query: dict[str, str | None]
) -> dict[str, Any]:
    with packed.path.open("rb") as file:
        watched = cast("BinaryIO", _Watched(file, packed.size_bytes))
        deployment: dict[str, Any] = client.upload(path, watched, fields, **query)
        return deployment


def _send_parts(
    client: "Client", path: str, packed: "Packed", offer: Callable[[], dict[str, Any]]
) -> dict[str, Any]:  # fmt: skip
    from cli.human import size
    from cli.output import say
    from cli.progress import Progress

    about = {"source_sha256": packed.sha256, "size_bytes": packed.size_bytes}
    for round_ in range(_ROUNDS):
        upload: dict[str, Any] = _patiently(lambda: client.post(path, about))
        missing, part_bytes = upload["missing"], upload["part_bytes"]
        there = packed.size_bytes - sum(min(part_bytes, packed.size_bytes - number * part_bytes) for number in missing)
        if there:
            say(f"  going on with an upload: {size(there)} of {size(packed.size_bytes)} are there")
        with Progress("uploading", packed.size_bytes) as progress:
            progress.at(there)
            _send_missing(client, f"{path}/{packed.sha256}/parts", packed, missing, part_bytes, progress)
        try:
            return _patiently(offer)
        except (NotFound, Conflict) as error:
            # Dropped meanwhile: nobody has gone on with it for a day, or it had to make room.
            if error.code not in ("source_unknown", "upload_incomplete") or round_ == _ROUNDS - 1:
                raise
    raise AssertionError("the last round returns or raises")


def _send_missing(
    client: "Client", path: str, packed: "Packed", missing: list[int], part_bytes: int, progress: "Progress"
) -> None:
    with packed.path.open("rb") as file:
        for number in missing:
            file.seek(number * part_bytes)
            content = file.read(part_bytes)
            try:
                _patiently(lambda number=number, content=content: client.put(f"{path}/{number}", content))  # type: ignore[misc]
            except NotFound as error:
                if error.code != "upload_not_found":
                    raise
                return  # dropped meanwhile: it is begun anew
            progress.advance(len(content))


def _patiently(call: Callable[[], T]) -> T:
    """What ``call``, which may be repeated, says once the platform answers."""
    from cli.output import say_warning

    deadline: float | None = None
    waited = 0
    while True:
        try:
            return call()
        except Unavailable as error:
            if not isinstance(error.__cause__, httpx.TransportError):
                raise  # it has answered, and says what is away
            if deadline is None:
                deadline = time.monotonic() + _PATIENCE_SECONDS
                say_warning(f"{error.detail}; the upload goes on when it is back")
            if time.monotonic() >= deadline:
                raise Unavailable(
                    error.detail,
                    hint="what has come is kept for a day: the next crewship deploy goes on where this one stopped",
                ) from error
            time.sleep(_WAIT_SECONDS[min(waited, len(_WAIT_SECONDS) - 1)])
            waited += 1


class _Watched:
    """A file whose reading moves a progress bar; it starts anew when the file is read again."""

    def __init__(self, file: "BinaryIO", size_bytes: int) -> None:
        from cli.progress import Progress

        self._file = file
        self._progress = Progress("uploading", size_bytes)
        self._size_bytes = size_bytes

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._progress.at(self._file.tell())
        if not content or self._file.tell() >= self._size_bytes:
            self._progress.__exit__()
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()
