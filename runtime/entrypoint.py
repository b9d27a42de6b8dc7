"""Finds what ``crewship.toml`` calls the entrypoint, and says what kind of thing it is.

By shape, without importing a framework: an object with ``kickoff`` is a crew or a flow, one that streams values is a graph,
the rest is called. ``run.py`` calls it.
"""

import os
import sys

from .failures import EntrypointError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

# A code object's flags, and parameters() below: importing inspect would cost every plain function 12 ms.
_REST, _OPTIONS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200


def load(entrypoint: str, app: str) -> "Any":
    """The object that ``module.path:attribute`` names; imports the module.

    Raises:
        EntrypointError: there is no such module or attribute.
        BaseException: whatever the crew's modules raise while they are imported.
    """
    module_name, colon, attribute = entrypoint.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise EntrypointError(
            "entrypoint_not_found",
            f"{entrypoint!r} is no entrypoint.",
            'Write it as "module.path:attribute", such as "src.my_crew.crew:MyCrew".',
        )
    module = _import(module_name, app)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise EntrypointError(
                "entrypoint_not_found", f"{module_name} has no {attribute}.", _nearest(part, found)
            ) from None
    return found


def kind_of(found: "Any") -> str:
    """What an entrypoint is: ``crew``, ``crewbase``, ``flow``, ``langgraph``, ``runnable``, ``class`` or a sort of function.

    Raises:
        EntrypointError: it is nothing that can be called with an input, or only seems so (a class that makes an object).
    """
    if isinstance(found, type):
        if getattr(found, "is_crew_class", False) or callable(getattr(found, "kickoff", None)):
            _check_made_without_arguments(found)
            if getattr(found, "is_crew_class", False):
                return "crewbase"
            if _is_flow(found):
                return "flow"
            _check_kickoff(found)
            return "class"
        if callable(getattr(found, "crew", None)):
            _check_made_without_arguments(found)
            return "crewbase"
        if is_graph(found) or is_graph_builder(found):
            raise EntrypointError(
                "entrypoint_not_callable",
                f"{found.__qualname__} is a graph's class, not a graph.",
                "Name the compiled graph, or a function that returns it.",
            )
    elif callable(getattr(found, "kickoff", None)):
        if _is_flow(type(found)):
            return "flow"
        _check_kickoff(found)
        return "crew"
    elif is_graph(found) or is_graph_builder(found):
        return "langgraph"
    elif callable(getattr(found, "crew", None)):
        return "crewbase"
    elif callable(getattr(found, "invoke", None)) and not hasattr(found, "__code__"):
        return "runnable"
    if not callable(found):
        raise EntrypointError(
            "entrypoint_not_callable",
            f"The entrypoint is {_a(type(found).__name__)}, which cannot be called.",
            "Name a function, a CrewAI crew or flow, or a LangGraph graph.",
        )
    if isinstance(found, type):
        raise EntrypointError(
            "entrypoint_not_callable",
            f"{found.__qualname__} is a class without a kickoff method: calling it would make an object and run nothing.",
            _function_for(found),
        )
    arguments(found, {})
    flags = getattr(getattr(_unwrapped(found), "__code__", None), "co_flags", 0)
    if flags & _ASYNC_GENERATOR:
        return "async_generator"
    if flags & _COROUTINE:
        return "async_function"
    return "generator" if flags & _GENERATOR else "function"


def _check_made_without_arguments(kind: type) -> None:
    """The platform makes the object itself, before it knows an input."""
    required = [p.name for p in parameters(kind) or () if p.required]
    if required:
        raise EntrypointError(
            "entrypoint_not_callable",
            f"{kind.__qualname__} needs the arguments {', '.join(required)} to be made.",
            "Give them defaults, or name a function instead: "
            f"def kickoff(inputs): return {kind.__name__}({required[0]}=...).{_method_of(kind)}",
        )


def _method_of(kind: type) -> str:
    return "kickoff()" if callable(getattr(kind, "kickoff", None)) else "crew()"


def _check_kickoff(found: "Any") -> None:
    """Somebody's own ``kickoff`` takes the input as a function does; CrewAI's is known."""
    kind = found if isinstance(found, type) else type(found)
    if kind.__module__.startswith("crewai."):
        return
    given = next((vars(base)["kickoff"] for base in kind.__mro__ if "kickoff" in vars(base)), None)
    self_is_missing = isinstance(found, type) and not isinstance(given, (staticmethod, classmethod))
    arguments(found.kickoff, {}, 1 if self_is_missing else 0)


_USUAL = ("run", "invoke", "execute", "main", "start", "__call__")


