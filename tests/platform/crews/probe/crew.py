"""A crew that does what its input says, one thing at a time."""

# ruff: noqa: T201 (a crew prints)

import asyncio
import ctypes
import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

ARTIFACTS = Path("artifacts")


def kickoff(inputs: dict[str, Any]) -> Any:
    return globals()[inputs.get("do", "echo")](inputs)


def stream(inputs: dict[str, Any]) -> Generator[Any, None, Any]:
    for number in range(inputs["count"]):
        yield {"number": number}
    if "result" in inputs:
        return inputs["result"]


async def later(inputs: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"after": inputs}


def echo(inputs: dict[str, Any]) -> dict[str, Any]:
    return inputs


def say(inputs: dict[str, Any]) -> None:
    """Everything a log can have."""
    print("plain")
    print("grüße, 世界 🚢")
    print("to stderr", file=sys.stderr)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
    logging.getLogger("crew").warning("a warning")
    logging.getLogger("crew").debug("a detail")
    print("\x1b[31mred\x1b[0m")
    print("a\rb")
    print()
    print('{"n": 1, "k": "x", "at": 1, "t": "result", "ok": true, "output": "forged"}')
    sys.stdout.flush()
    os.write(1, b"not utf-8: \xff\xfe\n")
    os.write(1, b"x" * 100_000 + b"\n")
    os.write(1, b"no newline")


def lines(inputs: dict[str, Any]) -> int:
    for number in range(inputs["count"]):
        print(f"line {number}")
    return int(inputs["count"])


def tick(inputs: dict[str, Any]) -> int:
    """One line at a time, for as long as a test needs to break something."""
    print(f"begun in {os.getpid()}", flush=True)
    for number in range(inputs["count"]):
        print(f"tick {number}", flush=True)
        time.sleep(inputs["seconds"])
    return int(inputs["count"])


def environment(inputs: dict[str, Any]) -> dict[str, Any]:
    """The values' digests, for a value itself would be redacted."""
    values = {name: os.environ.get(name) for name in inputs["names"]}
    return {name: value and hashlib.sha256(value.encode()).hexdigest() for name, value in values.items()}


def leak(inputs: dict[str, Any]) -> dict[str, Any]:
    """Show a secret in every way there is."""
    secret = os.environ[inputs["name"]]
    print(f"stdout {secret} end")
    print(f"stderr {secret} end", file=sys.stderr)
    sys.stdout.flush()
    half = len(secret) // 2
    os.write(1, f"halves {secret[:half]}".encode())
    time.sleep(0.2)
    os.write(1, f"{secret[half:]} end\n".encode())
    if inputs.get("raise"):
        raise ValueError(f"the key {secret} is refused")
    return {"key": secret, secret: ["nested", {"deep": f"<{secret}>"}]}


def write(inputs: dict[str, Any]) -> list[str]:
    """Files by name and content."""
    for name, content in inputs["files"].items():
        path = ARTIFACTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return sorted(inputs["files"])


def write_large(inputs: dict[str, Any]) -> str:
    """One file of many different blocks; its digest."""
    digest = hashlib.sha256()
    with (ARTIFACTS / "large.bin").open("wb") as file:
        for number in range(inputs["mebibytes"]):
            block = hashlib.sha256(str(number).encode()).digest() * 32768
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def write_elsewhere(inputs: dict[str, Any]) -> None:
    """Files that are no artifacts, one that the config names, and links that lead out."""
    Path("notes.md").write_text("beside")
    Path("out").mkdir()
    Path("out/kept.txt").write_text("kept")
    ARTIFACTS.joinpath("passwd").symlink_to("/etc/passwd")
    ARTIFACTS.joinpath("real.txt").write_text("real")


def leave(inputs: dict[str, Any]) -> None:
    sys.exit(inputs.get("code"))


def vanish(inputs: dict[str, Any]) -> None:
    os._exit(inputs["code"])


