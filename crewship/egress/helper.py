"""Says to the proxy who may reach what. Run by the proxy, under its user, as a file of its own: the standard library alone.

``helper.py hosts FOLDER``: a line ``<channel> <source> <host> <port>`` is answered by whether the file ``FOLDER/<source>`` has
the host. The worker's part puts that file there in one step before a run's container starts, so it is read anew each time and
nothing is remembered. ``helper.py same``: a line ``<channel> <host> <name>`` is answered by whether both are the same name.

Whatever cannot be read or understood is refused.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

_ADDRESS = re.compile(r"[0-9.]{7,15}")


def main(arguments: list[str]) -> None:
    judge: Callable[[list[str]], bool]
    if arguments[0] == "hosts":
        folder = Path(arguments[1])

        def judge(words: list[str]) -> bool:
            source, host, port = words[:3]
            return _ADDRESS.fullmatch(source) is not None and is_allowed(read(folder / source), host, port)
    else:

        def judge(words: list[str]) -> bool:
            return plain(words[0]) == plain(words[1])

    for line in sys.stdin:
        channel, *words = line.split()
        try:
            good = judge(words)
        except (ValueError, IndexError):
            good = False
        sys.stdout.write(f"{channel} {'OK' if good else 'ERR'}\n")
        sys.stdout.flush()


def read(path: Path) -> str:
    """What a run may reach, one ``host port`` a line; nothing when nobody said."""
    try:
        return path.read_text()
    except OSError:
        return ""


def is_allowed(rules: str, host: str, port: str) -> bool:
    """Whether a rule names ``host`` at ``port``; ``*.x`` stands for every name below ``x`` and not for ``x``."""
    host = plain(host)
    for rule in rules.splitlines():
        name, _, number = rule.partition(" ")
        if number == port and (host.endswith(name[1:]) if name.startswith("*.") else host == name):
            return True
    return False


def plain(host: str) -> str:
    """As names are compared: the case of letters and the root's dot at the end mean nothing."""
    return host.lower().removesuffix(".")


if __name__ == "__main__":
    main(sys.argv[1:])
