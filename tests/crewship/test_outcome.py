"""The table of endings: facts in, verdict out."""

import pytest

from crewship.contracts import ContainerFacts, EndFacts, Limit, RunError, RunLimits, StopResult
from crewship.outcome import classify

OK = EndFacts(exit_code=0, ok=True, result_at_ms=1000)
RAISED = EndFacts(exit_code=1, ok=False, error_code="user_error", error_message="ValueError: no", error_hint="hint")
HEARD = EndFacts(exit_code=143, ok=False, error_code="exit_nonzero", result_at_ms=1010, sigterm_at_ms=1000)
NO_RESULT = EndFacts(exit_code=0)
STOPPED = StopResult(found=True, sigterm_at_ms=2000)
STOPPED_EARLY = StopResult(found=True, sigterm_at_ms=500)
LIMITS = RunLimits(
    memory=Limit(value=512 << 20, most=16 << 30),
    cpus=1,
    pids=Limit(value=128, most=4096),
    disk=Limit(value=1 << 30, most=64 << 30),
    log=Limit(value=1 << 20, most=1 << 30),
    artifacts=Limit(value=1 << 30, most=1 << 30),
    timeout=Limit(value=60, most=3600),
)
OVER_DISK = EndFacts(signal=9, ok=False, error_code="disk_limit", error_message="x", disk_bytes=1200 << 20)


def facts(end: EndFacts | None, **changes: object) -> ContainerFacts:
    return ContainerFacts.model_validate({"started": True, "end": end, "limits": LIMITS} | changes)


def error_of(ending: ContainerFacts) -> RunError:
    _, error = classify(ending, None, timeout_seconds=60)
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("ending", "stop", "status", "code"),
    [
        (facts(OK), None, "succeeded", None),
        (facts(OK), STOPPED, "succeeded", None),
        (facts(OK), STOPPED_EARLY, "canceled", None),
        (facts(RAISED), None, "failed", "user_error"),
        (facts(RAISED), STOPPED_EARLY, "canceled", None),
        (facts(NO_RESULT), STOPPED, "canceled", None),
        (facts(None, exit_code=137), StopResult(found=True, sigkill_at_ms=1), "canceled", None),
        (facts(None, exit_code=137), StopResult(found=False), "failed", "no_result"),
        (facts(None, started=False, canceled_before_start=True), None, "canceled", None),
        # The worker that sent SIGTERM was killed; the next one found nothing to stop, or sent it once more.
        (facts(HEARD, exit_code=143), StopResult(found=False), "canceled", None),
        (facts(HEARD, exit_code=143), StopResult(found=True, sigterm_at_ms=9000), "canceled", None),
        (facts(HEARD, exit_code=143, timed_out=True, sigterm_at_ms=9000), None, "failed", "timeout"),
        (facts(HEARD, exit_code=143, timed_out=True), StopResult(found=False), "failed", "timeout"),
        (facts(HEARD, log_limit=True, sigterm_at_ms=700), StopResult(found=False), "failed", "log_limit"),
        (facts(HEARD, exit_code=143), None, "failed", "exit_nonzero"),  # an operator's docker stop
        (facts(OK.model_copy(update={"sigterm_at_ms": 900})), None, "succeeded", None),
        (facts(NO_RESULT, timed_out=True, sigterm_at_ms=900), None, "failed", "timeout"),
        (facts(OK, timed_out=True, sigterm_at_ms=1500), None, "succeeded", None),
        (facts(OK, timed_out=True, sigterm_at_ms=900), None, "failed", "timeout"),
        (facts(OK, log_limit=True), None, "failed", "log_limit"),
        (facts(OK, artifact_limit=True), None, "failed", "artifact_limit"),
        (facts(None, started=False, image_missing=True), None, "failed", "image_missing"),
        (facts(None, exit_code=137, oom_killed=True), None, "failed", "out_of_memory"),
        (facts(OK, oom_killed=True), None, "succeeded", None),
        (facts(EndFacts(exit_code=-9, signal=9, oom_kills=1)), None, "failed", "out_of_memory"),
        (facts(EndFacts(signal=11)), None, "failed", "exit_nonzero"),
        (facts(EndFacts(exit_code=3)), None, "failed", "exit_nonzero"),
        (facts(NO_RESULT), None, "failed", "no_result"),
        (facts(RAISED.model_copy(update={"pids_max_events": 4})), None, "failed", "pids_limit"),
        (facts(EndFacts(exit_code=254, pids_max_events=4)), None, "failed", "pids_limit"),
        (facts(NO_RESULT.model_copy(update={"pids_max_events": 4})), None, "failed", "no_result"),
        (facts(OK.model_copy(update={"pids_max_events": 4})), None, "succeeded", None),
        (facts(OVER_DISK), None, "failed", "disk_limit"),
        (facts(RAISED.model_copy(update={"disk_bytes": 1 << 30})), None, "failed", "disk_limit"),
        (facts(OK.model_copy(update={"disk_bytes": 1 << 30})), None, "succeeded", None),
        (facts(RAISED.model_copy(update={"error_code": "log_limit"})), None, "failed", "log_limit"),
        (facts(None, exit_code=137, engine_restarted=True), None, "failed", "infrastructure"),
        (facts(None, started=False), None, "failed", "infrastructure"),
    ],
)
def test_every_ending(ending: ContainerFacts, stop: StopResult | None, status: str, code: str | None) -> None:
    for known in (ending, ending.model_copy(update={"limits": None})):  # None: from before they were recorded
        verdict, error = classify(known, stop, timeout_seconds=60)
        if known.limits is not None or code != "disk_limit" or ending.end == OVER_DISK:
            assert (verdict, error.code if error else None) == (status, code)


