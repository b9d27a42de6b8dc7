"""How a run ended, from facts alone: the engine's, the supervisor's, and what the platform itself did.

Never from the text of a message. In the order in which the rules win:

1. The crew's result that was there before SIGTERM was sent wins over a cancel and over a time limit.
2. Canceled: the platform was asked to, and its SIGTERM came before any result (or nothing had started).
3. The platform's own limits: time, log, disk, artifacts.
4. Memory: a kill for memory with exit ≠ 0. A child killed for memory in a run that succeeded is a warning only.
5. Processes: a run that failed after the kernel refused it one.
6. The crew's own result: an error it raised, a value that is not JSON, ``sys.exit``.
7. No result: the process is gone without one; how it went says which of ``no_result``, ``exit_nonzero``, ``host_lost``,
   ``infrastructure``.

What a limit is told with: what was used of it, and the line of crewship.toml that would double it, within the platform's cap.
"""

from crewship import sizes
from crewship.contracts import ContainerFacts, EndFacts, Limit, RunError, RunStatus, StopResult

_KILLED = 137
"""128 + SIGKILL."""

RETRIED = frozenset({"user_error", "exit_nonzero", "no_result", "infrastructure"})
"""Codes after which ``[run] retries`` starts another attempt: what may go well the next time. A limit would be met again, and
what cannot be imported or said in JSON cannot be the next time either."""


def classify(
    facts: ContainerFacts, stop: StopResult | None, *, timeout_seconds: int
) -> tuple[RunStatus, RunError | None]:
    """The terminal status and, when it failed, the error.

    Args:
        stop: What the cancel did; None when none was asked for.
        timeout_seconds: The run's time limit.
    """

    def limit(key: str) -> Limit | None:
        return getattr(facts.limits, key, None)

    end = facts.end
    # The supervisor's own word counts where the platform has sent something: whoever sent it may have been killed since, and an
    # operator's ``docker stop`` is none of the platform's.
    heard_at = end.sigterm_at_ms if end is not None and (stop is not None or facts.timed_out) else None
    sent_at = stop.sigterm_at_ms if stop is not None else None
    is_limit = facts.timed_out or facts.sigterm_at_ms is not None
    sigterm_at = min((at for at in (facts.sigterm_at_ms, sent_at, heard_at) if at is not None), default=None)
    has_result = end is not None and end.ok is not None
    in_time = has_result and (
        sigterm_at is None or (end is not None and end.result_at_ms is not None and end.result_at_ms <= sigterm_at)
    )
    if not in_time:
        if facts.canceled_before_start or (
            stop is not None and (sent_at or stop.sigkill_at_ms or (heard_at and not is_limit))
        ):
            return "canceled", None
        if facts.timed_out:
            return _failed(
                "timeout",
                f"The run took longer than {timeout_seconds} s",
                _hint("timeout_seconds", limit("timeout")),
            )
    code = end.error_code if end is not None and end.ok is False else None
    crew_failed = end is None or end.ok is False or (end.exit_code or 0) != 0 or end.signal is not None
    if facts.log_limit or code == "log_limit":
        return _failed(
            "log_limit",
            f"The run wrote more log than the {_size(limit('log'))} that it may",
            "write bulk data to a file under /app/artifacts, or " + _hint("log", limit("log")),
        )
    if code == "disk_limit" or (crew_failed and _is_disk_full(end, limit("disk"))):
        return _failed(
            "disk_limit",
            f"The run's files took {_used(end.disk_bytes if end else None, limit('disk'))} of disk",
            _hint("disk", limit("disk")),
        )
    if facts.artifact_limit:
        return _failed(
            "artifact_limit",
            "The files under /app/artifacts are more than a run may leave: "
            f"{_size(limit('artifacts'))}, or 10,000 files",
            "write fewer or smaller files under /app/artifacts; the platform's setting is CREWSHIP_ARTIFACTS_LIMIT_BYTES",
        )
    if facts.image_missing:
        return _failed(
            "image_missing", "The deployment's image is not on its host any more", "deploy again: crewship deploy"
        )
    if end is not None and end.ok and in_time:
        return "succeeded", None
    exit_code = facts.exit_code if facts.exit_code is not None else (end.exit_code if end else None)
    if crew_failed and (facts.oom_killed or (end is not None and (end.oom_kills or 0) > 0)):
        used = _used(end.memory_peak_bytes if end else None, limit("memory"))
        return _failed(
            "out_of_memory", f"The run used {used} of memory and was killed", _hint("memory", limit("memory"))
        )
    if end is not None and (end.pids_max_events or 0) > 0 and (code or end.exit_code):
        if code in (None, "user_error", "exit_nonzero"):
            pids = limit("pids")
            return _failed(
                "pids_limit",
                f"The run was at its limit of {f'{pids.value} ' if pids else ''}processes and threads: "
                + (end.error_message or f"the crew's process ended with exit code {end.exit_code}"),
                _hint("pids", pids),
            )
    if end is not None and end.ok is False:
        return _failed(end.error_code or "user_error", end.error_message or "The crew failed", end.error_hint)
    if end is not None:
        if end.signal is not None:
            return _failed("exit_nonzero", f"The crew's process was ended by signal {end.signal}")
        if end.exit_code:
            return _failed("exit_nonzero", f"The crew's process ended with exit code {end.exit_code}")
        return _failed(
            "no_result",
            "The crew's process ended without a result",
            "the entrypoint must return; os._exit() ends a process without one",
        )
    if facts.engine_restarted:
        return _failed(
            "infrastructure",
            "The container engine was restarted and the run's container went with it",
            'turn on "live-restore" in the engine\'s configuration (crewship doctor)',
        )
    if not facts.started and exit_code is None:
        return _failed("infrastructure", "The run's container is gone before it could start", "run it again")
    what = "was killed" if exit_code == _KILLED else f"ended with exit code {exit_code}"
    return _failed("no_result", f"The run's container {what} before the crew had a result")


def _failed(code: str, message: str, hint: str | None = None) -> tuple[RunStatus, RunError]:
    return "failed", RunError(code=code, message=message, hint=hint)


def _is_disk_full(end: EndFacts | None, disk: Limit | None) -> bool:
    return end is not None and disk is not None and (end.disk_bytes or 0) >= disk.value


def _size(limit: Limit | None) -> str:
    return sizes.shown(limit.value) if limit else "most"


def _used(used_bytes: int | None, limit: Limit | None) -> str:
    """``512 MiB of 512 MiB``, as far as it is known."""
    if limit is None:
        return "all"
    return f"{sizes.shown(limit.value if used_bytes is None else used_bytes)} of {sizes.shown(limit.value)}"


def _hint(key: str, limit: Limit | None) -> str:
    """What to write into crewship.toml; where the cap is reached, who can raise that."""
    if limit is None:
        return f"set {key} under [run] in crewship.toml"
    if limit.value >= limit.most:
        return f"{key} is at the most that this platform allows; whoever runs it can raise CREWSHIP_MAX_{key.upper()}"
    wanted = min(limit.value * 2, limit.most)
    if key == "timeout_seconds":  # what is given with a run goes over what its project says
        return f"give timeout_seconds = {wanted} with the run, or set it under [run] in crewship.toml"
    value = str(wanted) if key == "pids" else f'"{sizes.written(wanted)}"'
    return f"set {key} = {value} under [run] in crewship.toml"
