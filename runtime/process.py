"""The crew's process from its first command to its exit code: environment, import (phase 1), call (phase 2).

Started before anything is known of the run, it waits for ``boot``. What can be loaded without the user's environment is
loaded by then. A warm container waits between the two phases.
"""

import gc
import os
import sys
import time

from . import run
from .bounds import bounded
from .channel import Channel
from .encode import InvalidOutput, encode
from .entrypoint import kind_of, load
from .failures import EntrypointError, describe
from .graphs import Interrupted
from .hooks import HookFinder
from .levels import mark_levels
from .spawn import CHANNEL_FD, TAKEN_FD
from .termination import Terminated, raise_on_sigterm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, NoReturn

DEFAULTS = {
    # No outbound call of its own, no first-run prompt, no keyboard: a crew's telemetry holds an exit up for 10 s when the
    # network is closed, and the trace prompt waits 20 s for an answer.
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TESTING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "AGNO_TELEMETRY": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MEM0_TELEMETRY": "False",
    # The prices of models that came with LiteLLM, in place of a download at each import.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "COLUMNS": "120",
    # For the crew's own child processes; this one writes its lines as they come anyway.
    "PYTHONUNBUFFERED": "1",
}
"""Set unless the user or the image sets them."""

_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES")
"""Variables that only count when a process starts; PYTHONPATH among them is applied by hand."""
_RESUME = "CREWSHIP_RESUME_FD"


def main() -> "NoReturn":
    """Serve one run; never returns."""
    sys.exit(_Process(Channel(CHANNEL_FD, TAKEN_FD)).run())


class _Process:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._app = "/app"
        self._check = False

    def run(self) -> int:
        raise_on_sigterm()
        _resume(self._channel)
        boot = self._channel.receive()
        if boot is None or boot.get("op") != "boot":
            return 1
        self._app = str(boot["app"])
        self._check = bool(boot.get("check"))
        self._prepare(boot)
        try:
            found = self._load(str(boot.get("entrypoint")))
        except BaseException as error:
            return self._fail(error, "import_error")
        if self._check:
            return 0
        command = self._channel.receive()
        if command is None or command.get("op") != "run":
            return 1
        return self._call(found, command)

    # -- phase 1

    def _prepare(self, boot: "dict[str, Any]") -> None:
        env = boot.get("env")
        env = {str(key): str(value) for key, value in env.items()} if isinstance(env, dict) else {}
        self._restart_for(env, boot)
        for key, value in DEFAULTS.items():
            os.environ.setdefault(key, value)
        os.environ.update(env)
        os.environ["CREWSHIP_ARTIFACTS_DIR"] = os.path.join(self._app, "artifacts")
        os.environ["PWD"] = self._app
        if "TZ" in env:
            time.tzset()
        os.chdir(self._app)
        paths = [self._app]
        if os.path.isdir(os.path.join(self._app, "src")):
            paths.append(os.path.join(self._app, "src"))
        extra = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:0] = [path for path in (*paths, *extra) if path not in sys.path]
        module = str(boot.get("entrypoint")).partition(":")[0]
        sys.argv = [os.path.join(self._app, *module.split(".")) + ".py"]
        encoding = {} if "PYTHONIOENCODING" in env else {"encoding": "utf-8", "errors": "surrogateescape"}
        sys.stdout.reconfigure(line_buffering=True, **encoding)  # type: ignore[union-attr]
        HookFinder(
            {
                "logging": mark_levels,
                "crewship_runtime": self._connect,
                **_taps(self._emit, self._note, self._app),
            },
            self._tap_failed,
        ).install()
        _offer_module("crewship_runtime")

    def _restart_for(self, env: "dict[str, str]", boot: "dict[str, Any]") -> None:
        """Begin again as a new process when the user sets variables that only count at a process's start."""
        wanted = {k: v for k, v in env.items() if k.startswith(_AT_START) and os.environ.get(k) != v}
        if not wanted or (len(wanted) == 1 and "PYTHONPATH" in wanted):
            return
        from .wire import dumps

        fd = os.memfd_create("crewship-resume", 0)
        os.write(fd, dumps(boot).encode("utf-8", "replace") + b"\n" + self._channel.unread())
        os.set_inheritable(CHANNEL_FD, True)
        os.set_inheritable(TAKEN_FD, True)
        os.environ.update(wanted)
        os.environ[_RESUME] = str(fd)
        os.execv(sys.executable, [sys.executable, os.path.join(os.path.dirname(__file__), "crew.py")])

    def _load(self, entrypoint: str) -> "Any":
        started = time.monotonic()
        found = load(entrypoint, self._app)
        kind = kind_of(found)
        self._channel.send(
            {
                "m": "loaded",
                "kind": kind,
                "import_ms": round((time.monotonic() - started) * 1000),
                "memory_bytes": _memory_bytes(),
            }
        )
        gc.freeze()  # what the imports made lives to the end: a collection need not look at it, nor the exit free it
        return found

    # -- phase 2

    def _call(self, found: "Any", command: "dict[str, Any]") -> int:
        run_id = str(command.get("run_id"))
        value = command.get("input")
        os.environ["CREWSHIP_RUN_ID"] = run_id
        os.environ["CREWSHIP_ATTEMPT"] = str(command.get("attempt") or 1)
        self._channel.send({"m": "started"})
        try:
            output = run.run(found, value if isinstance(value, dict) else {}, run_id, self._emit_custom)
            output = encode(output, self._warn)
        except BaseException as error:
            return self._fail(error, "user_error")
        if self._channel.is_owner:
            self._channel.send({"m": "result", "ok": True, "output": output})
        return 0

    def _fail(self, error: BaseException, code: str) -> int:
        """Report how the crew's code ended; the exit code."""
        if not self._channel.is_owner:  # a fork that the crew made: its end is its parent's matter
            raise error
        if isinstance(error, SystemExit):
            return self._exited(error, code)
        if isinstance(error, EntrypointError):
            # Outside a smoke boot the run's own list of codes applies.
            known = error.code if self._check else "import_error"
            told = {"code": known, "message": str(error), "hint": error.hint, "traceback": None}
        elif isinstance(error, InvalidOutput):
            told = {"code": "invalid_output", "message": str(error), "hint": error.hint, "traceback": None}
        elif isinstance(error, Interrupted):
            told = {
                "code": "interrupted",
                "message": str(error),
                "hint": f"It asks: {error.question}",
                "traceback": None,
            }
        else:
            told = describe(error, code, self._app)
        self._channel.send({"m": "result", "ok": False, "error": told})
        return 1

    def _exited(self, error: SystemExit, code: str) -> int:
        """``sys.exit(...)``: what Python itself makes of its argument."""
        status = error.code
        if status is None:
            status = 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
        if code == "import_error":
            told = describe(error, code, self._app)
            told["message"] = f"The crew's module ended the process while it was imported: sys.exit({error.code!r})."
            told["hint"] = 'Put what runs the crew under if __name__ == "__main__":'
        elif status == 0:
            self._channel.send({"m": "result", "ok": True, "output": None})
            return 0
        else:
            told = describe(error, "exit_nonzero", self._app)
            told["message"] = f"The crew exited with code {status}."
        if not isinstance(error, Terminated) or code == "user_error":
            self._channel.send({"m": "result", "ok": False, "error": told})
        return status & 0xFF or 1

    # -- events

    def _emit(self, name: str, data: "dict[str, Any]") -> None:
        self._channel.send({"m": "event", "type": name, "data": bounded(data)})

    def _emit_custom(self, data: "dict[str, Any]") -> None:
        self._emit("custom", data)

    def _connect(self, module: "ModuleType") -> None:
        """Give the crew's own ``crewship_runtime`` something to send with."""
        vars(module)["_send"] = self._emit_custom

    def _tap_failed(self, name: str, error: Exception) -> None:
        self._note("debug", f"Events of {name} are not available: {type(error).__name__}: {error}")

    def _note(self, level: str, message: str) -> None:
        """A line of log that is the platform's own."""
        self._channel.send({"m": "notice", "level": level, "message": message})

    def _warn(self, message: str) -> None:
        self._note("warning", message)


