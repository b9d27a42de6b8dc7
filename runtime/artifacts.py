"""Files under ``/app/artifacts``: announced the moment they are closed, and once more all at the end.

inotify tells of closed and moved-in files; a folder that was made a moment ago is scanned when its watch is set, since
files may be in it already. Of those, files that someone still has open for writing are left for their close (a read
lease is only given when nobody has). Watching is a matter of speed alone: the final scan finds what was missed, by comparing
size and time of change with what was announced.
"""

import os
import stat
import sys

from .spawn import call
from .workspace import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTLE_SECONDS = 0.01
"""A temporary file that is renamed into place is announced under its final name only."""
REPEAT_SECONDS = 1.0
"""A file that is rewritten over and over is announced this often at most."""

_CLOSE_WRITE, _MOVED_TO, _CREATE, _OVERFLOW = 0x8, 0x80, 0x100, 0x4000
_ONLY_FOLDER, _NO_FOLLOW, _IS_FOLDER = 0x01000000, 0x02000000, 0x40000000
_WATCHED = _CLOSE_WRITE | _MOVED_TO | _CREATE | _ONLY_FOLDER | _NO_FOLLOW

CONTENT_TYPES = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "css": "text/css",
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "eml": "message/rfc822",
    "epub": "application/epub+zip",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "ipynb": "application/x-ipynb+json",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "log": "text/plain",
    "m4a": "audio/mp4",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ndjson": "application/x-ndjson",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ogg": "audio/ogg",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "png": "image/png",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "py": "text/x-python",
    "rst": "text/x-rst",
    "rtf": "application/rtf",
    "sql": "application/sql",
    "sqlite": "application/vnd.sqlite3",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "tex": "application/x-tex",
    "toml": "application/toml",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
}


def content_type(name: str) -> str:
    """By the name's ending; a fixed table, so that it does not depend on what the image has in /etc."""
    return CONTENT_TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


class ArtifactWatch:
    """Notices files under ``root``.

    Attributes:
        fd: The inotify instance to poll, or -1 when there is none: then only the final scan finds artifacts.
        count: How many announcements were made.
        found: How many files the final scan found; None before it, and when it could not look everywhere.
    """

    def __init__(self, root: bytes) -> None:
        self.count = 0
        self.found: int | None = None
        self._root = root
        self._folders: dict[int, bytes] = {}  # watch → folder, relative
        self._due: dict[bytes, float] = {}  # name → when to look at it
        self._announced: dict[bytes, tuple[int, int]] = {}  # name → size, time of change
        self._announced_at: dict[bytes, float] = {}
        self.fd = call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd >= 0:
            self._watch(b"", 0.0)

    @property
    def due(self) -> float | None:
        """When :meth:`take` has something to do (monotonic seconds)."""
        return min(self._due.values()) if self._due else None

    def read(self, now: float) -> None:
        """Take what inotify has."""
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            position = 0
            while position < len(data):
                watch, mask = _int(data, position), _int(data, position + 4)
                length = _int(data, position + 12)
                name = data[position + 16 : position + 16 + length].rstrip(b"\0")
                position += 16 + length
                if mask & _OVERFLOW:
                    self._scan(b"", now)
                elif watch in self._folders:
                    path = os.path.join(self._folders[watch], name)
                    if mask & _IS_FOLDER:
                        self._watch(path, now)
                    elif mask & (_CLOSE_WRITE | _MOVED_TO):
                        self._mark(path, now)

    def take(self, now: float) -> list[dict[str, object]]:
        """The ``artifact`` frames that are due."""
        names = [name for name, due in self._due.items() if due <= now]
        for name in names:
            del self._due[name]
        return [frame for name in names for frame in self._announce(name, now)]

    def take_all(self) -> list[dict[str, object]]:
        """The final scan: the frames of every file that was not announced as it is now."""
        self._due.clear()
        names: list[bytes] = []
        unreadable = False
        for folder, files in _walk(self._root, b""):
            unreadable = unreadable or files is None
            names += (os.path.join(folder, name) for name in files or ())
        self.found = None if unreadable else len(names)
        return [frame for name in sorted(names) for frame in self._announce(name, 0.0)]

    def close(self) -> None:
        """Stop watching."""
        self._due.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _mark(self, name: bytes, now: float) -> None:
        if name not in self._due:
            self._due[name] = max(now + SETTLE_SECONDS, self._announced_at.get(name, -1e9) + REPEAT_SECONDS)

    def _announce(self, name: bytes, now: float) -> list[dict[str, object]]:
        try:
            info = os.lstat(os.path.join(self._root, name))
        except OSError:
            return []
        state = (info.st_size, info.st_mtime_ns)
        if not stat.S_ISREG(info.st_mode) or self._announced.get(name) == state:
            return []
        self._announced[name] = state
        self._announced_at[name] = now
        self.count += 1
        text = printable(name)
        return [{"name": text, "size": info.st_size, "content_type": content_type(text)}]

    def _watch(self, folder: bytes, now: float) -> None:
        self._add_watch(folder)
        self._scan(folder, now)

    def _add_watch(self, folder: bytes) -> None:
        watch = call("inotify_add_watch", self.fd, os.path.join(self._root, folder), _WATCHED)
        if watch >= 0:  # else this uid has no more watches: the final scan finds what is in there
            self._folders[watch] = folder

    def _scan(self, folder: bytes, now: float) -> None:
        """Mark the files that are in ``folder`` and below already."""
        for path, files in _walk(self._root, folder, self._add_watch):
            for name in files or ():
                if not _is_being_written(os.path.join(self._root, path, name)):
                    self._mark(os.path.join(path, name), now)


def _walk(
    root: bytes, folder: bytes, enter: "Callable[[bytes], None] | None" = None
) -> "Iterator[tuple[bytes, list[bytes] | None]]":
    """``(folder, its files)`` for ``folder`` and all below, relative to ``root``; links are not followed.

    None stands for the files of a folder that cannot be read.

    ``enter`` is called with each folder below before it is read: what is put in it after that is seen by its watch.
    """
    todo = [folder]
    while todo:
        folder = todo.pop()
        files, folders = [], []
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(os.path.join(folder, entry.name))
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
        except FileNotFoundError:
            continue
        except OSError:
            yield folder, None
            continue
        yield folder, files
        for below in folders:
            if enter is not None:
                enter(below)
        todo += folders


def _is_being_written(path: bytes) -> bool:
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system without leases
        return False
    finally:
        os.close(fd)
    return False


def _int(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 4], sys.byteorder)
