"""One step from a Python object towards JSON.

Knows the types that crews and frameworks return, by name, without importing any of them. What it does not know it
refuses: a silent ``str()`` of someone's object is worse than an error that says which one.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NotPlain(Exception):
    """JSON has nothing for this object; the text says why, in a few words."""


def plain(value: "Any") -> "Any":
    """``value`` as a str, int, float, bool, None, or a dict or list whose members may need the same.

    Raises:
        NotPlain: there is no such form.
    """
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return value
    if kind is float:
        return value if value - value == 0 else None  # NaN and the infinities
    if kind in (dict, list):
        return value
    if kind in (tuple, set, frozenset):
        return _ordered(value) if kind is not tuple else list(value)
    if _is_a(value, "enum", "Enum"):
        return plain(value.value)
    for base in kind.__mro__:
        convert = _BY_NAME.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if convert is not None:
            return convert(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        from binascii import b2a_base64

        return {"base64": b2a_base64(bytes(value), newline=False).decode()}
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__ if hasattr(value, name)}
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if kind.__module__ == "numpy" or kind.__module__.startswith("numpy."):
        if hasattr(value, "tolist"):
            value = value.tolist()
            return plain(value) if type(value) is float else value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return plain(float(value))
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (set, frozenset)):
        return _ordered(value)
    from collections.abc import Collection, Mapping

    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection) and hasattr(kind, "__reversed__"):  # deque, dict views: finite and ordered
        return list(value)
    raise NotPlain(f"{type_name(value)} is nothing that JSON can hold")


def type_name(value: object) -> str:
    """The type's name as its user would write it."""
    kind = type(value)
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def _ordered(values: "Any") -> "list[Any]":
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _is_a(value: object, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name, ()))


def _model(value: "Any") -> "Any":
    """A pydantic model, of either major version."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        return value.dict()
    try:
        return dump(mode="json")
    except Exception:  # holds something strange: take it apart here, so that the error can say where it is
        return {name: getattr(value, name) for name in type(value).model_fields}


def _crew_output(value: "Any") -> "Any":
    """CrewAI's result, without the prompts that ``model_dump`` would bring along."""
    out = _task_output(value)
    usage = getattr(value, "token_usage", None) or getattr(value, "usage_metrics", None)
    out["usage"] = usage if usage is None or isinstance(usage, dict) else _model(usage)
    tasks = getattr(value, "tasks_output", None)
    if tasks is not None:
        out["tasks"] = [
            {"name": getattr(task, "name", None), "agent": getattr(task, "agent", None), **_task_output(task)}
            for task in tasks
        ]
    return out


def _task_output(value: "Any") -> "dict[str, Any]":
    out: dict[str, Any] = {"raw": getattr(value, "raw", None)}
    if getattr(value, "json_dict", None) is not None:
        out["json"] = value.json_dict
    if getattr(value, "pydantic", None) is not None:
        out["pydantic"] = value.pydantic
    return out


def _message(value: "Any") -> "Any":
    """A LangChain message."""
    out = {"type": value.type, "content": value.content}
    for name in ("name", "id", "tool_calls", "tool_call_id", "status", "usage_metadata"):
        if getattr(value, name, None):
            out[name] = getattr(value, name)
    return out


_BY_NAME: "dict[str, Any]" = {
    "crewai.CrewOutput": _crew_output,
    "crewai.LiteAgentOutput": _crew_output,
    "crewai.TaskOutput": lambda value: {"name": value.name, "agent": value.agent, **_task_output(value)},
    "langchain_core.BaseMessage": _message,
    "langgraph.Interrupt": lambda value: {"value": value.value},
    "pydantic.BaseModel": _model,
    "pydantic.SecretStr": str,
    "pydantic.SecretBytes": str,
    "datetime.datetime": lambda value: value.isoformat(),
    "datetime.date": lambda value: value.isoformat(),
    "datetime.time": lambda value: value.isoformat(),
    "datetime.timedelta": lambda value: value.total_seconds(),
    "decimal.Decimal": str,
    "uuid.UUID": str,
    "pathlib.PurePath": str,
    "ipaddress._BaseAddress": str,
    "ipaddress._BaseNetwork": str,
}
