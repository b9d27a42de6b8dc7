"""What a crew may import to talk to Crewship. Outside a run every call does nothing, so code runs the same on a laptop.

::

    import crewship_runtime as crewship

    crewship.emit("chapter.written", number=3, words=1200)   # a "custom" event in the run's log
    crewship.progress(3, 12)
    crewship.artifact("out/report.pdf")                      # keep a file that was not written to /app/artifacts
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

_send: Callable[[dict[str, Any]], None] | None = None


def emit(type: str, **data: Any) -> None:
    """Send a ``custom`` event named ``type``; strings over 4 KiB and data over 32 KiB are cut."""
    if _send is not None:
        _send({"name": type, "value": data})


def progress(done: float, total: float | None = None) -> None:
    """Tell how far the run is, in whatever unit."""
    emit("progress", done=done, total=total)


def artifact(path: str | os.PathLike[str], name: str | None = None) -> None:
    """Keep the file at ``path`` as an artifact, under ``name`` or its own name.

    Raises:
        OSError: the file cannot be read.
        ValueError: ``name`` points outside the artifacts.
    """
    folder = os.environ.get("CREWSHIP_ARTIFACTS_DIR")
    if _send is None or folder is None:
        return
    source = os.path.abspath(path)
    if os.path.commonpath([source, folder]) == folder and name is None:
        return
    target = os.path.abspath(os.path.join(folder, name or os.path.basename(source)))
    if os.path.commonpath([target, folder]) != folder or target == folder:
        raise ValueError(f"{name!r} is outside the artifacts")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)
