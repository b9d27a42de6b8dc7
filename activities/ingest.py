"""Frames to events: what a container's supervisor says becomes the run's log.

A pure translation as far as events go (``translate``), so that a frame that is read twice gives the same events twice. The
protocol is ``docs/reference/frames.md``. Whatever has not the run's nonce is no frame, and whatever is not the next frame is
asked for again by ``replay``.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from activities.log_writer import LogLines
from crewship.clock import from_ms, rfc3339
from crewship.contracts import EndFacts, ResultFacts
from crewship.events import CLAIMED, Draft
from crewship.redaction import Redactor

_DATA_BYTES = 64 * 1024
"""Largest ``data`` of a claimed event; the supervisor caps at half of that."""
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


@dataclass(slots=True)
class Frame:
    """What one frame means."""

    n: int
    at_ms: int
    kind: str
    drafts: list[Draft | LogLines] = field(default_factory=list)
    urgent: bool = True
    body: dict[str, Any] = field(default_factory=dict)
    """The frame itself, strings redacted where they are shown."""


class FrameReader:
    """Cuts the container's stdout into frames and keeps their order.

    Args:
        after: The last ``n`` that is durable already.
    """

    def __init__(self, nonce: str, after: int) -> None:
        self._nonce = nonce
        self.last = after
        self._rest = b""
        self.replay_wanted = False
        """Whether a frame is missing; the owner sends ``replay`` and clears it."""

    def reset(self) -> None:
        """A new attachment: half a line of the old one is worth nothing."""
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The frames that ``data`` completes, in order, without gaps or repeats."""
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        frames = []
        for line in lines:
            frame = self._frame(line)
            if frame is None or frame["n"] <= self.last:
                continue
            if frame["n"] != self.last + 1:
                self.replay_wanted = True
                continue
            self.last += 1
            frames.append(frame)
        return frames

    def _frame(self, line: bytes) -> dict[str, Any] | None:
        if not line.startswith(b'{"n"'):
            return None
        try:
            frame = orjson.loads(line)
        except orjson.JSONDecodeError:
            frame = _lenient(line)
        if (
            isinstance(frame, dict)
            and frame.get("k") == self._nonce
            and isinstance(frame.get("n"), int)
            and isinstance(frame.get("at"), int)
            and isinstance(frame.get("t"), str)
        ):
            return frame
        return None


def translate(frame: dict[str, Any], deployment_id: str, redactor: Redactor) -> Frame:
    """What ``frame`` means; unknown types mean nothing."""
    kind, at = frame["t"], rfc3339(from_ms(frame["at"]))
    meaning = Frame(frame["n"], frame["at"], kind, body=frame)
    match kind:
        case "log":
            meaning.urgent = False
            text = redactor.redact(str(frame.get("text", "")))
            level = frame.get("l") if frame.get("l") in _LEVELS else "info"
            stream = "stderr" if frame.get("s") == "stderr" else "stdout"
            if "raw" in frame or frame.get("partial"):
                data: dict[str, Any] = {"message": text, "level": level, "stream": stream}
                if "raw" in frame:
                    raw = redactor.redact_bytes(base64.b64decode(str(frame["raw"])))
                    data |= {"message": raw.decode("utf-8", "replace"), "raw": base64.b64encode(raw).decode()}
                if frame.get("partial"):
                    data["partial"] = True
                meaning.drafts.append(Draft(at, "log", data))
            else:
                meaning.drafts.append(LogLines(at, text.split("\n"), str(level), stream))
        case "event":
            meaning.drafts.append(_claim(at, frame, redactor))
        case "notice":
            message = redactor.redact(str(frame.get("message", "")))
            level = frame.get("level") if frame.get("level") in _LEVELS else "warning"
            meaning.drafts.append(
                Draft(at, "log", {"message": message, "level": level, "stream": "stderr", "source": "crewship"})
            )
        case "artifact":
            data = {key: frame.get(key) for key in ("name", "size", "content_type")}
            meaning.drafts.append(Draft(at, "artifact", data))
        case "started":
            meaning.drafts.append(Draft(at, "run.started", {"deployment_id": deployment_id}))
        case "gap":
            data = {key: frame.get(key) for key in ("from", "to", "bytes")}
            meaning.drafts.append(Draft(at, "log.gap", data))
        case "result":
            meaning.body = redactor.redact_json(frame)
        case _:
            pass
    return meaning


def result_facts(result: dict[str, Any]) -> ResultFacts:
    """The ``result`` frame as facts."""
    error = result.get("error") or {}
    return ResultFacts(
        ok=bool(result.get("ok")),
        code=error.get("code"),
        message=_cut(error.get("message"), 4000),
        hint=_cut(error.get("hint"), 1000),
    )


def end_facts(end: dict[str, Any], result: ResultFacts | None) -> EndFacts:
    """The ``end`` frame and, when there was one, the crew's result as facts."""
    cgroup = end.get("cgroup") or {}
    return EndFacts(
        exit_code=end.get("exit_code"),
        signal=end.get("signal"),
        ok=result.ok if result is not None else None,
        error_code=result.code if result is not None else None,
        error_message=result.message if result is not None else None,
        error_hint=result.hint if result is not None else None,
        result_at_ms=end.get("result_at"),
        sigterm_at_ms=end.get("sigterm_at"),
        oom_kills=cgroup.get("oom_kills"),
        pids_max_events=cgroup.get("pids_max_events"),
        memory_peak_bytes=cgroup.get("memory_peak_bytes"),
        cpu_ms=cgroup.get("cpu_ms"),
        disk_bytes=end.get("disk_bytes"),
        artifacts=end.get("artifacts"),
    )


def _claim(at: str, frame: dict[str, Any], redactor: Redactor) -> Draft:
    """An event that the crew's process claims; what is no such event is shown as a warning, not as what it claims to be."""
    type_, data = frame.get("type"), frame.get("data")
    if not isinstance(type_, str) or CLAIMED.fullmatch(type_) is None or not isinstance(data, dict):
        message = (
            f"an event of type {str(type_)[:100]!r} was refused: crews send agent.*, task.*, tool.*, llm.* and custom"
        )
        return Draft(at, "log", {"message": message, "level": "warning", "stream": "stderr", "source": "crewship"})
    data = redactor.redact_json(data)
    data.pop("at", None)  # the platform's own key on the wire
    if len(orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)) > _DATA_BYTES:
        data = {
            key: value for key, value in data.items() if isinstance(value, str | int | float) and len(str(value)) < 4096
        }
        data["truncated"] = True
    return Draft(at, type_, data)


def _cut(text: Any, length: int) -> str | None:
    return None if text is None else str(text)[:length]


def _lenient(line: bytes) -> Any:
    """JSON with lone surrogates, which Python's own writer lets through and strict readers refuse."""
    try:
        text = json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace")
        return orjson.loads(text)
    except ValueError:
        return None
