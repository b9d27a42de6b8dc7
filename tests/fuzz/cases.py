"""Cases for every operation of the API's own document: what its schemas allow, what they do not, and ways to what is there.

Schemathesis makes the values. By themselves they meet nothing but *not found*, so ids, positions, ranges and uploads are
exchanged, in part of the cases, for ones that lead somewhere.
"""

import base64
from typing import Any
from urllib.parse import quote

import schemathesis
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode

from tests.fixtures.platform import pack
from tests.fuzz.platform import ARTIFACTS, DEPLOYMENTS, KEYS, PARTS, PROJECTS, RUNS, UPLOADING, UPLOADS

Draw = Any
NAMES = {
    "project": PROJECTS,
    "run_id": RUNS,
    "deployment_id": DEPLOYMENTS,
    "other_id": DEPLOYMENTS,
    "name": ARTIFACTS,
    "key_id": KEYS,
    "sha256": UPLOADS,
    "number": PARTS,
}
POSITIONS = st.one_of(st.integers(-1, 5).map(str), st.sampled_from(["1e0", "9" * 19, "0x1", "1_0", "³", ""]))
TYPES = st.lists(
    st.sampled_from(["log", "run.completed", "deployment.ready", "custom", "nothing", ""]), min_size=1, max_size=3
).map(",".join)
CURSORS = st.one_of(
    st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
    st.lists(st.one_of(st.text(max_size=20), st.integers(), st.none()), max_size=3).map(
        lambda place: base64.urlsafe_b64encode(repr(place).replace("'", '"').encode()).decode()
    ),
    st.sampled_from(
        ['["2026-01-01T00:00:00+00:00", "run_1"]', '["0001-01-01", "x"]', '["9999-12-31T23:59:59-23:59", ""]']
    ).map(lambda place: base64.urlsafe_b64encode(place.encode()).decode()),
)
HEADERS = {
    "Accept": st.sampled_from(
        ["*/*", "text/event-stream", "application/x-ndjson", "text/html", "application/json;q=0"]
    ),
    "Range": st.one_of(
        st.builds("bytes={}-{}".format, st.integers(0, 4000) | st.just(""), st.integers(0, 4000) | st.just("")),
        st.sampled_from(["bytes=0-0,5-6", "lines=1-2", "bytes=", "bytes=99999999999999999999999-", "bytes=-0"]),
    ),
    "If-None-Match": st.sampled_from(['"x"', '"y"', "*", '"x"', 'W/"x", "y"']),
    "Idempotency-Key": st.sampled_from(["a", "b", "x" * 255, "x" * 256, ""]),
    "Last-Event-ID": POSITIONS,
}
TOML = b'[deployment]\nframework = "python"\nentrypoint = "main:kickoff"\n'
SOURCES = st.one_of(
    st.just(pack({"crewship.toml": TOML, "main.py": "def kickoff(inputs): return inputs\n"})),
    st.binary(max_size=300).map(lambda text: pack({"crewship.toml": text})),
    st.text(max_size=60).map(lambda text: pack({"crewship.toml": TOML + text.encode("utf-8", "replace"), "main.py": ""})),
    st.binary(max_size=100),
)  # fmt: skip


def operations(url: str) -> list[APIOperation]:
    """All of the document at ``url``."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


@st.composite
def cases(draw: Draw, operation: APIOperation, key: str) -> Case:
    """One call of ``operation``, nearly always with ``key``."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except schemathesis.errors.InvalidSchema:
        strategy = operation.as_strategy()
    case: Case = draw(strategy)
    sometimes = st.sampled_from([True, True, True, False])
    for name in list(case.path_parameters or {}):
        if name in NAMES and draw(sometimes):
            case.path_parameters[name] = quote(draw(st.sampled_from(NAMES[name])), safe="")
    query = case.query if isinstance(case.query, dict) else None
    if query is not None:
        for name, values in {**{key: st.sampled_from(value) for key, value in NAMES.items()}, **QUERY}.items():
            if name in query and draw(sometimes):
                query[name] = draw(values)
    for name, values in HEADERS.items():
        if draw(sometimes if name in USED.get(operation.label, ()) else st.booleans()):
            case.headers[name] = draw(values)
    if draw(st.integers(0, 15)) != 9:  # not 0, which is drawn more often
        case.headers["Authorization"] = f"Bearer {key}"
    if operation.label == PUT_PART and draw(sometimes):
        case.body = UPLOADING
    elif operation.label in GOOD and draw(st.booleans()):
        case.body, case.media_type = draw(GOOD[operation.label]), "application/json"
    elif isinstance(case.body, dict):
        for name in ("project", "deployment_id"):
            if name in case.body and draw(sometimes):
                case.body[name] = draw(st.sampled_from(NAMES[name]))
        if "run_ids" in case.body and draw(sometimes):
            case.body["run_ids"] = draw(st.lists(st.sampled_from(RUNS), max_size=4))
        if "source" in case.body and draw(sometimes):
            case.body["source"] = draw(SOURCES)
        if "source_sha256" in case.body and draw(sometimes):
            case.body["source_sha256"] = draw(st.sampled_from(UPLOADS))
    return case


PUT_PART = "PUT /v1/projects/{project}/uploads/{sha256}/parts/{number}"
USED = {
    "GET /v1/runs/{run_id}/artifacts/{name}": ("Range", "If-None-Match"),
    "GET /v1/runs/{run_id}/events": ("Last-Event-ID", "Accept"),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "POST /v1/projects": st.builds("p{}".format, st.integers(0)).map(lambda name: {"name": name}),
    "PATCH /v1/projects/{project}/env": st.fixed_dictionaries(
        {}, optional={
            "set": st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(max_size=30), max_size=3),
            "unset": st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), max_size=3),
        },
    ),
    "POST /v1/projects/{project}/uploads": st.fixed_dictionaries(
        {"source_sha256": st.sampled_from(UPLOADS), "size_bytes": st.sampled_from([len(UPLOADING), 10_000_000])}
    ),
    "POST /v1/projects/{project}/rollback": st.sampled_from(
        [{}, *({"deployment_id": name} for name in DEPLOYMENTS)]
    ),
    "POST /v1/runs": st.fixed_dictionaries(
        {"project": st.just("crew"), "input": st.dictionaries(st.text(max_size=10), JSON, max_size=4)},
        optional={
            "labels": st.dictionaries(st.from_regex(r"[a-z/.]{1,9}", fullmatch=True), st.text(max_size=30), max_size=3),
            "timeout_seconds": st.integers(1, 100_000),
            "priority": st.integers(1, 5),
        },
    ),
    "POST /v1/runs/cancel": st.fixed_dictionaries(
        {"project": st.just("crew")},
        optional={"status": st.sampled_from(["pending", "running"]), "force": st.booleans()},
    ),
}  # fmt: skip
"""Bodies that are as they should be."""
QUERY: dict[str, st.SearchStrategy[Any]] = {
    "after": POSITIONS,
    "types": TYPES,
    "cursor": CURSORS,
    "wait": st.sampled_from(["0", "0.01", "-1", "61", "nan", "inf", "1e400"]),
    "label": st.lists(st.sampled_from(["a:b", "a", ":", "a:b:c", "\0:x"]), max_size=2),
    "since": st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "now"]),
}
