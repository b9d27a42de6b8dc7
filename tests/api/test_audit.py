"""Every change has an entry, and no entry has a value."""

from typing import Any

import pytest

from api.app import create_app
from crewship.contracts import GarbageResult
from crewship.models import AuditEntry
from tests.api.conftest import Api, assert_problem, fill
from tests.api.test_deployments import upload

SECRET = "the-value-that-nobody-may-see-4711"

CHANGES: list[tuple[str, str, str, dict[str, Any], list[str]]] = [
    ("post", "/v1/projects", "", {"json": {"name": "new"}}, ["project.created"]),
    (
        "patch", "/v1/projects/{project}/env", "crew", {"json": {"set": {"A": SECRET}, "unset": ["B"]}}, ["env.changed"],
    ),
    (
        "patch", "/v1/projects/{project}/build-secrets", "crew", {"json": {"set": {"A": SECRET}}}, ["build_secrets.changed"],
    ),
    ("post", "/v1/projects/{project}/deployments", "crew", {}, ["deployment.created"]),
    ("post", "/v1/deployments/{deployment_id}/cancel", "DEPLOYMENT", {}, ["deployment.canceled"]),
    ("post", "/v1/runs", "", {"json": {"project": "crew", "input": {"a": SECRET}}}, ["run.created"]),
    ("post", "/v1/runs/{run_id}/cancel", "RUN", {"json": {}}, ["run.canceled"]),
    ("post", "/v1/runs/cancel", "", {"json": {"project": "crew"}}, ["runs.canceled"]),
    ("post", "/v1/keys", "", {"json": {"name": "k", "scopes": ["read"]}}, ["key.created"]),
    ("delete", "/v1/keys/{key_id}", "KEY", {}, ["key.revoked"]),
    ("delete", "/v1/projects/{project}", "crew", {"params": {"force": True}}, ["project.deleted"]),
]  # fmt: skip
"""Method, route, what is in its path, the call, the entries it adds."""

ELSEWHERE = {
    ("post", "/v1/projects/{project}/rollback"): "the worker's switch writes it, in its transaction (tests/crewship)",
    ("post", "/v1/deployments/{deployment_id}/promote"): "as a rollback",
    ("post", "/v1/projects/{project}/uploads"): "nothing comes of it before a deployment does, which has its entry",
    ("put", "/v1/projects/{project}/uploads/{sha256}/parts/{number}"): "likewise",
    ("post", "/v1/gc"): "the worker writes what went (tests/activities)",
    ("post", "/v1/runs/{run_id}/stream-token"): "changes nothing",
}


async def entries(api: Api, query: str = "") -> list[dict[str, Any]]:
    response = await api.http.get(f"/v1/audit{query}")
    assert response.status_code == 200, response.text
    return list(response.json()["audit"])


async def test_every_call_that_changes_something_is_here(api: Api) -> None:
    documented = {
        (method, path)
        for path, calls in create_app(api.settings).openapi()["paths"].items()
        for method in calls
        if method != "get"
    }
    assert documented == {(method, path) for method, path, *_ in CHANGES} | set(ELSEWHERE)


@pytest.mark.parametrize(("method", "path", "name", "arguments", "actions"), CHANGES)
async def test_a_change_has_its_entry(
    ready: Api, method: str, path: str, name: str, arguments: dict[str, Any], actions: list[str]
) -> None:
    if name == "RUN" or path == "/v1/runs/cancel":
        name = (await ready.http.post("/v1/runs", json={"project": "crew"})).json()["id"]
    elif name == "KEY":
        name = (await ready.http.post("/v1/keys", json={"name": "k", "scopes": ["read"]})).json()["id"]
    elif name == "DEPLOYMENT":
        name = (await upload(ready)).json()["id"]
    before = len(await entries(ready))
    if path.endswith("/deployments"):
        response = await upload(ready)
    else:
        response = await ready.http.request(
            method, path.format(project=name, run_id=name, key_id=name, deployment_id=name), **arguments
        )
    assert response.is_success, response.text
    added = (await entries(ready))[: len(await entries(ready)) - before]
    assert [entry["action"] for entry in added] == actions
    for entry in added:
        assert entry["actor"] == {"key_id": "key_0bootstrap0", "name": "admin"}
        assert entry["address"] == "127.0.0.1"
        assert entry["id"].startswith("aud_")
    text = (await ready.http.get("/v1/audit")).text
    assert SECRET not in text
    assert SECRET[-4:] not in text


