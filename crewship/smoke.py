"""The smoke boot: a deployment's image is started once, as a run is but without a network, and only imports its entrypoint.

So what cannot work is known at deploy, with the crew's own traceback, and not at the first run. The other end is the runner's
supervisor (``docs/reference/frames.md``, ``boot`` with ``check``).
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from crewship.builds import BuildFailed, BuildLog, canceled
from crewship.config import DeploymentConfig
from crewship.engine import Attachment, ContainerMissing, ContainerSpec, Engine, Limits
from crewship.redaction import Redactor

_POLL_SECONDS = 0.1  # how late a cancel or the end of the time is seen
_TRACEBACK_LINES = 40
_END_TIMEOUT_SECONDS = 5
_LOG_LIMIT_BYTES = 8 << 20
_IMPORT_HINT = (
    "The traceback says where. A deployment's modules are imported once before it is ready, with the project's env vars and "
    "without network; [build] smoke = false in crewship.toml leaves that out."
)
_CODES = frozenset({"import_error", "entrypoint_not_found", "entrypoint_not_callable"})


@dataclass(frozen=True, slots=True)
class SmokeFacts:
    """What a boot that worked has shown."""

    import_ms: int
    memory_bytes: int
    """Of the crew's process when everything was imported."""
    kind: str
    """What the entrypoint turned out to be."""
    python: str
    runner: str
    isolation: dict[str, Any]
    """As the kernel told from inside, before any of the crew's code."""


def smoke(
    engine: Engine,
    deployment_id: str,
    image: str,
    config: DeploymentConfig,
    env: Mapping[str, str],
    limits: Limits,
    log: BuildLog,
    *,
    timeout_seconds: float,
    cancel: threading.Event | None = None,
    remove: Callable[[str], None] | None = None,
    beside: str | None = None,
) -> SmokeFacts:
    """Boot ``image`` and import the entrypoint.

    Idempotent: a container that an earlier attempt has left is replaced, and none stays.

    Args:
        engine: Where the image is.
        deployment_id: Names the container.
        image: Id or tag of the deployment's image.
        config: The deployment's ``crewship.toml``.
        env: The project's env vars; they reach the container over its stdin alone.
        limits: Those of the deployment's runs.
        log: Gets what the crew prints, and the last lines of its traceback. Not redacted here.
        timeout_seconds: For the start and the imports together.
        cancel: Set by another thread to stop.
        remove: Called with the container in the end; None: it is gone when this returns.
        beside: A container without network of the same deployment, whose network namespace is shared if it runs: the engine makes
            none then, which is half of a start.

    Raises:
        BuildFailed: the entrypoint cannot be had (``import_error``, ``entrypoint_not_found``,
            ``entrypoint_not_callable``, ``import_timeout``), or ``cancel``.
        ImageMissing, Unavailable: the engine's reasons.
    """
    cancel = cancel or threading.Event()
    if cancel.is_set():
        raise canceled()
    name = f"crewship-smoke-{deployment_id.replace('_', '-')}"
    engine.remove(name)
    if beside is not None and not _runs(engine, beside):
        beside = None
    container = engine.create(ContainerSpec(name, image, limits, "smoke", None, beside=beside))
    try:
        attachment = engine.attach(container)
        try:
            boot = _Boot(log, nonce=secrets.token_hex(16))
            deadline = time.monotonic() + timeout_seconds
            engine.start(container)
            with _killed_when_late(engine, container, cancel, deadline):
                boot.run(attachment, config, env)
            if cancel.is_set():
                raise canceled()
            if not boot.ended and time.monotonic() > deadline:
                raise BuildFailed(
                    "import_timeout",
                    f"Importing {config.entrypoint} took longer than {timeout_seconds:g} s",
                    hint="Move slow work (downloads, calls of services) out of the modules' top level into the entrypoint. "
                    "The smoke boot has no network.",
                )
            return boot.facts(config, _oom_killed(engine, container), limits)
        finally:
            attachment.close()
    finally:
        (remove or engine.remove)(container)


