"""What a crew may return, what is refused, and how events are cut to size."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import types
import uuid
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.bounds import EVENT_LIMIT_BYTES, STRING_LIMIT_BYTES, bounded, cut
from runtime.encode import InvalidOutput, encode
from runtime.wire import Lines, dumps, loads

from .harness import complete, crew

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(JSON)
def test_json_is_itself(value: Any) -> None:
    assert encode(value) == value
    line = dumps(encode(value)).encode("utf-8", "replace")
    assert b"\n" not in line
    assert json.loads(line) == loads(line.decode())


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Model(pydantic.BaseModel):
    name: str
    when: datetime.date
    key: pydantic.SecretStr = pydantic.SecretStr("s3cret")


class Loose(pydantic.BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    thing: Any


@dataclasses.dataclass
class Point:
    x: int
    tags: set[str]


class Pair(collections.namedtuple("Pair", "a b")):
    pass


class Str(str):
    pass


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset(), []),
        (
            {1: "a", None: "b", False: "c", 2.5: "d"},
            {"1": "a", "null": "b", "false": "c", "2.5": "d"},
        ),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Str("text"), "text"),
        (math.nan, None),
        (math.inf, None),
        (b"\xff", {"base64": "/w=="}),
        (datetime.datetime(2026, 1, 31, 9, 5, tzinfo=datetime.UTC), "2026-01-31T09:05:00+00:00"),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.timedelta(minutes=1), 60.0),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Model(name="n", when=datetime.date(2026, 1, 31)), {"name": "n", "when": "2026-01-31", "key": "**********"}),
        (Loose(thing=Point(1, {"t"})), {"thing": {"x": 1, "tags": ["t"]}}),
        (Point(1, {"b", "a"}), {"x": 1, "tags": ["a", "b"]}),
        (Pair(1, 2), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.deque([1, 2]), [1, 2]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
    ],
)
def test_known_types(value: Any, output: Any) -> None:
    assert encode(value) == output


class Secretive:
    pass


def _cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    return value


def _deep() -> Any:
    value: Any = 1
    for _ in range(300):
        value = [value]
    return value


class Angry(pydantic.BaseModel):
    @property
    def nothing(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Secretive(), "output: tests.runtime.test_output.Secretive is nothing that JSON can hold"),
        ({"rows": [1, {"cell": Secretive()}]}, 'output["rows"][1]["cell"]: tests'),
        (Loose(thing=Secretive()), 'output["thing"]: tests'),
        (lambda: None, "output: function"),
        ((n for n in range(3)), "output: generator"),
        ({(1, 2): 3}, "output has a key of type tuple"),
        (_cycle(), 'output["a"][0] contains itself'),
        (_deep(), "deeper than 200"),
        ([2**64], "output[0] is an integer of more than 64 bits"),
        ("x" * (4 << 20), "4,194,306 bytes; 4,194,304 are allowed"),
        (Secretive, "output: type"),
    ],
)
def test_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidOutput) as refused:
        encode(value)
    assert message in str(refused.value)
    assert refused.value.hint


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [1]
    assert encode([shared, shared]) == [[1], [1]]


def test_invalid_output_over_the_wire(tmp_path: Path) -> None:
    run = complete(tmp_path, crew("def kickoff(inputs):\n    return {'file': open('main.py')}\n"))
    assert run.error["code"] == "invalid_output"
    assert run.error["message"] == 'output["file"]: _io.TextIOWrapper is nothing that JSON can hold.'
    assert run.of("end")[0]["exit_code"] == 1


def test_a_large_output_and_lone_surrogates(tmp_path: Path) -> None:
    code = crew("def kickoff(inputs):\n    return ['\\x01' * 500_000, '\\udcff', inputs['text']]\n")
    run = complete(tmp_path, code, {"text": "ü" * 400_000})
    assert run.output == ["\x01" * 500_000, "?", "ü" * 400_000]


ODD = st.sampled_from(
    [Secretive(), 2**80, math.nan, b"\xff" * 9000, "x" * 9000, "\x01" * 4000, "ü" * 3000, Point(1, set())]
)


@given(st.dictionaries(st.text(), JSON | st.lists(JSON | ODD, max_size=50), max_size=20))
def test_events_are_bounded_whatever_is_in_them(data: dict[str, Any]) -> None:
    out = bounded(data)
    assert len(dumps(out).encode("utf-8", "replace")) <= EVENT_LIMIT_BYTES


def test_a_small_event_is_itself_and_a_large_one_keeps_its_beginning() -> None:
    data = {"agent": "Researcher", "input": {"query": "ships", "n": [1, 2.5, None, True]}}
    assert bounded(data) == data
    large = bounded({"tool": "search", "input": ["x" * 10_000] * 100})
    assert large["tool"] == "search"
    assert large["input"][0].endswith("…")
    assert len(large["input"][0].encode()) <= STRING_LIMIT_BYTES
    assert 1 < len(large["input"]) < 12
    assert bounded(_cycle())["a"]
    assert bounded({"thing": Secretive()})["thing"].startswith("<tests.runtime")


@given(st.text(), st.integers(3, 50))
def test_cut(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short.encode("utf-8", "replace")) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a":1}x', "nul", '"', "[" * 100_000, "\ud800"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever the scanner says)
        loads(text)


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b), max_size=20), st.integers(1, 7))
def test_lines(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    cutter = Lines(1000)
    got = [line for start in range(0, len(data), size) for line in cutter.feed(data[start : start + size])]
    assert got == lines
    assert cutter.rest == b""


def test_a_line_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        Lines(10).feed(b"x" * 11)


class Float32:
    """As numpy's scalars are: no float, but one ``tolist`` away from it."""

    __module__ = "numpy"

    def __init__(self, value: float) -> None:
        self._value = value

    def tolist(self) -> float:
        return self._value

    def __float__(self) -> float:
        return self._value


def test_a_number_that_json_has_not_is_told_once_with_its_place() -> None:
    told: list[str] = []
    value = {"rows": [1.0, {"mean": math.nan}, -math.inf, Float32(math.inf), Float32(2.5)], "none": None}
    assert encode(value, told.append) == {"rows": [1.0, {"mean": None}, None, None, 2.5], "none": None}
    (line,) = told
    assert line.startswith('output["rows"][1]["mean"] is NaN or infinite, as are 2 more places.')


def test_it_is_told_in_the_runs_log(tmp_path: Path) -> None:
    run = complete(tmp_path, crew("def kickoff(inputs):\n    return {'mean': float('nan')}\n"))
    assert run.output == {"mean": None}
    (notice,) = run.of("notice")
    assert notice["level"] == "warning"
    assert notice["message"].startswith('output["mean"] is NaN or infinite.')


@pytest.mark.parametrize("value", [None, {"a": None}, 1e308, pydantic.SecretStr("x"), decimal.Decimal("NaN")])
def test_what_was_no_such_number_is_not_told(value: Any) -> None:
    told: list[str] = []
    encode(value, told.append)
    assert told == []
