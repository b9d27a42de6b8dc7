"""The container engine's address as the platform sees it, which can go away without the engine.

To the platform it looks like a restart of the engine's daemon with live-restore: every connection breaks, none can be made
for a while, and the containers go on. The machine's own engine is not touched.
"""

import contextlib
import socket
import threading
from pathlib import Path

_CHUNK_BYTES = 64 * 1024


class EngineProxy:
    """A unix socket at ``path`` whose connections go on to the engine at ``engine``."""

    def __init__(self, path: Path, engine: Path) -> None:
        self._path, self._engine = path, engine
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        """For ``DOCKER_HOST``."""
        return f"unix://{self._path}"

    def start(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        self._path.unlink(missing_ok=True)
        listener.bind(str(self._path))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def kill(self) -> None:
        """Break every connection; new ones are refused until the next start."""
        with self._lock:
            listener, self._listener = self._listener, None
            broken = [*self._open, *([listener] if listener else [])]
            self._open.clear()
        for end in broken:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if listener is not None:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(str(self._engine))
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    engine.close()
                    return
                self._open |= {client, engine}
            threading.Thread(target=self._serve, args=(client, engine), daemon=True).start()

    def _serve(self, client: socket.socket, engine: socket.socket) -> None:
        up = threading.Thread(target=_copy, args=(client, engine), daemon=True)
        up.start()
        _copy(engine, client)
        up.join()
        with self._lock:
            self._open -= {client, engine}
        client.close()
        engine.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