class _Boot:
    """What one boot's frames have told so far."""

    def __init__(self, log: BuildLog, nonce: str) -> None:
        self._log = log
        self._nonce = nonce
        self._frames: dict[str, dict[str, Any]] = {}
        """The last frame of each type that comes once."""

    @property
    def ended(self) -> bool:
        return "end" in self._frames

    def run(self, attachment: Attachment, config: DeploymentConfig, env: Mapping[str, str]) -> None:
        """Until the last frame, or the stream's end."""
        command = {
            "op": "boot",
            "nonce": self._nonce,
            "env": dict(env),
            "entrypoint": config.entrypoint,
            "framework": config.framework,
            "artifacts": [],
            "check": True,
            "log_limit_bytes": _LOG_LIMIT_BYTES,
            "end_timeout_seconds": _END_TIMEOUT_SECONDS,
            "uncut": Redactor(env).forms,
        }
        rest = b""
        try:
            attachment.write(orjson.dumps(command) + b"\n")
            while not self.ended and (piece := attachment.read()) is not None:
                if piece[0] != "stdout":
                    continue
                *lines, rest = (rest + piece[1]).split(b"\n")
                last = max((self._take(line) for line in lines), default=0)
                if last:
                    attachment.write(b'{"op":"ack","n":%d}\n' % last)
        except ConnectionError:
            return  # how it ended is seen from what it has told and from the engine

    def _take(self, line: bytes) -> int:
        """One line; its ``n``, or 0 when it is no frame."""
        try:
            frame = orjson.loads(line)
        except orjson.JSONDecodeError:
            return 0
        if not isinstance(frame, dict) or frame.get("k") != self._nonce:
            return 0
        kind = frame.get("t")
        if kind == "log":
            for message in str(frame["text"]).split("\n"):
                self._log.line(message, frame["l"], frame["s"])
        elif kind == "notice":
            self._log.line(frame["message"], frame["level"], "stderr")
        elif kind in ("boot", "loaded", "result", "end"):
            self._frames[kind] = frame
        return int(frame["n"])

    def facts(self, config: DeploymentConfig, oom_killed: bool, limits: Limits) -> SmokeFacts:
        """The boot's outcome.

        Raises:
            BuildFailed: it was none.
        """
        end = self._frames.get("end", {})
        if oom_killed or ((end.get("cgroup") or {}).get("oom_kills") or 0) > 0:
            if "loaded" not in self._frames:
                raise BuildFailed(
                    "import_error",
                    f"Importing {config.entrypoint} used all of {limits.memory_bytes >> 20} MiB of memory",
                    hint='Set memory under [run] in crewship.toml, such as memory = "2g".',
                )
        error = self._frames.get("result", {}).get("error")
        if error:
            raise self._failure(error)
        if "loaded" in self._frames and "boot" in self._frames:
            boot, loaded = self._frames["boot"], self._frames["loaded"]
            return SmokeFacts(
                import_ms=loaded["import_ms"],
                memory_bytes=loaded["memory_bytes"],
                kind=loaded["kind"],
                python=boot["python"],
                runner=boot["runner"],
                isolation=boot["isolation"],
            )
        how = f"signal {end['signal']}" if end.get("signal") else f"exit code {end.get('exit_code')}"
        raise BuildFailed(
            "import_error",
            f"The crew's process ended ({how if end else 'killed'}) while {config.entrypoint} was imported",
            hint="Modules must not end the process when they are imported; the build log has what was printed.",
        )

    def _failure(self, error: dict[str, Any]) -> BuildFailed:
        traceback = error.get("traceback")
        for line in str(traceback or "").rstrip("\n").split("\n")[-_TRACEBACK_LINES:]:
            if line:
                self._log.line(line, "error", "stderr")
        code = error.get("code")
        return BuildFailed(
            code if code in _CODES else "import_error",
            str(error.get("message") or "The entrypoint cannot be imported"),
            hint=error.get("hint") or (_IMPORT_HINT if code == "import_error" else None),
            traceback=traceback,
        )


def _runs(engine: Engine, container: str) -> bool:
    try:
        return engine.inspect(container).status == "running"
    except ContainerMissing:
        return False


def _oom_killed(engine: Engine, container: str) -> bool:
    try:
        return engine.inspect(container).oom_killed
    except ContainerMissing:
        return False


@contextmanager
def _killed_when_late(engine: Engine, container: str, cancel: threading.Event, deadline: float) -> Iterator[None]:
    """Ends the container, and with it the stream that is being read, on ``cancel`` and at the deadline."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            if cancel.is_set() or time.monotonic() > deadline:
                engine.kill(container, "KILL")
                return

    watcher = threading.Thread(target=watch, name="smoke watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