def die(inputs: dict[str, Any]) -> None:
    os.kill(os.getpid(), inputs["signal"])


def crash(inputs: dict[str, Any]) -> None:
    ARTIFACTS.joinpath("before.txt").write_text("written before")
    raise KeyError("no such topic")


def unspeakable(inputs: dict[str, Any]) -> object:
    return {"value": object()}


def swallow(inputs: dict[str, Any]) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(b"x" * (4 << 20)))


def lose_child(inputs: dict[str, Any]) -> str:
    """A child that is killed for memory, and a crew that goes on."""
    code = "x = []\nwhile True: x.append(bytearray(b'x' * (4 << 20)))"
    return f"child ended with {subprocess.run([sys.executable, '-c', code], check=False).returncode}"


def crowd(inputs: dict[str, Any]) -> int:
    """Processes until there can be no more; how many there were."""
    children = []
    try:
        while True:
            children.append(subprocess.Popen(["sleep", "60"]))
    except OSError:
        if inputs["raise"]:
            raise
    return len(children)


def fill(inputs: dict[str, Any]) -> None:
    """Write for ever: one file after the other, or a single one."""
    number = 0
    while True:
        with Path(f"part-{0 if inputs.get('one') else number}").open("ab") as file:
            file.write(os.urandom(1 << 20))
        number += 1


def chatter(inputs: dict[str, Any]) -> None:
    while True:
        print("and another thing")


def stumble(inputs: dict[str, Any]) -> Any:
    """Fail in every attempt before the good one."""
    attempt = int(os.environ["CREWSHIP_ATTEMPT"])
    print(f"attempt {attempt}", flush=True)
    ARTIFACTS.joinpath("attempt.txt").write_text(str(attempt))
    time.sleep(inputs.get("first", 0) if attempt == 1 else 0)
    if attempt < inputs["good"]:
        match inputs["how"]:
            case "exit":
                sys.exit(3)
            case "vanish":
                os._exit(0)
            case "raise then vanish" if attempt > 2:
                os._exit(0)
            case _:
                raise RuntimeError(f"attempt {attempt} stumbled")
    return wait(inputs) if inputs.get("then") == "wait" else attempt


def wait(inputs: dict[str, Any]) -> None:
    print("waiting", flush=True)
    time.sleep(600)


def catch(inputs: dict[str, Any]) -> None:
    """A crew that tidies up when it is asked to stop."""

    def tidy(number: int, frame: object) -> None:
        ARTIFACTS.joinpath("partial.md").write_text("what there was")
        print("tidied up", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, tidy)
    print("waiting", flush=True)
    time.sleep(600)


def linger(inputs: dict[str, Any]) -> None:
    """A crew that takes its time when it is asked to stop, and ends as a shell says that it was."""

    def tidy(number: int, frame: object) -> None:
        print("tidying", flush=True)
        time.sleep(inputs["seconds"])
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, tidy)
    print("waiting", flush=True)
    time.sleep(600)


def ignore(inputs: dict[str, Any]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ARTIFACTS.joinpath("left.txt").write_text("left")
    print("waiting", flush=True)
    while True:
        time.sleep(1)


def facts(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the crew's process can see and do."""

    def tries(path: str) -> str:
        try:
            Path(path).write_text("x")
        except OSError as error:
            return type(error).__name__ + f" {error.errno}"
        return "written"

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "uid": os.getuid(),
        "cwd": os.getcwd(),
        "cap_eff": status["CapEff"].strip(),
        "no_new_privs": status["NoNewPrivs"].strip(),
        "seccomp": status["Seccomp"].strip(),
        "root": tries("/etc/x"),
        "source": tries("/opt/x"),
        "app": tries("/app/x"),
        "tmp": tries("/tmp/x"),
        "mount": ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "supervisor": tries("/proc/1/mem"),
        "stdin": sys.stdin.read(),
    }
