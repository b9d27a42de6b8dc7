"""What differs between two deployments, as lines for a person.

::

    files
      + prompts/new.txt                1.2 kB
      - old.py                         310 B
      ~ crew.py                        2.1 kB → 2.2 kB
    packages
      ~ httpx                          0.27.0 → 0.28.1
    env, version 3 → 5
      + MODEL
"""

import json
from collections.abc import Iterator
from typing import Any

from cli.ansi import plain
from cli.human import size
from cli.output import BOLD, GREEN, RED, YELLOW, Paint

_MARKS = {"added": ("+", GREEN), "removed": ("-", RED), "changed": ("~", YELLOW)}
_NAME_WIDTH = 32


def lines(diff: dict[str, Any], paint: Paint) -> Iterator[str]:
    """The lines of a diff as the API gives it; none for what does not differ."""
    files = {
        word: [(item["name"], _size(item)) for item in diff["files"][word]] for word in ("added", "removed", "changed")
    }
    yield from _section("files", files, paint)
    for key, title in (("dependencies", "packages"), ("system_packages", "system packages")):
        if diff[key] is None:
            yield paint(f"{title}: not known, one of the two was not built", BOLD)
        else:
            yield from _section(title, {word: [_pin(item) for item in diff[key][word]] for word in _MARKS}, paint)
    yield from _section("config", {"changed": [_setting(item) for item in diff["config"]]}, paint)
    env = diff["env"]
    if env is not None and env["before"] != env["after"]:
        title = f"env, version {_version(env['before'])} → {_version(env['after'])}"
        names = {word: [(name, "") for name in env["changes"][word]] for word in _MARKS}
        yield from _section(title, names, paint) if any(names.values()) else [paint(f"{title}: no difference", BOLD)]


def _section(title: str, changes: dict[str, list[tuple[str, str]]], paint: Paint) -> Iterator[str]:
    if not any(changes.values()):
        return
    yield paint(title, BOLD)
    for word, items in changes.items():
        mark, color = _MARKS[word]
        for name, detail in items:
            yield f"  {paint(mark, color)} {plain(name):<{_NAME_WIDTH}} {plain(detail)}".rstrip()


def _size(item: dict[str, Any]) -> str:
    if "before" not in item:
        return size(item["size_bytes"])
    before, after = item["before"], item["after"]
    if before["sha256"] == after["sha256"]:
        return "is executable now" if after["executable"] else "is not executable any more"
    return f"{size(before['size_bytes'])} → {size(after['size_bytes'])}"


def _pin(item: dict[str, Any]) -> tuple[str, str]:
    pin = item["version"] if "version" in item else f"{item['before']} → {item['after']}"
    return item["name"], pin


def _setting(item: dict[str, Any]) -> tuple[str, str]:
    return item["key"], f"{_value(item['before'])} → {_value(item['after'])}"


def _value(value: Any) -> str:
    return "not set" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _version(version: int | None) -> str:
    return "unknown" if version is None else str(version)
