"""API keys over HTTP, and that every route says who may call it."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount

from api.app import create_app
from api.auth import Require
from crewship.clock import now, rfc3339
from crewship.keys import SCOPES, make_key
from crewship.models import ApiKey
from crewship.settings import Settings
from tests.api.conftest import ADMIN_KEY, Api, assert_problem

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/docs/static"}
"""What anybody may ask: whether it lives, and what calls there are."""


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


# --- every route ------------------------------------------------------------------------------------------------------


def routes_of(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, BaseRoute]]:
    """All routes with their whole paths, those of included routers too."""
    for route in routes:
        inner: Any = getattr(route, "original_router", None)
        if inner is not None:
            context: Any = getattr(route, "include_context")  # noqa: B009
            yield from routes_of(inner.routes, prefix + context.prefix)
        else:
            yield prefix + getattr(route, "path"), route  # noqa: B009


def scopes_of(dependant: Dependant) -> set[str]:
    """Scopes that a route's dependencies ask for."""
    found = {dependant.call.scope} if isinstance(dependant.call, Require) else set()
    return found.union(*map(scopes_of, dependant.dependencies))


def test_every_route_declares_its_scope(settings: Settings) -> None:
    app = create_app(settings)
    declared, undeclared = {}, set()
    for path, route in routes_of(app.routes):
        if isinstance(route, APIRoute) and (scopes := scopes_of(route.dependant)):
            declared |= {(method, path): scopes for method in route.methods}
        else:
            assert isinstance(route, Mount) or getattr(route, "methods", None), route
            undeclared.add(path)
    assert undeclared == OPEN
    assert all(scopes <= set(SCOPES) for scopes in declared.values())
    # Nothing that the document has was missed on the walk.
    documented = {(m.upper(), path) for path, calls in app.openapi()["paths"].items() for m in calls}
    assert {call for call in documented if call[1] not in OPEN} <= {
        (method, re.sub(r":\w+}", "}", path)) for method, path in declared
    }
    assert declared["POST", "/v1/keys"] == {"admin"}
    assert declared["PATCH", "/v1/projects/{project}/env"] == {"env"}


async def test_a_key_without_scopes_may_do_nothing(ready: Api) -> None:
    key = make_key("none", [])
    ready.add(key.row)
    for path, operations in create_app(ready.settings).openapi()["paths"].items():
        for method in operations:
            body = {"json": {"name": "x", "scopes": ["read"]}} if (method, path) == ("post", "/v1/keys") else {}
            body = {"json": {"name": "x"}} if (method, path) == ("post", "/v1/projects") else body
            response = await ready.http.request(
                method, re.sub(r"\{[^}]+\}", "x", path), headers=bearer(key.secret), **body
            )
            expected = {200} if path in OPEN else {403, 422}
            assert response.status_code in expected, (method, path)
            if response.status_code == 422:  # its body is read first; with one it is 403 as well
                assert (method, path) in NEEDS_A_BODY


NEEDS_A_BODY = {("patch", "/v1/projects/{project}/env"), ("post", "/v1/runs"), ("post", "/v1/runs/cancel")}


# --- making and revoking ----------------------------------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_stored_nowhere(ready: Api) -> None:
    response = await ready.http.post("/v1/keys", json={"name": " ci ", "scopes": ["invoke", "deploy", "invoke"]})
    made = response.json()
    assert (response.status_code, response.headers["location"]) == (201, f"/v1/keys/{made['id']}")
    assert response.headers["cache-control"] == "no-store"
    assert (made["name"], made["scopes"], made["status"]) == ("ci", ["deploy", "invoke"], "active")
    secret = made.pop("key")
    assert secret.startswith(made["prefix"])
    assert len(secret) > 40
    listed = await ready.http.get("/v1/keys")
    assert listed.json()["keys"][0] == made
    assert (await ready.http.get(f"/v1/keys/{made['id']}")).json() == made
    audited = await ready.http.get("/v1/audit")
    row: ApiKey = ready.row(ApiKey, made["id"])
    for text in (listed.text, audited.text, row.model_dump_json()):
        assert secret not in text
        assert secret[len(made["prefix"]) :] not in text
    own = (await ready.http.get("/v1/keys/current", headers=bearer(secret))).json()
    assert (own["id"], own["last_used_at"] is not None) == (made["id"], True)


async def test_a_revoked_key_is_refused_from_the_next_call_on(ready: Api) -> None:
    made = (await ready.http.post("/v1/keys", json={"name": "ci", "scopes": ["read"]})).json()
    assert (await ready.http.get("/v1/runs", headers=bearer(made["key"]))).status_code == 200
    assert (await ready.http.delete(f"/v1/keys/{made['id']}")).status_code == 204
    assert_problem(await ready.http.get("/v1/runs", headers=bearer(made["key"])), 401, "unauthorized")
    assert (await ready.http.delete(f"/v1/keys/{made['id']}")).status_code == 204
    shown = (await ready.http.get(f"/v1/keys/{made['id']}")).json()
    assert (shown["status"], shown["revoked_at"] is not None) == ("revoked", True)
    assert made["id"] not in (await ready.http.get("/v1/keys")).text
    assert made["id"] in (await ready.http.get("/v1/keys?include_revoked=true")).text
    entries = (await ready.http.get("/v1/audit?action=key.revoked")).json()["audit"]
    assert [(entry["target"], entry["before"]["name"], entry["after"]) for entry in entries] == [
        (made["id"], "ci", None)
    ]