def _function_for(kind: type) -> str:
    """What to write in place of a class as the entrypoint."""
    own = [name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")]
    method = next((name for name in _USUAL if name in vars(kind)), own[0] if own else None)
    if method is None:
        return "Name a function instead: def kickoff(inputs: dict)."
    call = "(inputs)" if method == "__call__" else f".{method}(inputs)"
    return f"Name a function instead, such as: def kickoff(inputs): return {kind.__name__}(){call}"


class Parameter:
    """One parameter of a function: ``positional``, ``named`` (keyword only), ``rest`` (*args) or ``options`` (**kwargs)."""

    __slots__ = ("annotation", "kind", "name", "required")

    def __init__(self, name: str, kind: str, required: bool, annotation: object) -> None:
        self.name = name
        self.kind = kind
        self.required = required
        self.annotation = annotation


def parameters(function: "Any") -> "list[Parameter] | None":
    """What ``function`` takes; None when it does not say (written in C)."""
    code = getattr(function, "__code__", None)
    if type(function).__name__ == "function" and code is not None and not hasattr(function, "__wrapped__"):
        names, count, named = code.co_varnames, code.co_argcount, code.co_kwonlyargcount
        notes, defaults = function.__annotations__, len(function.__defaults__ or ())
        found = [Parameter(n, "positional", i < count - defaults, notes.get(n)) for i, n in enumerate(names[:count])]
        optional = function.__kwdefaults__ or {}
        found += [Parameter(n, "named", n not in optional, notes.get(n)) for n in names[count : count + named]]
        found += [Parameter("args", "rest", False, None)] if code.co_flags & _REST else []
        found += [Parameter("kwargs", "options", False, None)] if code.co_flags & _OPTIONS else []
        return found
    from inspect import signature

    try:
        each = signature(function).parameters.values()
    except (ValueError, TypeError):
        return None
    kinds = ("positional", "positional", "rest", "named", "options")
    return [Parameter(p.name, kinds[p.kind], p.default is p.empty and p.kind not in (2, 4), p.annotation) for p in each]


def arguments(function: "Any", value: "dict[str, Any]", bound: int = 0) -> "tuple[tuple[Any, ...], dict[str, Any]]":
    """How ``function`` is called with the input: one positional argument when it takes one, none when it takes none.

    ``bound`` of its positional arguments are given otherwise (``self``).

    Raises:
        EntrypointError: it needs more than one.
    """
    known = parameters(function)
    if known is None:
        return (value,), {}
    positional = [p for p in known if p.kind == "positional"][bound:]
    named = [p for p in known if p.kind == "named"]
    inputs_by_name = not positional and any(p.name == "inputs" for p in named)
    required = [p.name for p in (*positional[1:], *named) if p.required and not (inputs_by_name and p.name == "inputs")]
    if required:
        names = ", ".join([*(p.name for p in positional[:1]), *required])
        raise EntrypointError(
            "entrypoint_not_callable",
            f"The entrypoint needs the arguments {names}.",
            "An entrypoint takes one argument, the input as a dict, or none: def kickoff(inputs: dict).",
        )
    if inputs_by_name:
        return (), {"inputs": value}
    if positional or any(p.kind == "rest" for p in known):
        return (value,), {}
    if any(p.kind == "options" for p in known):
        return (), dict(value)
    return (), {}


def is_graph(found: "Any") -> bool:
    """A compiled LangGraph graph (a Pregel)."""
    return callable(getattr(found, "astream", None)) and (hasattr(found, "stream_mode") or hasattr(found, "channels"))


def is_graph_builder(found: "Any") -> bool:
    """A LangGraph StateGraph that is not compiled yet."""
    return callable(getattr(found, "compile", None)) and callable(getattr(found, "add_node", None))


def _is_flow(kind: type) -> bool:
    return any(base.__name__ == "Flow" and base.__module__.startswith("crewai.") for base in kind.__mro__)


def _unwrapped(function: "Any") -> "Any":
    """The function under partials and bound methods."""
    while True:
        inner = getattr(function, "func", None) or getattr(function, "__func__", None)
        if inner is None:
            break
        function = inner
    if not hasattr(function, "__code__") and callable(function):
        function = getattr(type(function).__call__, "__func__", type(function).__call__)
    return function


def _import(name: str, app: str) -> "ModuleType":
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(missing + "."):
            raise  # a module that the crew's own module needs
        if missing != name and missing not in _parents(name):
            raise
        if _raised_in_code(error):
            raise
        raise EntrypointError(
            "entrypoint_not_found", f"There is no module {name}.", _nearest_module(name, app)
        ) from None
    return sys.modules[name]


def _parents(name: str) -> "list[str]":
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _raised_in_code(error: BaseException) -> bool:
    """Whether the failing import stands in some module's code rather than being the entrypoint's own."""
    trace = error.__traceback__
    here = os.path.dirname(os.path.abspath(__file__))
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if not filename.startswith("<frozen importlib") and not filename.startswith(here):
            return True
        trace = trace.tb_next
    return False


def _nearest(name: str, owner: object) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(name, [known for known in dir(owner) if not known.startswith("_")], 3, 0.5)
    return f"Did you mean {' or '.join(close)}?" if close else "Set entrypoint in crewship.toml to what the module has."


def _nearest_module(name: str, app: str) -> str | None:
    from difflib import get_close_matches

    known = []
    for folder, folders, files in os.walk(app):
        folders[:] = [each for each in folders if each.isidentifier() and each != "artifacts"]
        inside = [part for part in os.path.relpath(folder, app).split(os.sep) if part != "."]
        for file in files:
            if file.endswith(".py") and file != "__init__.py":
                known.append(".".join([*inside, file[:-3]]))
        if len(known) > 2000:
            break
    close = get_close_matches(name, known, 3, 0.4)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "Set entrypoint in crewship.toml to a module of the project, such as src.my_crew.crew:MyCrew."


def _a(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"
