"""Where a deployment's image is put together: a container of its dependencies' image, started, that waits for the source.

It takes the files as a tar stream on stdin, writes them below ``/opt/crewship``, compiles them, says so, and does nothing more.
Committed, it is the deployment's image; until it is removed the smoke boot shares its network, which is none.

The engine takes three times as long to start a container as this takes to work, so ``Workbenches`` has one started ahead for each
of the dependencies that were built on last. It holds some 10 MB, nothing of a project but packages, and is used once; losing one
costs nothing.
"""

import logging
import secrets
import tarfile
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Self

from crewship.build_container import BuildContainer, write_tar
from crewship.engine import ContainerMissing
from crewship.errors import CrewshipError, Unavailable
from crewship.installer import OPT, PYTHON

logger = logging.getLogger(__name__)

AHEAD_PREFIX: Final = "crewship-bench-"
RUNNER: Final = f"{OPT}/runtime"
SOURCE: Final = f"{OPT}/source"

_CHUNK_BYTES = 1 << 20
_MUCH_BYTES = 1 << 20
"""Of a source's Python files: more are compiled on all cores, which costs 30 ms to begin with."""
_MAX_AHEAD = 8
_PUT_SECONDS = 30.0
_DONE = b"done\n"

Files = Mapping[str, Path | bytes | str]

# $1: seconds until it gives up by itself, should whoever started it be gone. What is compiled is not run; a file on which the
# compiler itself ends is left to whoever imports it. Unchecked hashes: files have other times wherever they are unpacked.
_ASSEMBLE = f"""
import compileall, os, py_compile, signal, sys, tarfile
signal.signal(signal.SIGALRM, lambda *_: os._exit(1))  # the first process of a container has no default for it
signal.alarm(int(sys.argv[1]))
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    if hasattr(tarfile, "fully_trusted_filter"):
        archive.extraction_filter = tarfile.fully_trusted_filter
    archive.extractall("{OPT}")
child = os.fork()
if child == 0:
    try:
        folders = ["{SOURCE}"] + [path for path in ["{RUNNER}"] if not os.path.exists(path + "/__pycache__")]
        paths = [os.path.join(where, name) for folder in folders for where, _, names in os.walk(folder) for name in names]
        much = sum(os.path.getsize(path) for path in paths if path.endswith(".py")) > {_MUCH_BYTES}
        for folder in folders:
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            compileall.compile_dir(folder, maxlevels=100, quiet=2, invalidation_mode=mode, workers=0 if much else 1)
    finally:
        os._exit(0)
os.waitpid(child, 0)
os.write(1, {_DONE!r})
sys.stdin.buffer.read()
while True:
    signal.pause()
"""


def command(seconds: float) -> list[str]:
    """What a workbench runs; it gives up by itself after ``seconds``."""
    return [PYTHON, "-I", "-S", "-c", _ASSEMBLE, str(round(seconds))]


class Workbench:
    """One of them, from its start to its removal.

    Args:
        name: The container's.
        container: It, whose first process is :func:`command` and has a stdin.

    Raises:
        ContainerMissing, Unavailable: the engine's reasons; then it is removed.
    """

    def __init__(self, name: str, container: BuildContainer) -> None:
        self.name, self.container = name, container
        try:
            # One for all that is written: at its end the engine may not have read all of it.
            self._stream = container.attach()
            container.start()
        except BaseException:
            with suppress(Unavailable):
                container.remove()
            raise

    def become(self, name: str) -> bool:
        """Take another name; False when it has ended, or is not there any more.

        Raises:
            Unavailable: the engine is the reason.
        """
        with suppress(ContainerMissing):
            if self.container.is_running():
                self.container.rename(name)
                self.name = name
                return True
        return False

    def put(self, files: Files) -> None:
        """Write ``files`` below ``/opt/crewship``: name → file, content, or a link's target. More may follow."""
        late = threading.Timer(_PUT_SECONDS, self._stream.close)  # what comes of it is seen later
        late.start()
        _feed(files, self._stream.write, is_all=False)
        late.cancel()

    def assemble(self, files: Files, cancel: threading.Event) -> None:
        """Write the last ``files``, compile all.

        Raises:
            BuildFailed: ``cancel``, or it took too long.
            Unavailable: it cannot be done here, such as for want of room.
        """
        with closing(self._stream), self.container.watched(cancel, self._stream):
            _feed(files, self._stream.write, is_all=True)
            said = {"stdout": b"", "stderr": b""}
            while not said["stdout"].endswith(_DONE) and (piece := self._stream.read()) is not None:
                said[piece[0]] += piece[1]
            if not said["stdout"].endswith(_DONE):
                lines = said["stderr"].decode("utf-8", "replace").strip().splitlines() or ["it was ended"]
                raise Unavailable(f"The image cannot be put together: {lines[-1]}")

    def remove(self) -> None:
        """Take it down at once, as far as the engine can be reached; the reaper takes what is left."""
        self._stream.close()
        with suppress(Unavailable):
            self.container.remove()