async def test_the_last_admin_key_cannot_be_revoked(ready: Api) -> None:
    own = (await ready.http.get("/v1/keys/current")).json()
    problem = assert_problem(await ready.http.delete(f"/v1/keys/{own['id']}"), 409, "last_admin_key")
    assert "crewship keys create" in problem["hint"]
    assert (await ready.http.get("/v1/keys/current")).json() == own
    assert (await ready.http.get("/v1/audit?action=key.revoked")).json()["audit"] == []


async def test_a_key_that_expires(ready: Api) -> None:
    soon = rfc3339(now() + timedelta(hours=1))
    body = {"name": "k", "scopes": ["read"], "expires_at": soon}
    made = (await ready.http.post("/v1/keys", json=body)).json()
    assert made["expires_at"] == soon
    assert (await ready.http.get("/v1/runs", headers=bearer(made["key"]))).status_code == 200
    expired = make_key("old", ["read"], expires_at=now())
    ready.add(expired.row)
    assert_problem(await ready.http.get("/v1/runs", headers=bearer(expired.secret)), 401, "unauthorized")
    assert (await ready.http.get(f"/v1/keys/{expired.row.id}")).json()["status"] == "expired"


async def test_a_projects_admin_sees_and_makes_its_keys_only(ready: Api) -> None:
    made = await ready.http.post("/v1/keys", json={"name": "crew", "scopes": ["admin"], "project": "crew"})
    crew = bearer(made.json()["key"])
    other = (await ready.http.post("/v1/keys", json={"name": "o", "scopes": ["read"], "project": "other"})).json()
    assert [item["name"] for item in (await ready.http.get("/v1/keys", headers=crew)).json()["keys"]] == ["crew"]
    child = await ready.http.post("/v1/keys", json={"name": "c", "scopes": ["admin"]}, headers=crew)
    assert child.json()["project"] == "crew"
    refused = await ready.http.post(
        "/v1/keys", json={"name": "c", "scopes": ["read"], "project": "other"}, headers=crew
    )
    assert_problem(refused, 403, "forbidden")
    for call in ("GET", "DELETE"):
        assert_problem(await ready.http.request(call, f"/v1/keys/{other['id']}", headers=crew), 404, "key_not_found")
    seen = (await ready.http.get("/v1/audit", headers=crew)).json()["audit"]
    assert {entry["project"] for entry in seen} == {"crew"}
    assert {entry["action"] for entry in seen} == {"key.created"}


async def test_keys_come_in_pages(ready: Api) -> None:
    for number in range(4):
        await ready.http.post("/v1/keys", json={"name": f"k{number}", "scopes": ["read"]})
    names, cursor = [], ""
    while True:
        page = (await ready.http.get(f"/v1/keys?limit=2{cursor}")).json()
        names += [item["name"] for item in page["keys"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(names) == ["admin", "k0", "k1", "k2", "k3"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "validation_error"),
        ({"name": "", "scopes": ["read"]}, 422, "validation_error"),
        ({"name": "a\x00b", "scopes": ["read"]}, 422, "validation_error"),
        ({"name": "k", "scopes": []}, 422, "validation_error"),
        ({"name": "k", "scopes": ["root"]}, 422, "validation_error"),
        ({"name": "k", "scopes": ["read"], "key": ADMIN_KEY}, 422, "validation_error"),
        ({"name": "k", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, 422, "validation_error"),
        ({"name": "k", "scopes": ["read"], "expires_at": "9999-12-31T23:59:59-12:00"}, 422, "validation_error"),
        ({"name": "k", "scopes": ["read"], "project": "Not A Name"}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_a_key(ready: Api, body: dict[str, Any], status: int, code: str) -> None:
    assert assert_problem(await ready.http.post("/v1/keys", json=body), status, code)["hint"]
    assert len((await ready.http.get("/v1/keys")).json()["keys"]) == 1


async def test_values_previews_are_for_who_may_set_them(ready: Api) -> None:
    await ready.http.patch("/v1/projects/crew/env", json={"set": {"API_KEY": "a-long-enough-secret-1234"}})
    shown = {}
    for scope in ("read", "deploy", "env"):
        key = make_key(scope, [scope])
        ready.add(key.row)
        answer = await ready.http.get("/v1/projects/crew/env", headers=bearer(key.secret))
        shown[scope] = answer.json()["env"][0]["preview"]
    assert shown == {"read": "…", "deploy": "…", "env": "…1234"}
