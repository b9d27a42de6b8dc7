"""A run's output as JSON: everything JSON can hold and the types ``plain`` knows, or an error that says where it fails."""

from .plain import NotPlain, plain, type_name
from .wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OUTPUT_LIMIT_BYTES = 4 << 20
_DEPTH_LIMIT = 200
_PLACE_LIMIT = 200
_INTEGERS = range(-(1 << 63), 1 << 64)
"""What JSON parsers on the way take; a larger integer would come out as something else."""


class InvalidOutput(Exception):
    """What the crew returned is no JSON.

    Attributes:
        hint: What its author can do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def encode(value: "Any", warn: "Callable[[str], None] | None" = None) -> "Any":
    """``value`` in dicts, lists, strings and numbers alone.

    Args:
        warn: Called once, with the first place, when NaN or an infinity became null.

    Raises:
        InvalidOutput: names the place (``output["rows"][3]``) and the type.
    """
    lost: list[str] = []
    out = _encode(value, "output", 0, set(), lost)
    if lost and warn is not None:
        more = f", as are {len(lost) - 1:,} more places" if len(lost) > 1 else ""
        warn(f"{lost[0][:_PLACE_LIMIT]} is NaN or infinite{more}. JSON has no such number: it is null in the output.")
    size = len(dumps(out).encode("utf-8", "replace"))
    if size > OUTPUT_LIMIT_BYTES:
        raise InvalidOutput(
            f"The output is {size:,} bytes; {OUTPUT_LIMIT_BYTES:,} are allowed.",
            "Write large results to a file under /app/artifacts and return its name.",
        )
    return out


def _encode(value: "Any", path: str, depth: int, above: "set[int]", lost: "list[str]") -> "Any":
    if depth > _DEPTH_LIMIT:
        raise InvalidOutput(
            f"{path[:200]}… is nested deeper than {_DEPTH_LIMIT} levels.", "Return a flatter structure."
        )
    if id(value) in above:
        raise InvalidOutput(f"{path} contains itself.", "Return a structure without cycles.")
    try:
        form = plain(value)
    except NotPlain as refusal:
        raise InvalidOutput(f"{path}: {refusal}.", _advice(value)) from None
    except Exception as error:  # a property or a dump of the user's own type
        raise InvalidOutput(
            f"{path}: {type_name(value)} cannot be taken apart: {type(error).__name__}: {error}.", _advice(value)
        ) from error
    if type(form) is int and form not in _INTEGERS:
        raise InvalidOutput(f"{path} is an integer of more than 64 bits.", "Return it as a string.")
    if type(form) not in (dict, list):
        if form is None and value is not None and _is_no_number(value):
            lost.append(path)
        return form
    above.add(id(value))
    try:
        if type(form) is list:
            return [_encode(item, f"{path}[{index}]", depth + 1, above, lost) for index, item in enumerate(form)]
        return {
            _key(key, path): _encode(
                item, f'{path}["{key}"]' if isinstance(key, str) else f"{path}[{key!r}]", depth + 1, above, lost
            )
            for key, item in form.items()
        }
    finally:
        above.discard(id(value))


def _is_no_number(value: object) -> bool:
    """Whether it is NaN or an infinity: a float, one of numpy's, or an enum's member."""
    try:
        number = float(getattr(value, "value", value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return number - number != 0


def _key(key: object, path: str) -> str:
    """A dict's key, as the ``json`` module would write it."""
    if type(key) is str:
        return key
    try:
        form = plain(key)
    except NotPlain:
        form = ()
    if isinstance(form, str):
        return form
    if form is None or isinstance(form, (bool, int, float)):
        return dumps(form)
    raise InvalidOutput(f"{path} has a key of type {type_name(key)}.", "Use strings as keys.")


def _advice(value: object) -> str:
    if type(value).__module__.startswith("pandas."):
        return 'Return df.to_dict("records"), or write it to a file under /app/artifacts.'
    return "Return dicts, lists, strings, numbers, pydantic models or dataclasses."