def _feed(files: Files, write: Callable[[bytes], None], *, is_all: bool) -> None:
    with tempfile.TemporaryFile() as archive, suppress(ConnectionError):  # why is seen from what it has said
        write_tar(archive, files, is_all=is_all)
        archive.seek(0)
        while chunk := archive.read(_CHUNK_BYTES):
            write(chunk)
        if is_all:  # whole records are read, and what was put before need not have ended with one
            write(bytes(tarfile.RECORDSIZE))


class Workbenches:
    """Those that are made ahead, at most one of an image; the least recently wanted go first.

    Args:
        make: Start one: its name, the image, and the seconds that it may wait.
        keep_seconds: How long one is kept; 0: none is made.
        is_busy: Whether the host has no room for what nobody waits for.
    """

    def __init__(
        self,
        make: Callable[[str, str, float], Workbench],
        keep_seconds: float,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make, self._keep_seconds, self._is_busy = make, keep_seconds, is_busy
        self._lock = threading.Lock()
        self._ahead: OrderedDict[str, tuple[Workbench, threading.Timer]] = OrderedDict()
        self._on_the_way: set[str] = set()
        """Names of those that are being made, or renamed."""
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, image: str) -> None:
        """Have one for ``image``, unless there is."""
        with self._lock:
            if image in self._ahead or self._is_closed or not self._keep_seconds or self._is_busy():
                return
            name = f"{AHEAD_PREFIX}{secrets.token_hex(6)}"
            self._on_the_way.add(name)
        try:
            self._keep(image, self._make(name, image, self._keep_seconds))
        except (CrewshipError, LookupError) as error:  # LookupError: the image is gone
            logger.info("no workbench: %s", error)
        finally:
            self._arrived(name)

    def take(self, image: str, name: str) -> Workbench | None:
        """That of ``image``, now called ``name``; or None."""
        with self._lock:
            found = self._ahead.pop(image, None)
            if found is None:
                return None
            bench, timer = found
            ahead = bench.name
            self._on_the_way.add(ahead)
        timer.cancel()
        try:
            if bench.become(name):
                return bench
        except CrewshipError as error:
            logger.info("a workbench could not be taken: %s", error)
        finally:
            self._arrived(ahead)
        bench.remove()
        return None

    def names(self) -> set[str]:
        """Names of those in hand or on the way into or out of it; a sweep must list containers before it asks."""
        with self._lock:
            return {bench.name for bench, _ in self._ahead.values()} | self._on_the_way

    def discard(self, image: str) -> None:
        """Remove that of ``image``, which could not be removed while there is one."""
        with self._lock:
            found = self._ahead.pop(image, None)
        self._give_up([found] if found is not None else [])

    def close(self) -> None:
        """Remove all, and make no more."""
        with self._lock:
            self._is_closed = True
            left = list(self._ahead.values())
            self._ahead.clear()
        self._give_up(left)

    def _keep(self, image: str, bench: Workbench) -> None:
        timer = threading.Timer(self._keep_seconds, self.discard, (image,))
        timer.daemon = True
        surplus = []
        with self._lock:
            if self._is_closed or image in self._ahead:
                surplus.append((bench, timer))
            else:
                self._ahead[image] = bench, timer
                timer.start()
            while len(self._ahead) > _MAX_AHEAD:
                surplus.append(self._ahead.popitem(last=False)[1])
        self._give_up(surplus)

    def _give_up(self, benches: list[tuple[Workbench, threading.Timer]]) -> None:
        for bench, timer in benches:
            timer.cancel()
            bench.remove()

    def _arrived(self, name: str) -> None:
        with self._lock:
            self._on_the_way.discard(name)