def _taps(emit: "Any", note: "Any", app: str) -> "dict[str, Any]":
    """The frameworks' modules after whose import a tap is set; the tap itself is loaded then."""

    def crewai(module: "ModuleType") -> None:
        from .tap_crewai import tap

        tap(module, emit, note, app)

    def langchain(module: "ModuleType") -> None:
        from .tap_langchain import tap

        tap(module, emit)

    def openai_agents(module: "ModuleType") -> None:
        from .tap_openai_agents import tap

        tap(module, emit)

    def openai_responses(module: "ModuleType") -> None:
        from .tap_openai_agents import tap_responses

        tap_responses(module)

    def pydantic_ai(module: "ModuleType") -> None:
        from .tap_pydantic_ai import tap

        tap(module, emit)

    def sockets(module: "ModuleType") -> None:
        from .tap_socket import is_closed, tap

        if is_closed(os.listdir("/sys/class/net")):
            tap(module, emit)

    return {
        "socket": sockets,
        "crewai.events.event_bus": crewai,
        "crewai.utilities.events.crewai_event_bus": crewai,
        "langchain_core.callbacks.manager": langchain,
        "agents.tracing": openai_agents,
        "agents.models.openai_responses": openai_responses,
        "pydantic_ai": pydantic_ai,
    }


class _OneModule:
    """Lets the crew import one file of this folder, and no other."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != self._name:
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, os.path.join(os.path.dirname(__file__), name + ".py"))


def _offer_module(name: str) -> None:
    sys.meta_path.append(_OneModule(name))


def _resume(channel: Channel) -> None:
    """Take over what the process before :meth:`_Process._restart_for` had received."""
    number = os.environ.pop(_RESUME, "")
    if number.isdigit():
        with open(int(number), "rb") as left:
            left.seek(0)
            channel.preload(left.read())


def _memory_bytes() -> int | None:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return None
