"""A run without a platform: the same image, container, runner and translation to events, followed by one process.

What the platform adds is missing: nothing is durable, nothing waits in a queue, and nothing is tried again. What it has in common
is everything a crew can notice. The container is the hardened one, on the runs' bridge, within the same limits.

Everything made here carries the installation's name ``local`` and the process's number, so that what a killed one has left is
known as nobody's and removed by the next (:func:`sweep`). Images of dependencies stay, and are those that a platform on the same
engine uses.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from crewship import outcome
from crewship.attached import Attached
from crewship.boots import boot_command, container_limits
from crewship.build_secrets import INDEX_NAMES, NONE, BuildSecrets
from crewship.builds import BuiltImage, app_image
from crewship.clock import from_ms, now, now_ms, rfc3339
from crewship.config import DeploymentConfig
from crewship.contracts import ContainerFacts, EndFacts, ResultFacts, RunError, RunLimits, RunStatus, StopResult
from crewship.docker_engine import APP, DockerEngine
from crewship.engine import LABEL_DEPLOYMENT, ContainerMissing, ContainerSpec, Engine
from crewship.errors import Conflict, Unavailable
from crewship.events import GENESIS, Draft, LogLines, Renderer
from crewship.frames import Frame, FrameReader, end_facts, result_facts, translate
from crewship.image_builder import ImageBuilder
from crewship.limits import limits_of
from crewship.redaction import Redactor
from crewship.settings import Settings

INSTANCE: Final = "local"
_PREFIX: Final = "local_"
_END_SECONDS: Final = 30
"""How long the container waits for its last frame to be acknowledged when nobody follows it any more."""
_WATCH_SECONDS: Final = 0.1
_TERMINAL: Final[dict[RunStatus, str]] = {
    "succeeded": "run.completed", "failed": "run.failed", "canceled": "run.canceled",
}  # fmt: skip

OnLines = Callable[[bytes], None]
"""Called with whole NDJSON lines of the run's log, as they come."""


def local_settings(settings: Settings) -> Settings:
    """The settings of this machine's user, under the name of local runs."""
    bundle = os.environ.get("SSL_CERT_FILE", "")
    update: dict[str, Any] = {"instance": INSTANCE}
    if settings.build_ca_bundle is None and Path(bundle).is_file():
        update["build_ca_bundle"] = Path(bundle)
    return settings.model_copy(update=update)


def own_build_secrets(environment: Mapping[str, str]) -> BuildSecrets:
    """What ``uv`` on this machine would go by: the indexes, and their credentials, of the person's own environment."""
    values = {
        name: value
        for name, value in sorted(environment.items())
        if value and (name in INDEX_NAMES or re.fullmatch(r"UV_INDEX_\w+_(USERNAME|PASSWORD)", name))
    }
    return BuildSecrets(values, f"local {hashlib.sha256(repr(values).encode()).hexdigest()}") if values else NONE


def new_deployment_id() -> str:
    """Names what one local run makes: ``local_<pid>_<chance>``."""
    return f"{_PREFIX}{os.getpid()}_{secrets.token_hex(4)}"


def sweep(engine: DockerEngine) -> None:
    """Remove containers and images of local runs whose process is gone."""
    for state in engine.list():
        if not _is_at_work(state.name):
            engine.remove(state.id)
    for image in engine.images():
        if image.deployment_id is not None and not _is_at_work(image.deployment_id):
            with contextlib.suppress(Conflict):
                engine.remove_image(image.id)


def _is_at_work(name: str) -> bool:
    """Whether the process that made what has this name still runs."""
    _, found, rest = name.replace("-", "_").partition(_PREFIX)
    pid = rest.partition("_")[0]
    if not found or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class LocalLog:
    """A build's log as the lines of events that ``crewship deploy`` reads from a platform; see ``crewship.builds.BuildLog``."""

    def __init__(self, on_lines: OnLines, redactor: Redactor) -> None:
        self._on_lines, self._redactor = on_lines, redactor
        self._renderer = Renderer(1, GENESIS)

    def line(self, message: str, level: str, stream: str) -> None:
        """A line of output."""
        self._renderer.log(rfc3339(now()), self._redactor.redact(message).split("\n"), level, stream)
        self._on_lines(self._renderer.take())

    def step(self, name: str, status: str, duration_ms: int | None, cached: bool) -> None:
        """A step began or ended."""
        data: dict[str, Any] = {"message": name, "level": "info", "stream": "stdout", "step": name, "status": status}
        if duration_ms is not None:
            data |= {"duration_ms": duration_ms, "cached": cached}
        self._renderer.event(Draft(rfc3339(now()), "log", data))
        self._on_lines(self._renderer.take())


@dataclass(frozen=True, slots=True)
class Ended:
    """How a local run ended."""

    status: RunStatus
    error: RunError | None
    output: Any
    """What the crew returned."""
    traceback: str | None
    duration_ms: int
    """From the entrypoint's call to its end."""
    artifacts: tuple[str, ...]
    """Files that were saved, relative to the folder."""


