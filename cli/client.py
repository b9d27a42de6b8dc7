"""The HTTP contract as the CLI uses it: requests, problems as errors, and event streams that resume by themselves.

Streams are read as NDJSON: the lines are the very bytes of the log, so that they can be shown, kept and verified as they are.
A stream that breaks is opened again after the last event seen, for as long as the run lives; what was shown once is never
shown twice.
"""

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self
from urllib.parse import quote

import httpx

from cli.credentials import Target
from crewship.errors import (
    Conflict,
    CrewshipError,
    Forbidden,
    InvalidRequest,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from crewship.events import TERMINAL, Event, parse

_BY_STATUS: dict[int, type[CrewshipError]] = {
    401: Unauthorized, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge, 429: TooManyRequests,
    502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 90.0
"""Longer than the longest ``?wait=`` (60 s)."""
_TRIES = 4
"""For a call that is safe to repeat: a GET, or a POST with an idempotency key."""
_PATIENCE = (5, 5, 5)
"""Seconds that it waits without a word when it is told that it asks too often; longer is an error for the user to see."""
_BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Line:
    """One event and its line as it came."""

    event: Event
    raw: bytes


class Client:
    """A connection to one server. Every method raises the product's own errors (:mod:`crewship.errors`)."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.server_time: datetime | None = None
        """The server's clock at its last answer, rounded up to a second."""
        self._http = httpx.Client(
            base_url=f"{target.url}/v1",
            headers={"User-Agent": "crewship-cli"} | _authorization(target),
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            # Reading all certificates that this machine trusts takes longer than most calls; without TLS they are for nothing.
            verify=target.url.startswith("https:"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # --- requests -----------------------------------------------------------------------------------------------------

    def get(self, path: str, **params: Any) -> Any:
        """``GET``; parameters that are None are left out."""
        return self._send("GET", path, params=_present(params)).json()

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """``POST`` with a JSON body."""
        return self._send("POST", path, json={} if body is None else body, params=_present(params)).json()

    def post_once(self, path: str, body: Any) -> Any:
        """``POST`` that takes effect once: it carries an idempotency key, so it may be tried again when the answer is lost."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._repeat(lambda: self._send("POST", path, json=body, headers=headers)).json()

    def patch(self, path: str, body: Any) -> Any:
        """``PATCH`` with a JSON body."""
        return self._send("PATCH", path, json=body).json()

    def put(self, path: str, content: bytes) -> None:
        """``PUT`` bytes."""
        self._send("PUT", path, content=content, headers={"Content-Type": "application/octet-stream"})

    def delete(self, path: str, **params: Any) -> None:
        """``DELETE``."""
        self._send("DELETE", path, params=_present(params))

    def pages(self, path: str, noun: str, *, limit: int | None = None, **params: Any) -> dict[str, Any]:
        """All pages of a list, or the first ``limit`` items, in the API's own shape; ``next_cursor`` is where it goes on."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            rest = None if limit is None else min(100, limit - len(items))
            page = self.get(path, cursor=cursor, limit=rest, **params)
            items += page[noun]
            cursor = page.get("next_cursor")
            if cursor is None or (limit is not None and len(items) >= limit):
                return {noun: items, "next_cursor": cursor}

    def upload(self, path: str, file: BinaryIO, fields: Mapping[str, str], **params: Any) -> Any:
        """``POST`` a source archive as multipart; safe to repeat, and repeated when the connection breaks.

        Args:
            path: Where to.
            file: The ``.tar.gz``; it is read from its start at each try.
            fields: Other form fields.
            **params: Query.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}

        def send() -> httpx.Response:
            return self._send(
                "POST", path, params=_present(params), headers=headers, data=dict(fields),
                files={"source": ("source.tar.gz", file, "application/gzip")},
            )  # fmt: skip

        return self._repeat(send).json()

    def offer(self, path: str, fields: Mapping[str, str], **params: Any) -> Any:
        """``POST`` an upload's form without the archive, as :meth:`upload`."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        form = [(name, (None, value)) for name, value in fields.items()]
        return self._repeat(
            lambda: self._send("POST", path, params=_present(params), headers=headers, files=form)
        ).json()

    def text(self, path: str) -> str:
        """``GET`` a document as it is."""
        return self._send("GET", path).text

    @contextmanager
    def download(self, path: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """``GET`` bytes: the size, when it is known, and the chunks."""
        with self._translated(), self._http.stream("GET", path) as response:
            self._check(response)
            length = response.headers.get("content-length")
            yield (int(length) if length else None), response.iter_bytes(1 << 20)

    # --- streams ------------------------------------------------------------------------------------------------------

    def events(
        self, path: str, *, after: int = 0, types: str | None = None, quiet_seconds: float = 30.0,
        connected: bool = False, on_break: Callable[[str], None] | None = None,
    ) -> Generator[list[Line], None, None]:  # fmt: skip
        """Events after seq ``after`` up to the terminal one, as many at a time as have come.

        An empty list each time that nothing came for ``quiet_seconds``.

        Args:
            path: The log's, such as ``/runs/run_x/events``.
            after: The last seq known.
            types: As the query parameter; must include the terminal types, or the stream may be asked for again.
            quiet_seconds: How long to wait for more before the connection is doubted and opened anew.
            connected: The server is known to live, so the first failure to reach it is a break like any later one.
            on_break: Told why, each time that the stream has to be opened again after a failure.
        """
        failures = 0
        while True:
            try:
                timeout = httpx.Timeout(quiet_seconds, connect=_CONNECT_SECONDS)
                with self._http.stream(
                    "GET", path, params=_present({"after": after, "types": types}), timeout=timeout,
                    headers={"Accept": "application/x-ndjson", "Accept-Encoding": "zstd"},
                ) as response:  # fmt: skip
                    if response.status_code == 204:
                        return
                    self._check(response)
                    connected = True
                    for batch in _batches(response):
                        lines = [Line(next(parse(raw)), raw) for raw in batch]
                        after, failures = lines[-1].event.seq, 0
                        yield lines
                        if lines[-1].event.type in TERMINAL:
                            return
                reason = "the server closed the stream"
            except httpx.ReadTimeout:
                yield []
                continue
            except (httpx.TransportError, Unavailable, TooManyRequests) as error:
                if not connected:
                    self._raise_translated(error)
                reason = str(error)
                if on_break is not None:
                    on_break(reason)
            time.sleep(_BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)])
            failures += 1

    # --- inner --------------------------------------------------------------------------------------------------------

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        for wait in (*_PATIENCE, None):
            with self._translated():
                response = self._http.request(method, path, **arguments)
            # Nothing was done of what is refused for being too much, so it may be asked again, whatever it is.
            seconds = _retry_after(response)
            if wait is None or seconds is None or seconds > wait:
                break
            time.sleep(seconds)
        self.server_time = _date_of(response)
        self._check(response)
        return response

    def _check(self, response: httpx.Response) -> None:
        """Raise what the answer says; without a key of ours, where to get one."""
        if response.status_code == 401:
            self.target.key()
        _raise_for(response)

    def _repeat(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        for attempt in range(_TRIES - 1):
            try:
                return send()
            except Unavailable as error:
                # Refused at once means that nobody is there; a broken connection may have been heard.
                if isinstance(error.__cause__, httpx.ConnectError):
                    raise
                time.sleep(_BACKOFF_SECONDS[attempt])
        return send()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            self._raise_translated(error)

    def _raise_translated(self, error: Exception) -> NoReturn:
        if isinstance(error, CrewshipError):
            raise error
        if isinstance(error, httpx.TimeoutException):
            said = f"{self.target.url} does not answer"
        elif isinstance(error, httpx.ConnectError):
            said = f"cannot connect to {self.target.url}"
        else:
            said = f"the connection to {self.target.url} broke"
        raise Unavailable(
            f"{said} (address from {self.target.source})",
            hint="crewship dev      starts the platform on this machine\ncrewship doctor   checks what it needs",
        ) from error


def _retry_after(response: httpx.Response) -> int | None:
    """Seconds that a 429 asks to wait; None for any other answer."""
    told = response.headers.get("retry-after", "")
    return int(told) if response.status_code == 429 and told.isascii() and told.isdigit() else None


def artifact_path(run_id: str, name: str) -> str:
    """The call that gives the bytes of an artifact, whose name may hold ``/`` and anything else."""
    return f"/runs/{quote(run_id, safe='')}/artifacts/{quote(name)}"


def segment(name: str) -> str:
    """A name from the command line as one segment of a path."""
    return quote(name, safe="") or "-"


def save(chunks: Iterator[bytes], path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Write ``chunks`` to ``path``, which appears only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:200]}.part")
    try:
        with scratch.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                if on_bytes is not None:
                    on_bytes(len(chunk))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _present(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _batches(response: httpx.Response) -> Iterator[list[bytes]]:
    """Whole lines of a body as they come; empty ones (heartbeats) and an unfinished last one are dropped."""
    rest = b""
    for chunk in _decoded(response):
        *whole, rest = (rest + chunk).split(b"\n")
        lines = [line for line in whole if line]
        if lines:
            yield lines


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    """A body's bytes; httpx itself does not decode a stream of several zstd frames."""
    if response.headers.get("content-encoding") != "zstd":
        yield from response.iter_bytes()
        return
    import zstandard

    decoder = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    for chunk in response.iter_raw():
        yield decoder.decompress(chunk)


def _authorization(target: Target) -> dict[str, str]:
    # Asked without a key too: that nobody listens there has to come out before that there is none.
    return {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}


def _date_of(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["date"]) + timedelta(seconds=1)
    except (KeyError, ValueError):
        return None


def _raise_for(response: httpx.Response) -> None:
    """Raise the error that a problem+json body tells, or what the bare status does."""
    status = response.status_code
    if status < 400:
        return
    response.read()
    try:
        problem = response.json()
        assert isinstance(problem, dict)
    except (ValueError, AssertionError):
        problem = {}
    detail = problem.get("detail") or problem.get("title") or f"{response.request.url.host} answered {status}"
    hint = problem.get("hint")
    if status == 422:
        raise Unprocessable(detail, errors=problem.get("errors") or [], hint=hint)
    if status == 401 and not hint:
        hint = "crewship login   stores a key; crewship whoami says which one is used"
    kind = _BY_STATUS.get(status, InvalidRequest if status < 500 else CrewshipError)
    raise kind(detail, hint=hint, code=problem.get("code"))
