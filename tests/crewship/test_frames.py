"""Frames to events: order, forgeries, gaps, and what each frame becomes."""

import base64
import json
from typing import Any

import pytest

from crewship.events import Draft, LogLines
from crewship.frames import FrameReader, end_facts, result_facts, translate
from crewship.redaction import Redactor

NONCE = "n0nce"
NOBODY = Redactor({})


def frame(n: int, t: str = "log", nonce: str = NONCE, **fields: Any) -> bytes:
    return json.dumps({"n": n, "k": nonce, "at": 1_700_000_000_000 + n, "t": t, **fields}).encode() + b"\n"


def numbers(frames: list[dict[str, Any]]) -> list[int]:
    return [f["n"] for f in frames]


def test_frames_come_whole_whatever_the_pieces() -> None:
    reader, data = FrameReader({NONCE}, 0), frame(1) + frame(2) + frame(3)
    got = [f for i in range(0, len(data), 7) for f in reader.feed(data[i : i + 7])]
    assert numbers(got) == [1, 2, 3]


def test_repeats_are_dropped_and_a_gap_asks_for_a_replay() -> None:
    reader = FrameReader({NONCE}, 2)
    assert numbers(reader.feed(frame(1) + frame(2) + frame(3))) == [3]
    assert numbers(reader.feed(frame(5))) == []
    assert reader.replay_wanted
    assert numbers(reader.feed(frame(4) + frame(5))) == [4, 5]


def test_a_line_without_the_nonce_is_no_frame() -> None:
    reader = FrameReader({NONCE}, 0)
    forged = frame(1, nonce="guess") + b'{"n": 1}\n' + b"hello\n" + b'{"n": broken\n'
    assert reader.feed(forged) == []
    assert not reader.replay_wanted


def test_lone_surrogates_do_not_break_the_stream() -> None:
    reader = FrameReader({NONCE}, 0)
    data = b'{"n": 1, "k": "n0nce", "at": 1, "t": "event", "type": "custom", "data": {"value": "a\\ud800b"}}\n'
    assert numbers(reader.feed(data)) == [1]


def test_half_a_line_of_an_old_attachment_is_forgotten() -> None:
    reader = FrameReader({NONCE}, 0)
    reader.feed(frame(1)[:10])
    reader.reset()
    assert numbers(reader.feed(frame(1))) == [1]


def meaning(data: bytes) -> Any:
    return translate(FrameReader({NONCE}, 0).feed(data)[0], "dep_1", NOBODY)


def test_a_chunk_of_lines_is_one_event_a_line() -> None:
    [lines] = meaning(frame(1, s="stderr", l="error", text="a\n\nb")).drafts
    assert isinstance(lines, LogLines)
    assert (lines.messages, lines.level, lines.stream) == (["a", "", "b"], "error", "stderr")


def test_a_raw_or_partial_line_keeps_its_marks() -> None:
    [draft] = meaning(frame(1, s="stdout", l="info", text="a\ufffd", raw="Yf8=", partial=True)).drafts
    assert draft.data == {"message": "a\ufffd", "level": "info", "stream": "stdout", "raw": "Yf8=", "partial": True}


def test_a_claim_of_the_platforms_own_types_is_a_warning() -> None:
    [draft] = meaning(frame(1, "event", type="run.completed", data={})).drafts
    assert isinstance(draft, Draft)
    assert draft.type == "log"
    assert draft.data["level"] == "warning"


def test_an_oversized_claim_is_cut() -> None:
    [draft] = meaning(frame(1, "event", type="tool.called", data={"tool": "t", "input": "x" * 100_000})).drafts
    assert draft.data == {"tool": "t", "truncated": True}


def test_secrets_are_redacted_in_lines_claims_and_results() -> None:
    redactor = Redactor({"KEY": "sk-very-secret-value"})
    reader = FrameReader({NONCE}, 0)
    data = (
        frame(1, s="stdout", l="info", text="key sk-very-secret-value!")
        + frame(2, "event", type="tool.called", data={"input": {"k": ["sk-very-secret-value"]}})
        + frame(3, "result", ok=True, output={"k": "sk-very-secret-value"})
    )
    shown = [translate(f, "dep_1", redactor) for f in reader.feed(data)]
    assert "sk-very-secret-value" not in repr([m.drafts for m in shown])
    assert "sk-very-secret-value" not in repr(shown[2].body)


def test_end_and_result_are_facts() -> None:
    end = {"exit_code": 0, "signal": None, "result_at": 5, "sigterm_at": None, "cgroup": {"oom_kills": 1, "cpu_ms": 9}}
    facts = end_facts(end, result_facts({"ok": False, "error": {"code": "user_error", "message": "m", "hint": None}}))
    assert (facts.ok, facts.error_code, facts.oom_kills, facts.cpu_ms) == (False, "user_error", 1, 9)
    assert end_facts(end, None).ok is None


def test_the_exact_bytes_of_a_line_are_redacted_too() -> None:
    secret = "sk-live-0123456789abcdef"
    raw = base64.b64encode(b"\xff key=" + secret.encode()).decode()
    read = FrameReader({NONCE}, 0).feed(frame(1, s="stdout", l="info", text=f"\ufffd key={secret}", raw=raw))[0]
    [draft] = translate(read, "dep_1", Redactor({"API_KEY": secret})).drafts
    assert isinstance(draft, Draft)
    assert draft.data["message"] == "\ufffd key=[redacted:API_KEY]"
    assert base64.b64decode(draft.data["raw"]) == b"\xff key=[redacted:API_KEY]"


def test_a_value_that_a_claim_cuts_off_is_redacted() -> None:
    secret = "sk-live-0123456789abcdef"
    text = "x" * 100 + secret[:15] + "…"
    read = FrameReader({NONCE}, 0).feed(frame(1, t="event", type="custom", data={"value": text}))[0]
    [draft] = translate(read, "dep_1", Redactor({"API_KEY": secret})).drafts
    assert isinstance(draft, Draft)
    assert draft.data["value"] == "x" * 100 + "[redacted:API_KEY]…"


@pytest.mark.parametrize("port", [443, None, 0, "443", 10**6])
def test_what_a_crew_without_a_network_was_denied_is_taken_from_it(port: object) -> None:
    data = {"host": "api.example.com", "port": port, "protocol": "smoke", "more": 1}
    claim = {"n": 1, "k": "x", "at": 0, "t": "event", "type": "network.denied", "data": data}
    (told,) = translate(claim, "dep_1", Redactor({}), is_closed=True).drafts
    assert isinstance(told, Draft)
    assert told.type == "network.denied"
    assert told.data == {"host": "api.example.com", "port": 443 if port == 443 else None, "protocol": "tcp"}
    (refused,) = translate(claim, "dep_1", Redactor({})).drafts
    assert isinstance(refused, Draft)
    assert (refused.type, refused.data["source"]) == ("log", "crewship")
