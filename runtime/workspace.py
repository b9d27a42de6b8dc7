"""The run's folder, ``/app``: filled from the read-only source before the run, compared with it after.

A copied file keeps its time of change, so "changed by the run" is one ``stat`` against the source and needs no list.
The source's own ``artifacts/`` is not copied: what lies there from runs on the author's machine is no artifact of this one.
"""

import os
import stat

LINK_BYTES = 32 << 20
"""Larger files become links to the read-only source, unless their name says that they are written to."""
_WRITTEN_TO = (b".db", b".sqlite", b".sqlite3", b".duckdb")
_SCAN_LIMIT = 50_000  # entries; a crew that unpacked a package index into /app gets its answer in a second

ARTIFACTS = b"artifacts"


def fill(source: bytes, app: bytes) -> list[str]:
    """Put the source into ``app`` and make ``app/artifacts``: what could not be done, for people."""
    problems: list[str] = []
    try:
        os.makedirs(os.path.join(app, ARTIFACTS), exist_ok=True)
        _copy_folder(source, app, top=True)
    except OSError as error:
        problems.append(f"The project could not be put into {os.fsdecode(app)}: {error}")
    return problems


def _copy_folder(source: bytes, target: bytes, top: bool = False) -> None:
    folders = []
    with os.scandir(source) as entries:
        for entry in entries:
            path = os.path.join(target, entry.name)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)
            elif entry.is_dir():
                if not (top and entry.name == ARTIFACTS):
                    folders.append((entry.path, path))
            elif entry.is_file():
                info = entry.stat()
                if info.st_size > LINK_BYTES and not entry.name.endswith(_WRITTEN_TO):
                    os.symlink(entry.path, path)
                else:
                    copy_file(entry.path, path, info)
    for path, below in folders:
        try:
            os.mkdir(below)
        except FileExistsError:
            pass
        _copy_folder(path, below)


def copy_file(source: bytes, target: bytes, info: os.stat_result) -> None:
    """Copy content, time of change and whether it is executable; the owner can always write."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        mode = 0o755 if info.st_mode & 0o111 else 0o644
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            if info.st_size <= 1 << 20:  # two calls beat the kernel's own copy for what most files are
                data = os.read(reader, info.st_size)
                while data:
                    data = data[os.write(writer, data) :]
            else:
                while os.sendfile(writer, reader, None, 1 << 30):
                    pass
            os.utime(writer, ns=(info.st_mtime_ns, info.st_mtime_ns))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def files_of_the_run(app: bytes, source: bytes) -> list[bytes]:
    """Files under ``app`` outside ``artifacts`` that are new or changed against the source; sorted, relative.

    Caches (``__pycache__``, ``*.pyc``, hidden folders), links and devices are none.
    """
    found: list[bytes] = []
    budget = _SCAN_LIMIT
    folders = [b""]
    while folders and budget > 0:
        folder = folders.pop()
        try:
            entries = list(os.scandir(os.path.join(app, folder)))
        except OSError:
            continue
        budget -= len(entries)
        for entry in entries:
            name = os.path.join(folder, entry.name)
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                if not (entry.name == b"__pycache__" or entry.name.startswith(b".") or name == ARTIFACTS):
                    folders.append(name)
            elif stat.S_ISREG(info.st_mode) and not entry.name.endswith(b".pyc"):
                if _differs(info, os.path.join(source, name)):
                    found.append(name)
    return sorted(found)


def _differs(info: os.stat_result, original: bytes) -> bool:
    try:
        before = os.lstat(original)
    except OSError:
        return True
    return (info.st_size, info.st_mtime_ns) != (before.st_size, before.st_mtime_ns)


def collect(app: bytes, source: bytes, globs: list[str]) -> list[str]:
    """Put what ``globs`` name into ``app/artifacts``, under the same relative path: the names of the other new files.

    A file whose copy is there already (a tap's, or the crew's own) is not named.
    """
    others: list[str] = []
    for name in files_of_the_run(app, source):
        kept = name
        # CrewAI takes the leading slash from output_file="/app/artifacts/x.md", so that it lands below the project.
        within = name.removeprefix(b"app/artifacts/")
        wanted = within != name or any(matches(os.fsdecode(name), glob) for glob in globs)
        if within != name:
            kept = within
        path, target = os.path.join(app, name), os.path.join(app, ARTIFACTS, kept)
        try:
            if os.lstat(target).st_size == os.lstat(path).st_size:
                continue
        except OSError:
            pass
        if wanted and _keep(path, target):
            continue
        others.append(printable(name))
    return others


def _keep(path: bytes, target: bytes) -> bool:
    """Whether ``path`` is an artifact now. What the crew itself put there under this name stays."""
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        return True
    except OSError:
        try:
            copy_file(path, target, os.lstat(path))
        except OSError:
            return False
    return True


def matches(name: str, glob: str) -> bool:
    """Whether ``glob`` (``*``, ``?``, ``[...]``, ``**`` for any depth) names the file, or plainly a folder it is in."""
    pattern = glob.removeprefix("./").strip("/").split("/")
    return _match(name.split("/"), pattern, folder=not any(sign in pattern[-1] for sign in "*?["))


def _match(parts: list[str], pattern: list[str], folder: bool) -> bool:
    if not pattern:
        return folder or not parts
    if not parts:
        return False
    if pattern[0] == "**":
        if len(pattern) == 1:
            return True
        return any(_match(parts[start:], pattern[1:], folder) for start in range(len(parts)))
    from fnmatch import fnmatchcase

    return fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:], folder)


def printable(name: bytes) -> str:
    """A file's name as text; bytes that are not UTF-8 as backslash escapes."""
    return name.decode("utf-8", "backslashreplace")


def left_behind(names: list[str]) -> str:
    """What is told of files that nothing collects."""
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    globs = ", ".join(f'"{name}"' for name in names[:3])
    return (
        f"Written outside /app/artifacts and not kept: {shown}. "
        f"To collect such files, name them in crewship.toml: [run] artifacts = [{globs}]"
    )