@dataclass
class Stop:
    """Asks a run to end; by a signal handler or another thread."""

    asked: threading.Event = field(default_factory=threading.Event)
    forced: threading.Event = field(default_factory=threading.Event)

    def press(self) -> None:
        """The first time gently, then by force."""
        if self.asked.is_set():
            self.forced.set()
        self.asked.set()


class LocalRuns:
    """Builds and runs projects on one engine.

    Args:
        engine: Under the name ``local``.
        settings: ``local_settings``.
    """

    def __init__(self, engine: DockerEngine, settings: Settings) -> None:
        self._engine, self._settings = engine, settings
        self._builder = ImageBuilder(engine, settings)

    def close(self) -> None:
        """Let the connections go."""
        self._builder.close()

    def build(
        self,
        deployment_id: str,
        project: str,
        config: DeploymentConfig,
        source: Path,
        log: LocalLog,
        cancel: threading.Event,
        build_secrets: BuildSecrets = NONE,
    ) -> BuiltImage:
        """The project's image; the caller removes it by :meth:`forget`. Raises as ``ImageBuilder.build`` does."""
        return self._builder.build(deployment_id, project, config, source, log, cancel, secrets=build_secrets)

    def forget(self, deployment_id: str) -> None:
        """Remove the image."""
        with contextlib.suppress(Conflict):
            self._engine.remove_image(app_image(deployment_id))

    def run(
        self,
        deployment_id: str,
        image: str,
        config: DeploymentConfig,
        env: Mapping[str, str],
        given: dict[str, Any],
        on_lines: OnLines,
        stop: Stop,
        *,
        timeout_seconds: int | None = None,
        save_to: Path | None = None,
    ) -> Ended:
        """Run the crew once.

        Args:
            env: Its variables; they go over the container's stdin.
            given: The run's input.
            on_lines: Called in this thread.
            stop: Set to end it.
            save_to: Folder for the artifacts; None: they go with the container.

        Raises:
            Unavailable: the engine is the reason.
            ImageMissing: the image is gone.
        """
        limits = limits_of(config, self._settings, timeout_seconds)
        name = f"crewship-{deployment_id.replace('_', '-')}"
        spec = ContainerSpec(
            name,
            image,
            container_limits(limits),
            "run",
            # Without a platform there is no proxy to keep to a list of hosts.
            None if config.network.mode == "none" else self._settings.network,
            {LABEL_DEPLOYMENT: deployment_id},
        )
        self._engine.remove(name)
        container = self._engine.create(spec)
        try:
            followed = _Followed(self._engine, container, deployment_id, limits, Redactor(env), on_lines)
            boot = boot_command(config, env, followed.nonce, limits, end_timeout_seconds=_END_SECONDS)
            run = {"op": "run", "run_id": deployment_id, "attempt": 1, "input": given}
            facts = followed.to_end(
                boot + json.dumps(run).encode() + b"\n", stop, limits.timeout.value, self._settings.grace_seconds
            )
            status, error = outcome.classify(facts, followed.stopped, timeout_seconds=limits.timeout.value)
            saved = self._save(container, save_to) if save_to is not None else ()
        finally:
            self._engine.remove(container)
        duration_ms = max(0, (facts.ended_at_ms or 0) - facts.started_at_ms) if facts.started_at_ms else 0
        data: dict[str, object] = {"duration_ms": duration_ms}
        if error is not None:
            data["error"] = error.model_dump()
        if status == "canceled":
            times = followed.stopped or StopResult(found=False)
            data |= {
                "sigterm_at": _time(times.sigterm_at_ms),
                "sigkill_at": _time(times.sigkill_at_ms),
                "gone_at": rfc3339(now()),
            }
        followed.tell(Draft(rfc3339(now()), _TERMINAL[status], data))
        return Ended(status, error, followed.output, followed.traceback, duration_ms, saved)

    def _save(self, container: str, folder: Path) -> tuple[str, ...]:
        names = []
        for file in self._engine.archive(container, f"{APP}/artifacts"):
            path = folder / file.name
            if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as target:
                for chunk in file.chunks:
                    target.write(chunk)
            names.append(file.name)
        return tuple(sorted(names))


