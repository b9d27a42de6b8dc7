"""How a run ended, from facts alone: the engine's, the supervisor's, and what the platform itself did.

Never from the text of a message. In the order in which the rules win:

1. The crew's result that was there before SIGTERM was sent wins over a cancel and over a time limit.
2. Canceled: the platform was asked to, and its SIGTERM came before any result (or nothing had started).
3. The platform's own limits: time, log, artifacts.
4. Memory: a kill for memory with exit ≠ 0. A child killed for memory in a run that succeeded is a warning only.
5. The crew's own result: an error it raised, a value that is not JSON, ``sys.exit``.
6. No result: the process is gone without one; how it went says which of ``no_result``, ``exit_nonzero``, ``host_lost``,
   ``infrastructure``.
"""

from crewship.contracts import ContainerFacts, RunError, RunStatus, StopResult

_KILLED = 137
"""128 + SIGKILL."""


def classify(
    facts: ContainerFacts, stop: StopResult | None, *, memory: str, pids: int, timeout_seconds: int
) -> tuple[RunStatus, RunError | None]:
    """The terminal status and, when it failed, the error.

    Args:
        stop: What the cancel did; None when none was asked for.
        memory, pids, timeout_seconds: The limits that were in force, for the hints.
    """
    end = facts.end
    sigterm_at = facts.sigterm_at_ms
    if stop is not None and stop.sigterm_at_ms is not None:
        sigterm_at = min(stop.sigterm_at_ms, sigterm_at or stop.sigterm_at_ms)
    has_result = end is not None and end.ok is not None
    in_time = has_result and (
        sigterm_at is None or (end is not None and end.result_at_ms is not None and end.result_at_ms <= sigterm_at)
    )
    if not in_time:
        if facts.canceled_before_start or (stop is not None and (stop.sigterm_at_ms or stop.sigkill_at_ms)):
            return "canceled", None
        if facts.timed_out:
            return "failed", RunError(
                code="timeout",
                message=f"The run took longer than {timeout_seconds} s",
                hint="set timeout_seconds under [run] in crewship.toml, or give timeout_seconds with the run",
            )
    if facts.log_limit:
        return "failed", RunError(
            code="log_limit",
            message="The run wrote more log than a run may",
            hint="log less, or write the data to a file under /app/artifacts",
        )
    if facts.artifact_limit:
        return "failed", RunError(
            code="artifact_limit",
            message="The files under /app/artifacts are more or larger than a run may leave",
            hint="write fewer or smaller files under /app/artifacts",
        )
    if facts.image_missing:
        return "failed", RunError(
            code="image_missing",
            message="The deployment's image is not on its host any more",
            hint="deploy again: crewship deploy",
        )
    if end is not None and end.ok and in_time:
        return "succeeded", None
    exit_code = facts.exit_code if facts.exit_code is not None else (end.exit_code if end else None)
    crew_failed = end is None or end.ok is False or (end.exit_code or 0) != 0 or end.signal is not None
    if crew_failed and (facts.oom_killed or (end is not None and (end.oom_kills or 0) > 0)):
        return "failed", RunError(
            code="out_of_memory",
            message=f"The run used all of its {memory} of memory and was killed",
            hint='set memory under [run] in crewship.toml, such as memory = "2g"',
        )
    if end is not None and end.ok is False:
        message = end.error_message or "The crew failed"
        if (end.pids_max_events or 0) > 0 and end.error_code == "user_error":
            return "failed", RunError(
                code="pids_limit",
                message=f"The run was at its limit of {pids} processes and threads: {message}",
                hint="set pids under [run] in crewship.toml",
            )
        return "failed", RunError(code=end.error_code or "user_error", message=message, hint=end.error_hint)
    if end is not None:
        if end.signal is not None:
            return "failed", RunError(
                code="exit_nonzero", message=f"The crew's process was ended by signal {end.signal}", hint=None
            )
        if end.exit_code:
            return "failed", RunError(
                code="exit_nonzero", message=f"The crew's process ended with exit code {end.exit_code}", hint=None
            )
        return "failed", RunError(
            code="no_result",
            message="The crew's process ended without a result",
            hint="the entrypoint must return; os._exit() ends a process without one",
        )
    if facts.engine_restarted:
        return "failed", RunError(
            code="infrastructure",
            message="The container engine was restarted and the run's container went with it",
            hint='turn on "live-restore" in the engine\'s configuration (crewship doctor)',
        )
    if not facts.started and exit_code is None:
        return "failed", RunError(
            code="infrastructure", message="The run's container is gone before it could start", hint="run it again"
        )
    what = "was killed" if exit_code == _KILLED else f"ended with exit code {exit_code}"
    return "failed", RunError(code="no_result", message=f"The run's container {what} before the crew had a result")