async def test_env_says_which_names_and_versions(ready: Api) -> None:
    for body in ({"set": {"A": "1", "B": "2"}}, {"set": {"B": "3", "C": "4"}, "unset": ["A", "Z"]}):
        assert (await ready.http.patch("/v1/projects/crew/env", json=body)).status_code == 200
    assert (await ready.http.patch("/v1/projects/crew/env", json={})).status_code == 200  # changes nothing
    told = [(entry["before"], entry["after"]) for entry in await entries(ready, "?action=env")]
    assert told == [
        ({"version": 1, "names": ["A", "B"]}, {"version": 2, "set": ["B", "C"], "unset": ["A", "Z"]}),
        ({"version": 0, "names": []}, {"version": 1, "set": ["A", "B"], "unset": []}),
    ]


async def test_what_is_made_on_the_way_and_what_is_taken_back(api: Api) -> None:
    assert (await upload(api, project="fresh")).status_code == 202
    assert [entry["action"] for entry in await entries(api, "?project=fresh")] == [
        "deployment.created",
        "project.created",
    ]
    fill(api)
    for call, path, action in (
        ("start_run", "/v1/runs", "run"),
        ("start_project_deletion", "/v1/projects/crew", "project"),
    ):
        api.dispatch.down.add(call)
        method, body = ("POST", {"project": "crew"}) if action == "run" else ("DELETE", None)
        assert_problem(await api.http.request(method, path, json=body), 503, "unavailable")
        done = "created" if action == "run" else "deleted"
        newest = await entries(api, f"?action={action}&limit=2")
        assert [entry["action"] for entry in newest] == [f"{action}.withdrawn", f"{action}.{done}"]
        assert newest[0]["target"] == newest[1]["target"]


async def test_the_same_call_again_changes_nothing(ready: Api) -> None:
    for _ in range(2):
        call = await ready.http.post("/v1/runs", json={"project": "crew"}, headers={"idempotency-key": "k"})
    for _ in range(2):
        await ready.http.post(f"/v1/runs/{call.json()['id']}/cancel", json={})
    assert [entry["action"] for entry in await entries(ready, "?project=crew")] == ["run.canceled", "run.created"]
    await ready.http.post(f"/v1/runs/{call.json()['id']}/cancel", json={"force": True})
    assert (await entries(ready))[0]["after"] == {"force": True}


async def test_who_goes_with_what_the_worker_does(ready: Api) -> None:
    ready.dispatch.garbage_result = GarbageResult(removals=[], more=False)
    await ready.http.post("/v1/gc")
    await ready.http.post("/v1/projects/crew/rollback", json={"deployment_id": "dep_2"})
    [(rollback, _)] = ready.dispatch.rollbacks
    for who in (ready.dispatch.garbage[0].by, rollback.by):
        assert who is not None
        assert (who.key_id, who.name, who.address) == ("key_0bootstrap0", "admin", "127.0.0.1")


async def test_filters_and_pages(ready: Api) -> None:
    for number in range(3):
        await ready.http.post("/v1/projects", json={"name": f"p{number}"})
        await ready.http.patch(f"/v1/projects/p{number}/env", json={"set": {"A": "x"}})
    everything = await entries(ready)
    assert len(everything) == 7  # the first key's too
    assert everything[-1]["actor"] == {"key_id": None, "name": "platform"}
    paged, cursor = [], ""
    while True:
        page = (await ready.http.get(f"/v1/audit?limit=3{cursor}")).json()
        paged += page["audit"]
        if page["next_cursor"] is None:
            break
        await ready.http.post("/v1/projects", json={"name": f"later{len(paged)}"})  # moves no page
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == everything
    for query, count in {
        "?project=p1": 2,
        "?action=env": 3,
        "?action=env.changed&project=p1": 1,
        "?action=en": 0,
        "?target=p2": 2,
        "?key_id=key_0bootstrap0&action=env": 3,
        "?key_id=key_x": 0,
        "?since=2999-01-01T00:00:00Z": 0,
        "?until=2000-01-01T00:00:00Z": 0,
        f"?since={everything[-1]['at']}&action=env": 3,
    }.items():
        assert len(await entries(ready, query)) == count, query
    for query, status, code in (
        ("?cursor=x", 400, "invalid_cursor"),
        ("?cursor=WyItMSJd", 400, "invalid_cursor"),
        ("?action=a'b", 422, "validation_error"),
        ("?project=%00", 422, "validation_error"),
        ("?since=0001-01-01T00:00:00%2B23:00", 422, "validation_error"),
    ):
        assert_problem(await ready.http.get(f"/v1/audit{query}"), status, code)


async def test_there_is_no_way_to_change_it(ready: Api) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert_problem(await ready.http.request(method, "/v1/audit"), 405, "method_not_allowed")
    assert ready.row(AuditEntry, 1) is not None