class _Followed:
    """One container, from its start to its end; reads in the calling thread, ends it by another.

    Attributes:
        stopped: What was done to it because somebody asked.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        deployment_id: str,
        limits: RunLimits,
        redactor: Redactor,
        on_lines: OnLines,
    ) -> None:
        self.nonce = secrets.token_hex(16)
        self.output: Any = None
        self.traceback: str | None = None
        self.stopped: StopResult | None = None
        self._engine, self._container, self._deployment_id = engine, container, deployment_id
        self._limits, self._redactor, self._on_lines = limits, redactor, on_lines
        self._reader = FrameReader([self.nonce], 0)
        self._renderer = Renderer(1, GENESIS)
        self._result: ResultFacts | None = None
        self._end: EndFacts | None = None
        self._started_at_ms: int | None = None
        self._ended_at_ms: int | None = None
        self._log_bytes = 0
        self._attachment: Attached | None = None
        self._done = threading.Event()
        self._timed_out = False
        self._sigterm_at_ms: int | None = None

    def tell(self, draft: Draft) -> None:
        """One more event."""
        self._renderer.event(draft)
        self._on_lines(self._renderer.take())

    def to_end(self, commands: bytes, stop: Stop, timeout_seconds: float, grace_seconds: float) -> ContainerFacts:
        """Start it and follow it until it has ended."""
        attachment = self._attachment = Attached(self._engine, self._container)
        attachment.write(commands)
        watcher = threading.Thread(
            target=self._watch, args=(stop, timeout_seconds, grace_seconds), name="local watch", daemon=True
        )
        try:
            self._engine.start(self._container)
            watcher.start()
            while True:
                with contextlib.suppress(ConnectionError):
                    self._read(attachment)
                attachment.close()
                # The end of a stream is not the end of a run: the daemon may have been restarted.
                if self._engine.wait(self._container, 1.0):
                    break
                self._reader.reset()
                attachment = self._attachment = Attached(self._engine, self._container)
                with contextlib.suppress(ConnectionError):
                    attachment.write(_command("replay", self._reader.last))
        finally:
            self._done.set()
            attachment.close()
            if watcher.ident is not None:
                watcher.join()
        state = self._engine.inspect(self._container)
        end = self._end
        return ContainerFacts(
            started=self._started_at_ms is not None,
            end=end,
            exit_code=state.exit_code,
            oom_killed=state.oom_killed,
            timed_out=self._timed_out,
            log_limit=self._log_bytes > self._limits.log.value,
            sigterm_at_ms=self._sigterm_at_ms,
            started_at_ms=self._started_at_ms,
            ended_at_ms=self._ended_at_ms or (end.result_at_ms if end else None) or now_ms(),
            limits=self._limits,
        )

    def _read(self, attachment: Attached) -> None:
        while (piece := attachment.read()) is not None:
            if piece[0] != "stdout":
                continue
            before = self._reader.last
            for raw in self._reader.feed(piece[1]):
                self._take(translate(raw, self._deployment_id, self._redactor))
            if lines := self._renderer.take():
                self._on_lines(lines)
            if self._reader.last > before:
                attachment.write(_command("ack", self._reader.last))
            if self._reader.replay_wanted:
                self._reader.replay_wanted = False
                attachment.write(_command("replay", self._reader.last))

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case "started":
                self._started_at_ms = frame.at_ms
            case "log":
                self._log_bytes += len(frame.body.get("text") or "")
            case "result":
                self._result = result_facts(frame.body)
                self.output = frame.body.get("output")
                self.traceback = (frame.body.get("error") or {}).get("traceback")
            case "end":
                self._ended_at_ms = frame.at_ms
                self._end = end_facts(frame.body, self._result)
        for draft in frame.drafts:
            if isinstance(draft, LogLines):
                self._renderer.log(draft.at, draft.messages, draft.level, draft.stream)
            else:
                self._renderer.event(draft)

    def _watch(self, stop: Stop, timeout_seconds: float, grace_seconds: float) -> None:
        """End the container when somebody asks, at its time limit, and over its log limit. See that its end is noticed."""
        deadline = time.monotonic() + timeout_seconds
        kill_at: float | None = None
        while not self._done.wait(_WATCH_SECONDS):
            if (attachment := self._attachment) is not None:
                attachment.look()
            is_late = time.monotonic() > deadline
            is_over = self._log_bytes > self._limits.log.value
            with contextlib.suppress(ContainerMissing, Unavailable):
                if kill_at is None and (stop.asked.is_set() or is_late or is_over):
                    kill_at = time.monotonic() + grace_seconds
                    at_ms = now_ms()
                    if stop.asked.is_set():
                        self.stopped = StopResult(found=True, sigterm_at_ms=at_ms)
                    else:
                        self._timed_out, self._sigterm_at_ms = is_late, at_ms
                    self._engine.kill(self._container, "SIGTERM")
                elif kill_at is not None and (stop.forced.is_set() or time.monotonic() > kill_at):
                    kill_at = float("inf")
                    if self.stopped is not None:
                        self.stopped = self.stopped.model_copy(update={"sigkill_at_ms": now_ms()})
                    self._engine.kill(self._container, "SIGKILL")


def _command(op: str, n: int) -> bytes:
    return json.dumps({"op": op, "n": n, "epoch": 1}).encode() + b"\n"


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else rfc3339(from_ms(milliseconds))
