"""The table of endings: facts in, verdict out."""

import pytest

from crewship.contracts import ContainerFacts, EndFacts, StopResult
from crewship.outcome import classify

OK = EndFacts(exit_code=0, ok=True, result_at_ms=1000)
RAISED = EndFacts(exit_code=1, ok=False, error_code="user_error", error_message="ValueError: no", error_hint="hint")
NO_RESULT = EndFacts(exit_code=0)
STOPPED = StopResult(found=True, sigterm_at_ms=2000)
STOPPED_EARLY = StopResult(found=True, sigterm_at_ms=500)


def facts(end: EndFacts | None, **changes: object) -> ContainerFacts:
    return ContainerFacts.model_validate({"started": True, "end": end, "memory": "512m", "pids": 128} | changes)


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
        (facts(None, exit_code=137, engine_restarted=True), None, "failed", "infrastructure"),
        (facts(None, started=False), None, "failed", "infrastructure"),
    ],
)
def test_every_ending(ending: ContainerFacts, stop: StopResult | None, status: str, code: str | None) -> None:
    verdict, error = classify(ending, stop, memory="512m", pids=128, timeout_seconds=60)
    assert (verdict, error.code if error else None) == (status, code)


def test_the_hint_of_a_limit_names_the_setting() -> None:
    _, error = classify(facts(None, oom_killed=True, exit_code=137), None, memory="512m", pids=1, timeout_seconds=1)
    assert error is not None
    assert "512m" in error.message
    assert "memory" in (error.hint or "")


def test_the_crews_own_error_is_passed_on() -> None:
    _, error = classify(facts(RAISED), None, memory="1g", pids=1, timeout_seconds=1)
    assert error is not None
    assert (error.message, error.hint) == ("ValueError: no", "hint")