@pytest.mark.parametrize(
    ("ending", "message", "hint"),
    [
        (
            facts(EndFacts(signal=9, oom_kills=1, memory_peak_bytes=512 << 20)),
            "The run used 512 MiB of 512 MiB of memory and was killed",
            'set memory = "1g" under [run]',
        ),
        (facts(None, oom_killed=True, exit_code=137), "512 MiB of 512 MiB", 'set memory = "1g" under [run]'),
        (facts(OVER_DISK), "The run's files took 1.2 GiB of 1 GiB of disk", 'set disk = "2g" under [run]'),
        (facts(OK, log_limit=True), "more log than the 1 MiB", 'set log = "2m" under [run]'),
        (
            facts(RAISED.model_copy(update={"pids_max_events": 1})),
            "at its limit of 128 processes and threads: ValueError: no",
            "set pids = 256 under [run]",
        ),
        (
            facts(NO_RESULT, timed_out=True),
            "longer than 60 s",
            "give timeout_seconds = 120 with the run, or set it under [run]",
        ),
        (facts(OK, artifact_limit=True), "1 GiB", "CREWSHIP_ARTIFACTS_LIMIT_BYTES"),
    ],
)
def test_a_limit_is_told_with_facts_and_the_setting_that_doubles_it(
    ending: ContainerFacts, message: str, hint: str
) -> None:
    error = error_of(ending)
    assert message in error.message
    assert hint in (error.hint or "")


def test_more_than_the_cap_is_not_proposed() -> None:
    end = EndFacts(signal=9, oom_kills=1)
    near = LIMITS.model_copy(update={"memory": Limit(value=512 << 20, most=700 << 20)})
    assert 'memory = "700m"' in (error_of(facts(end, limits=near)).hint or "")
    at = LIMITS.model_copy(update={"memory": Limit(value=512 << 20, most=512 << 20)})
    assert "CREWSHIP_MAX_MEMORY" in (error_of(facts(end, limits=at)).hint or "")


def test_the_crews_own_error_is_passed_on() -> None:
    error = error_of(facts(RAISED))
    assert (error.message, error.hint) == ("ValueError: no", "hint")
