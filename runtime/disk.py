"""How much of the disk a run takes, held against its limit.

Where the engine's file system has no quota that could be set for each run, the supervisor is the one that looks. What counts
is what the kernel has given to files under the run's folder, also to files that are deleted while a process has them open, and
4 KiB for every name, since names use up a disk as well. ``statvfs`` tells cheaply whether anything can have grown; only then,
and every few seconds in any case, the folder is walked, for a few milliseconds at a time, so that nothing waits for it.

A process that makes itself undumpable shows its files to nobody, which no crew does by accident. While there is one, the space
that the whole file system has lost since the run began is held against it.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NAME_BYTES = 4096
STEP_SECONDS = 0.004
FASTEST_BYTES_PER_SECOND = (
    2 << 30
)  # what one process writes into the page cache; the next look is due before the room is full
SOONEST_SECONDS, LATEST_SECONDS = 0.05, 1.0
WALK_SECONDS = 5.0
_MEMORY_FIELD = (
    20  # of /proc/<pid>/stat behind the name: the size of its memory, which a process that has ended has none of
)
WALK_SHARE = 20  # a walk that takes a second is not begun again for twenty


class DiskWatch:
    """Looks at ``root``, whose files may take ``limit_bytes``.

    Attributes:
        due: When to ``look`` again (monotonic seconds).
        used_bytes: What the last whole walk found.
    """

    def __init__(self, root: bytes, limit_bytes: int) -> None:
        self.due = 0.0
        self.used_bytes = 0
        self._root = root
        self._limit = limit_bytes
        self._walk: Iterator[int] | None = None
        self._total = 0
        self._began_at = self._walk_at = 0.0
        self._free = self._free_before = self._free_first = self._free_bytes()
        self._hides = False

    def begin(self) -> None:
        """The run begins: what the file system has lost before is not held against it."""
        self._free_first = self._free_bytes()

    def look(self, now: float) -> bool:
        """Go on measuring, for a moment: whether there is more than the limit."""
        if self._walk is None and not self._begin(now):
            return False
        assert self._walk is not None
        until = time.monotonic() + STEP_SECONDS
        for size in self._walk:
            self._total += size
            if self._total > self._limit:
                self.used_bytes = self._total
                return True
            if time.monotonic() > until:
                self.due = now  # in the next turn
                return False
        self._walk = None
        if self._hides:
            self._total = max(self._total, self._free_first - self._free_before)
        self.used_bytes, self._free = self._total, self._free_before
        if self._total > self._limit:
            return True
        ended = time.monotonic()
        self._walk_at = ended + max(WALK_SECONDS, (ended - self._began_at) * WALK_SHARE)
        self._wait(ended, self._limit - self.used_bytes)
        return False

    def measure(self, seconds: float) -> int:
        """What there is now, when nothing changes it any more; the last measure if it takes longer than ``seconds``."""
        until = time.monotonic() + seconds
        total = 0
        for size in self._sizes():
            total += size
            if time.monotonic() > until:
                return max(total, self.used_bytes)
        return total

    def _begin(self, now: float) -> bool:
        """Whether a walk is worth it."""
        free = self._free_bytes()
        room = self._limit - self.used_bytes - max(0, self._free - free)
        if now < self._walk_at and room > 0:
            self._wait(now, room)
            return False
        self._walk, self._total, self._free_before, self._began_at = self._sizes(), 0, free, now
        return True

    def _wait(self, now: float, room: int) -> None:
        self.due = now + min(max(room / FASTEST_BYTES_PER_SECOND, SOONEST_SECONDS), LATEST_SECONDS)

    def _free_bytes(self) -> int:
        try:
            found = os.statvfs(self._root)
        except OSError:
            return 0
        return found.f_bfree * found.f_frsize

    def _sizes(self) -> "Iterator[int]":
        """The bytes of one name after the other; of a file with several names once."""
        seen: set[int] = set()
        folders = [self._root]
        while folders:
            for entry in _entries(folders.pop()):
                try:
                    info = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                except OSError:
                    continue
                size = info.st_blocks * 512
                if info.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                    size = 0 if info.st_ino in seen else size
                    seen.add(info.st_ino)
                yield max(size, NAME_BYTES)
        yield from self._nameless()

    def _nameless(self) -> "Iterator[int]":
        """Files that are open and have no name any more. The supervisor's own is none of the crew's."""
        seen: set[int] = set()
        own = str(os.getpid())
        self._hides = False
        prefix = os.path.join(self._root, b"")
        for process in os.listdir("/proc"):
            if not process.isdigit() or process == own:
                continue
            try:
                handles = os.listdir(f"/proc/{process}/fd")
            except PermissionError:
                self._hides = self._hides or not _has_ended(process)
                continue
            except OSError:  # it has ended
                continue
            for handle in handles:
                path = f"/proc/{process}/fd/{handle}".encode()
                try:
                    if not os.readlink(path).startswith(prefix):
                        continue
                    info = os.stat(path)
                except OSError:
                    continue
                if info.st_nlink == 0 and info.st_ino not in seen:
                    seen.add(info.st_ino)
                    yield info.st_blocks * 512


def _has_ended(process: str) -> bool:
    """Whether it waits to be reaped, or is about to: the kernel shows the files of such a one to root alone, and it has none."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return len(fields) > _MEMORY_FIELD and fields[_MEMORY_FIELD] == b"0"


def _entries(folder: bytes) -> "Iterator[os.DirEntry[bytes]]":
    """What is in ``folder``, one at a time: a flooded one would not fit into the run's memory.

    The crew may have closed it to itself, and with that to us, who have the same uid: then it is ours to open.
    """
    try:
        entries = os.scandir(folder)
    except PermissionError:
        try:
            os.chmod(folder, 0o700)
            entries = os.scandir(folder)
        except OSError:
            return
    except OSError:
        return
    with entries:
        try:
            yield from entries
        except OSError:
            return
