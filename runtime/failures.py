"""What went wrong in the crew's code, for the person who wrote it: message, traceback, hint.

The traceback begins at the crew's own frames; ours and the import system's are taken out. A hint is a guess at what to do
and never decides anything.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from traceback import TracebackException
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_TRACEBACK_LIMIT = 32 << 10
_MESSAGE_LIMIT = 8 << 10

DISTRIBUTIONS = {
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "crewai_tools": "crewai-tools",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "google.generativeai": "google-generativeai",
    "jwt": "pyjwt",
    "langchain_anthropic": "langchain-anthropic",
    "langchain_community": "langchain-community",
    "langchain_openai": "langchain-openai",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "serpapi": "google-search-results",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Modules whose package is called otherwise."""


class EntrypointError(Exception):
    """The entrypoint that ``crewship.toml`` names cannot be used.

    Attributes:
        code: ``entrypoint_not_found`` or ``entrypoint_not_callable``.
    """

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def describe(error: BaseException, code: str, app: str) -> "dict[str, Any]":
    """The ``error`` of a ``result`` for an exception that the crew's code raised."""
    text = _message(error)
    return {
        "code": code,
        "message": text[:_MESSAGE_LIMIT],
        "hint": _hint(error, app),
        "traceback": _traceback(error, app),
    }


def _message(error: BaseException) -> str:
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be had)"
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    return "\n".join([f"{name}: {text}" if text else name, *notes])


def _traceback(error: BaseException, app: str) -> str:
    from traceback import TracebackException

    try:
        told = TracebackException.from_exception(error)
        _clean(told, app, set())
        text = "".join(told.format())
        if not hasattr(BaseException, "add_note"):  # Python 3.10 does not print notes
            text += "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
    except Exception as broken:  # an exception whose own methods raise
        text = f"{type(error).__qualname__} (its traceback cannot be had: {type(broken).__name__})\n"
    if len(text) > _TRACEBACK_LIMIT:
        half = _TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    return text


def _clean(told: "TracebackException", app: str, seen: "set[int]") -> None:
    """Take our frames out of a traceback and of those it is chained to."""
    if id(told) in seen:
        return
    seen.add(id(told))
    frames = [
        frame
        for frame in told.stack
        if not frame.filename.startswith(_HERE + os.sep) and not frame.filename.startswith("<frozen importlib")
    ]
    for index, frame in enumerate(frames):
        if frame.filename.startswith(app + os.sep):
            frames = frames[index:]
            break
    told.stack[:] = frames
    linked = [told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())]
    for other in linked:
        if other is not None:
            _clean(other, app, seen)


def _hint(error: BaseException, app: str) -> str | None:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        hint = _hint_of(link, app)
        if hint:
            return hint
        link = link.__cause__ or link.__context__
    return None


def _hint_of(error: BaseException, app: str) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if os.path.exists(os.path.join(app, top)) or os.path.exists(os.path.join(app, top + ".py")):
            return f"{top} is part of the project, but it has no module {error.name}."
        package = DISTRIBUTIONS.get(error.name) or DISTRIBUTIONS.get(top) or top.replace("_", "-")
        return f"Add {package} to requirements.txt (or to pyproject.toml's dependencies) and deploy again."
    if isinstance(error, KeyError) and error.args and _raised_by_environ(error):
        return f"Set it with: crewship env set {error.args[0]}=..."
    if isinstance(error, EOFError):
        return "This crew asks for input from a keyboard (input(), human_input=True); a run has none."
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, str):
        missing = os.path.relpath(os.path.abspath(error.filename), app)
        if not missing.startswith(os.pardir):
            return (
                f"The project as it was deployed has no {missing}. "
                ".gitignore, .dockerignore and [build] exclude in crewship.toml leave files out."
            )
    if isinstance(error, OSError):
        import errno

        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and error.filename:
            return "A run can write below /app, /tmp and its HOME only."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "The run's disk is full."
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "The run met its limit of processes and threads: [run] pids in crewship.toml."
    if isinstance(error, MemoryError):
        return "The run met its limit of memory: [run] memory in crewship.toml."
    name = _missing_variable(error)
    return f"Set it with: crewship env set {name}=..." if name else None


def _raised_by_environ(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "os"


def _missing_variable(error: BaseException) -> str | None:
    """The environment variable that an error's text asks for and that is not set."""
    import re

    try:
        text = str(error)[:4096]
    except Exception:
        return None
    for name in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:KEY|TOKEN|SECRET|ENDPOINT|URL|PASSWORD)\b", text):
        if name not in os.environ:
            return str(name)
    return None
