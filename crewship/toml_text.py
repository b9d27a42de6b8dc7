"""TOML as people write it: read with errors that say the line, and the line of a key found again.

The parser keeps no positions, so the line of a key is looked for in the text; what only the parser could tell (dotted keys,
inline tables) gets no line rather than a wrong one.
"""

import re
import tomllib
from typing import Any

from crewship.errors import InvalidConfig

_TOML_HINT = 'A line is a [table], or a key and its value: name = "text", number = 5, yes = true, list = ["a", "b"].'


def decoded(text: str | bytes, file: str) -> str:
    """The file's text, without the byte order mark that some editors write.

    Raises:
        InvalidConfig: it is not UTF-8; names the line.
    """
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidConfig(f"{file}, line {line}: not UTF-8.", hint="Save the file as UTF-8.") from None


def parsed(text: str, file: str) -> dict[str, Any]:
    """The file's document.

    Raises:
        InvalidConfig: it is not TOML; says what, and where.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InvalidConfig(f"{file} is nested too deeply.") from None
    except ValueError as error:  # TOMLDecodeError, and plain ValueError for a number with thousands of digits
        match = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        last = text.count("\n") + 1
        where = "" if match is None else f", line {match[1]}, column {match[2]}" if match[1] else f", line {last}"
        raise InvalidConfig(
            f"{file}{where}: not TOML: {reason}.", hint=_toml_hint(text, int(match[1]) if match and match[1] else last)
        ) from None


def _toml_hint(text: str, line: int) -> str:
    """The form of a line; for the most frequent slip, a bare word where a string has to be, that very line."""
    lines = text.splitlines()
    match = (
        re.fullmatch(r"\s*([\w-]+)\s*=\s*([A-Za-z][^\"'#]*?)\s*(#.*)?", lines[line - 1]) if line <= len(lines) else None
    )
    return f'Strings have quotes: {match[1]} = "{match[2]}".' if match else _TOML_HINT


def kind(value: object) -> str:
    """What a TOML value is, for a person."""
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def at(file: str, text: str, path: tuple[str, ...], what: str) -> str:
    """``crewship.toml, line 4, [run] memory: <what>.``"""
    line = line_of(text, path)
    table, key = ".".join(path[:-1]), path[-1]
    place = f"[{table}] {key}" if table else key
    return f"{file}{'' if line is None else f', line {line}'}, {place}: {what}."


def line_of(text: str, path: tuple[str, ...]) -> int | None:
    """Line of a key or table header. By its looks alone: a dotted key or an inline table gets no line rather than a wrong one."""
    current: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$", line)
        if header:
            current = tuple(part.strip().strip("\"'") for part in header[1].split("."))
            if current == path:
                return number
            continue
        pair = re.match(r"\s*(\"[^\"]+\"|'[^']+'|[\w-]+)\s*=", line)
        if pair and (*current, pair[1].strip("\"'")) == path:
            return number
    return None
