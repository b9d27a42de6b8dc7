"""One shape on every error path."""

import re
from typing import Any

import pytest

from api.app import create_app
from crewship.contracts import RollbackResult
from crewship.models import Project
from tests.api.conftest import Api, assert_problem

_JSON = {"content-type": "application/json"}

PATHS: list[tuple[str, str, dict[str, Any], int, str]] = [
    # the router's own
    ("GET", "/nothing", {}, 404, "not_found"),
    ("GET", "/v1/nothing", {}, 404, "not_found"),
    ("POST", "/v1/runs/", {"json": {"project": "crew"}}, 404, "not_found"),
    ("PUT", "/v1/runs", {}, 405, "method_not_allowed"),
    ("DELETE", "/healthz", {}, 405, "method_not_allowed"),
    # who
    ("GET", "/v1/runs", {"headers": {"authorization": "Bearer wrong"}}, 401, "unauthorized"),
    ("GET", "/v1/runs", {"headers": {"authorization": "Basic eDp5"}}, 401, "unauthorized"),
    ("GET", "/v1/runs", {"headers": {"authorization": ""}}, 401, "unauthorized"),
    ("GET", "/metrics", {"headers": {"authorization": ""}}, 401, "unauthorized"),
    # what is not there
    ("GET", "/v1/projects/nobody", {}, 404, "project_not_found"),
    ("DELETE", "/v1/projects/nobody", {}, 404, "project_not_found"),
    ("GET", "/v1/projects/nobody/env", {}, 404, "project_not_found"),
    ("GET", "/v1/projects/nobody/deployments", {}, 404, "project_not_found"),
    ("GET", "/v1/projects/a%00b", {}, 404, "project_not_found"),
    ("POST", "/v1/projects/nobody/rollback", {"json": {}}, 404, "project_not_found"),
    ("POST", "/v1/projects/crew/rollback", {"json": {"deployment_id": "dep_x"}}, 404, "deployment_not_found"),
    ("POST", "/v1/projects/crew/rollback", {"json": {}}, 409, "no_previous_deployment"),
    ("GET", "/v1/deployments/dep_x", {}, 404, "deployment_not_found"),
    ("GET", "/v1/deployments/dep_x/events", {}, 404, "deployment_not_found"),
    ("GET", "/v1/runs/run_x", {}, 404, "run_not_found"),
    ("GET", "/v1/runs/run_x?wait=1", {}, 404, "run_not_found"),
    ("GET", "/v1/runs/run_x/events", {}, 404, "run_not_found"),
    ("GET", "/v1/runs/run_x/artifacts", {}, 404, "run_not_found"),
    ("GET", "/v1/runs/run_x/artifacts/a.txt", {}, 404, "run_not_found"),
    ("POST", "/v1/runs/run_x/cancel", {}, 404, "run_not_found"),
    ("POST", "/v1/runs/run_x/stream-token", {}, 404, "run_not_found"),
    # what cannot be right
    ("POST", "/v1/runs", {"content": b"{", "headers": _JSON}, 400, "invalid_request"),
    ("POST", "/v1/runs", {"content": b'{"project":"\xff"}', "headers": _JSON}, 400, "invalid_request"),
    ("POST", "/v1/runs", {"content": b"[" * 100_000, "headers": _JSON}, 400, "invalid_request"),
    ("POST", "/v1/runs", {"content": b'{"input":{"a":' + b"1" * 5000 + b"}}", "headers": _JSON}, 400, "invalid_request"),
    ("POST", "/v1/runs", {"content": b'{"project":"crew"}'}, 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {"data": {"project": "crew"}}, 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {"headers": _JSON}, 422, "validation_error"),
    ("POST", "/v1/runs/run_x/cancel", {"content": b'{"force":true}'}, 415, "unsupported_media_type"),
    ("POST", "/v1/runs", {"json": {"project": "nobody"}}, 404, "project_not_found"),
    ("POST", "/v1/runs", {"json": {"deployment_id": "dep_x"}}, 404, "deployment_not_found"),
    ("POST", "/v1/runs", {"json": {"deployment_id": "dep_1", "project": "other"}}, 400, "invalid_request"),
    ("POST", "/v1/runs", {"json": {}}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": []}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "input": "text"}}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "timeout_seconds": 0}}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "timeout_seconds": 10**9}}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "labels": {"": "x"}}}, 422, "validation_error"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "inputs": {}}}, 422, "validation_error"),
    (
        "POST", "/v1/runs", {"content": rb'{"project":"crew","input":{"a":"\ud800"}}', "headers": _JSON},
        422, "validation_error",
    ),
    ("POST", "/v1/runs", {"json": {"project": "crew", "input": {"a": "x" * 100_001}}}, 413, "too_large"),
    ("POST", "/v1/runs", {"json": {"project": "crew", "input": {"a": "x" * 300_000}}}, 413, "too_large"),
    ("POST", "/v1/runs", {"content": iter([b"x" * 300_000]), "headers": _JSON}, 413, "too_large"),
    ("POST", "/v1/runs", {"json": {}, "headers": {"idempotency-key": ""}}, 422, "validation_error"),
    ("GET", "/v1/runs?project=nobody", {}, 404, "project_not_found"),
    ("GET", "/v1/runs?deployment_id=dep_x", {}, 404, "deployment_not_found"),
    ("POST", "/v1/runs/cancel", {"json": {"project": "nobody"}}, 404, "project_not_found"),
    ("POST", "/v1/runs/cancel", {"json": {"deployment_id": "dep_x"}}, 404, "deployment_not_found"),
    ("POST", "/v1/runs/cancel", {"json": {}}, 422, "validation_error"),
    ("GET", "/v1/runs?limit=0", {}, 422, "validation_error"),
    ("GET", "/v1/runs?limit=201", {}, 422, "validation_error"),
    ("GET", "/v1/runs?limit=many", {}, 422, "validation_error"),
    ("GET", "/v1/runs?status=odd", {}, 422, "validation_error"),
    ("GET", "/v1/runs?since=yesterday", {}, 422, "validation_error"),
    ("GET", "/v1/runs?label=nocolon", {}, 400, "invalid_request"),
    ("GET", "/v1/runs?cursor=garbage", {}, 400, "invalid_cursor"),
    ("GET", "/v1/runs?cursor=WyJub3QgYSB0aW1lIiwgInJ1bl8xIl0", {}, 400, "invalid_cursor"),
    ("GET", "/v1/projects?cursor=WzFd", {}, 400, "invalid_cursor"),
    ("GET", "/v1/runs/run_x?wait=61", {}, 422, "validation_error"),
    ("POST", "/v1/projects", {"json": {"name": "Not A Name"}}, 400, "invalid_request"),
    ("POST", "/v1/projects", {"json": {"name": ""}}, 400, "invalid_request"),
    ("POST", "/v1/projects", {"json": {"name": "crew"}}, 409, "project_exists"),
    ("PATCH", "/v1/projects/crew/env", {"json": {"set": {"1A": "x"}}}, 422, "validation_error"),
    ("PATCH", "/v1/projects/crew/env", {"json": {"set": {"A": 1}}}, 422, "validation_error"),
    ("PATCH", "/v1/projects/crew/env", {"json": {"set": {"A": "a\0b"}}}, 422, "validation_error"),
    ("PATCH", "/v1/projects/crew/env", {"json": {"set": {"A": "x"}, "unset": ["A"]}}, 422, "validation_error"),
    ("PATCH", "/v1/projects/Crew/env", {"json": {"set": {"A": "x"}}}, 400, "invalid_request"),
    ("POST", "/v1/projects/crew/deployments", {"json": {}}, 422, "validation_error"),
    ("POST", "/v1/projects/crew/deployments", {"data": {"source": "text"}}, 422, "validation_error"),
    ("POST", "/v1/projects/crew/deployments", {"files": {"source": b"not a tar"}}, 400, "invalid_source"),
    ("POST", "/v1/projects/crew/deployments", {"files": {"source": b"x" * 2_000_000}}, 413, "too_large"),
    (
        "POST", "/v1/projects/crew/deployments",
        {"content": b"garbage", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400, "invalid_request",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "arguments", "status", "code"), PATHS)
async def test_every_error_has_one_shape(
    ready: Api, method: str, path: str, arguments: dict[str, Any], status: int, code: str
) -> None:
    content = arguments.get("content")
    if content is not None and not isinstance(content, bytes):
        body = list(content)

        async def chunks() -> Any:
            for chunk in body:
                yield chunk

        arguments = {**arguments, "content": chunks()}
    problem = assert_problem(await ready.http.request(method, path, **arguments), status, code)
    assert problem["hint"], "the caller is to know what to do"
    if status == 422:
        assert all({"pointer", "detail"} == error.keys() for error in problem["errors"]), problem


@pytest.mark.parametrize(
    ("method", "path", "arguments", "down"),
    [
        ("POST", "/v1/runs", {"json": {"project": "crew"}}, "check"),
        ("POST", "/v1/runs", {"json": {"project": "crew"}}, "start_run"),
        ("POST", "/v1/projects/crew/rollback", {"json": {"deployment_id": "dep_2"}}, "rollback"),
        ("DELETE", "/v1/projects/crew", {}, "check"),
        ("DELETE", "/v1/projects/crew", {}, "start_project_deletion"),
        ("POST", "/v1/projects/crew/deployments", {"files": {"source": b""}}, "check"),
        ("GET", "/readyz", {}, "check"),
    ],
)
async def test_what_is_down_is_said(ready: Api, method: str, path: str, arguments: dict[str, Any], down: str) -> None:
    ready.dispatch.down.add(down)
    response = await ready.http.request(method, path, **arguments)
    problem = assert_problem(response, 503, "unavailable")
    assert "Temporal" in problem["detail"]
    assert problem["hint"] == "crewship doctor"


async def test_a_pointer_leads_to_the_place(ready: Api) -> None:
    response = await ready.http.post("/v1/runs", json={"project": "crew", "input": [], "labels": {"a": 1}})
    assert response.json()["errors"] == [
        {"pointer": "/input", "detail": "must be an object"},
        {"pointer": "/labels/a", "detail": "must be a string"},
    ]
    response = await ready.http.get("/v1/runs?limit=0")
    assert response.json()["errors"][0]["pointer"] == "query/limit"


@pytest.mark.parametrize(
    ("value", "pointer", "detail"),
    [
        (b'{"a":NaN}', "/input/a", "must be a finite number"),
        (b'{"a":[0,1e999]}', "/input/a/1", "must be a finite number"),
        (b'{"a/b":18446744073709551616}', "/input/a~1b", "must be an integer of at most 64 bits"),
        (rb'{"a":"\ud83d"}', "/input/a", "must be whole Unicode characters"),
        (rb'{"\ud83d":1}', "/input", "must be whole Unicode characters"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "/input", "is nested deeper than 250 levels"),
        (b'{"a":' * 251 + b"1" + b"}" * 251, "/input", "is nested deeper than 250 levels"),
    ],
)
async def test_what_an_input_cannot_hold_is_named(ready: Api, value: bytes, pointer: str, detail: str) -> None:
    response = await ready.http.post("/v1/runs", content=b'{"project":"crew","input":%b}' % value, headers=_JSON)
    problem = assert_problem(response, 422, "validation_error")
    assert problem["errors"] == [{"pointer": pointer, "detail": detail}]
    assert problem["hint"]


async def test_what_an_input_can_hold_comes_back(ready: Api) -> None:
    value: dict[str, Any] = {
        "number": -(1 << 63),
        "large": (1 << 64) - 1,
        "text": "\U0001f600",
        "no": None,
        "yes": True,
    }
    for _ in range(249):
        value = {"a": value}
    run = (await ready.http.post("/v1/runs", json={"project": "crew", "input": value})).json()
    assert run["input"] == value
    assert (await ready.http.get(f"/v1/runs/{run['id']}")).json()["input"] == value


@pytest.mark.parametrize(
    ("method", "path", "arguments", "hint"),
    [
        ("POST", "/v1/runs", {"json": {"project": "crew", "inputs": {}}}, "do you mean input?"),
        ("POST", "/v1/projects", {"json": {"name": "new", "zzz": {}}}, "known fields are name"),
        ("POST", "/v1/projects/crew/rollback", {"json": {"deployment": "dep_1"}}, "do you mean deployment_id?"),
        ("GET", "/v1/runs?status=bogus", {}, "known values are 'pending', 'running', 'succeeded', 'failed' or 'canceled'"),
        ("GET", "/v1/runs/run_x?wait=61", {}, "give 60 or less"),
        ("POST", "/v1/runs", {"content": b"{}"}, "add the header Content-Type: application/json"),
        ("POST", "/v1/runs/", {"json": {}}, "paths have no slash at their end: /v1/runs"),
        ("PUT", "/v1/runs", {}, "possible are GET, POST"),
        (
            "PATCH", "/v1/projects/crew/env", {"json": {"set": {"A": "a\0b"}}},
            "encode other bytes, in base64 for example",
        ),
        (
            "PATCH", "/v1/projects/crew/env", {"json": {"set": {"A": "x"}, "unset": ["A"]}},
            "leave it out of set or of unset",
        ),
    ],
)  # fmt: skip
async def test_a_hint_is_about_its_error(
    ready: Api, method: str, path: str, arguments: dict[str, Any], hint: str
) -> None:
    assert (await ready.http.request(method, path, **arguments)).json()["hint"] == hint


async def test_no_address_is_made_of_the_host_that_is_claimed(ready: Api) -> None:
    response = await ready.http.post("/v1/runs/", json={"project": "crew"}, headers={"host": "evil.example"})
    assert_problem(response, 404, "not_found")
    assert "evil.example" not in response.text + str(response.headers)


async def test_a_project_that_is_being_deleted_takes_no_work(ready: Api) -> None:
    ready.add(Project(name="leaving", deleting=True))
    response = await ready.http.patch("/v1/projects/leaving/env", json={"set": {"A": "x"}})
    assert assert_problem(response, 409, "project_deleting")["hint"]


async def test_headers_that_belong_to_an_error(ready: Api) -> None:
    assert (await ready.http.put("/v1/runs")).headers["allow"] == "GET, POST"
    response = await ready.http.get("/v1/runs", headers={"authorization": ""})
    assert response.headers["www-authenticate"] == "Bearer"
    ready.dispatch.down.add("check")
    assert (await ready.http.post("/v1/runs", json={"project": "crew"})).headers["retry-after"] == "1"


async def test_a_refused_rollback_keeps_its_code(ready: Api) -> None:
    ready.dispatch.rollback_result = RollbackResult(
        error_code="image_missing", error_detail="gone", error_hint="deploy"
    )
    response = await ready.http.post("/v1/projects/crew/rollback", json={"deployment_id": "dep_2"})
    assert assert_problem(response, 409, "image_missing")["hint"] == "deploy"


async def test_a_defect_tells_nothing_of_the_inside(ready: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ValueError("the inside")

    monkeypatch.setattr(ready.dispatch, "check", broken)
    response = await ready.http.post("/v1/runs", json={"project": "crew"})
    assert_problem(response, 500, "internal_error")
    assert "inside" not in response.json()["detail"].replace("inside the platform", "")


async def test_the_database_gone_is_unavailable(ready: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def broken(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("refused"))

    monkeypatch.setattr("sqlalchemy.engine.Engine.connect", broken)
    assert "database" in assert_problem(await ready.http.get("/v1/runs"), 503, "unavailable")["detail"]


async def test_every_route_declares_who_may_call_it(ready: Api) -> None:
    """By calling each without a key: all but the open ones are 401, before anything else is looked at."""
    document = create_app(ready.settings).openapi()
    for path, operations in document["paths"].items():
        for method in operations:
            response = await ready.http.request(method, re.sub(r"\{[^}]+\}", "x", path), headers={"authorization": ""})
            expected = 200 if path in ("/healthz", "/readyz") else 401
            assert response.status_code == expected, (method, path)
