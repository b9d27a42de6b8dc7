"""A crew that shows the values of its env vars in every way there is, and ends as its input says."""

# ruff: noqa: T201 (a crew prints)

import base64
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from typing import Any
from urllib.parse import quote, quote_plus

from crewship_runtime import emit

NAMES = os.environ["LEAKS"].split(",")

for name in NAMES:
    print(f"imported with {name} = {os.environ[name]}")  # in the build's log too


def kickoff(inputs: dict[str, Any]) -> Any:
    values = {name: os.environ[name] for name in NAMES}
    for name, value in values.items():
        print(f"{inputs['marker']} {name}")
        for form in forms(value):
            print(f"  here {form} it is")
            print(f"  joined{form}to others", file=sys.stderr)
        at_borders(value)
        logging.getLogger("crew").error("the key is %s", value)
        warnings.warn(f"the key is {value}", stacklevel=1)
        emit("leak", value=value, nested=[{"deep": value, value: forms(value)}])
        emit("long", value="x" * 40_000 + value)
    subprocess.run(["env"], check=False)
    subprocess.run([sys.executable, "-c", "import os; raise RuntimeError(dict(os.environ))"], check=False)
    sys.stdout.flush()
    return end(inputs["end"], values)


def end(how: str, values: dict[str, str]) -> Any:
    match how:
        case "raise":
            try:
                raise KeyError(values)
            except KeyError as error:
                raise ValueError(f"refused: {json.dumps(values)}") from error
        case "group":
            raise ExceptionGroup("all refused", [ValueError(value) for value in values.values()])
        case "exit":
            sys.exit(f"no use: {values}")
        case "output":
            return {"values": values, "forms": [form for value in values.values() for form in forms(value)]}
        case "unfit":
            return {"values": values, "not JSON": object()}
        case "wait":
            print("waiting", flush=True)
            time.sleep(600)


def forms(value: str) -> list[str]:
    raw = value.encode()
    return [
        value, repr(value), json.dumps({"key": value}), json.dumps(json.dumps(value)), quote(value), quote(value, safe=""),
        quote_plus(value), raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode(),
        base64.b64encode(b"user:" + raw).decode(), base64.urlsafe_b64encode(b"ab" + raw + b"c").decode(),
    ]  # fmt: skip


def at_borders(value: str) -> None:
    """Across writes, across the pieces of a long line, and beside bytes that are no text."""
    raw = value.encode()
    for cut in (1, len(raw) // 2, len(raw) - 1):
        os.write(1, b"  cut " + raw[:cut])
        time.sleep(0.002)
        os.write(1, raw[cut:] + b" cut\n")
    for before in (64 * 1024 - len(raw) // 2, 64 * 1024 - 1, 128 * 1024 - 3):
        os.write(1, b"y" * before + raw + b"z" * 5000 + b"\n")
    os.write(2, b"\xff\xfe " + raw + b" \xff\n")
