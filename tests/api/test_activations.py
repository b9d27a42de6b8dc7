"""Rollback, promotion and history, with the switch itself done on the test's database."""

import pytest

from crewship import db
from crewship.contracts import Actor, RollbackInput, RollbackResult
from crewship.models import ApiKey, Deployment, Project
from crewship.projects import switch
from tests.api.conftest import Api, assert_problem


@pytest.fixture
def switching(ready: Api) -> Api:
    """Whose switches take place."""

    def work(asked: RollbackInput) -> RollbackResult:
        with db.session(ready.platform.database) as session:
            done = switch(
                session, asked.project, asked.deployment_id or "", asked.by or Actor(key_id=asked.actor),
                kind=asked.kind, key=asked.key,
                with_env=asked.with_env,
            )  # fmt: skip
        return RollbackResult(
            deployment_id=done.deployment_id, previous_deployment_id=done.previous, changed=done.changed,
            env_version=done.env_version, previous_env_version=done.previous_env_version,
        )  # fmt: skip

    ready.dispatch.on_rollback = work
    return ready


async def set_env(api: Api, **values: str) -> int:
    answer = await api.http.patch("/v1/projects/crew/env", json={"set": values})
    return int(answer.json()["version"])


async def test_promotion_makes_a_ready_deployment_current(switching: Api) -> None:
    answer = await switching.http.post("/v1/deployments/dep_2/promote")
    body = answer.json()
    assert (answer.status_code, body) == (200, {
        "project": "crew", "deployment_id": "dep_2", "previous_deployment_id": "dep_1", "changed": True,
        "env": {"version": 0, "deployment_version": None, "restored": False,
                "changes": {"added": [], "removed": [], "changed": []}},
        "duration_ms": body["duration_ms"],
    })  # fmt: skip
    ((asked, queue),) = switching.dispatch.rollbacks
    assert (asked.kind, asked.with_env, queue) == ("promote", False, "crewship-host-here")
    assert (await switching.http.post("/v1/deployments/dep_2/promote")).json()["changed"] is False


async def test_promotion_of_what_cannot_be_current(switching: Api) -> None:
    switching.add(Deployment(id="dep_f", project="crew", status="failed", host="h", source_key="k", source_sha256="s"))
    assert_problem(await switching.http.post("/v1/deployments/dep_f/promote"), 409, "deployment_not_ready")
    assert_problem(await switching.http.post("/v1/deployments/dep_x/promote"), 404, "deployment_not_found")
    switching.dispatch.rollback_result = RollbackResult(error_code="image_missing", error_detail="gone")
    switching.dispatch.on_rollback = None
    assert_problem(await switching.http.post("/v1/deployments/dep_2/promote"), 409, "image_missing")


async def test_a_rollback_names_the_vars_that_differ_and_never_a_value(switching: Api) -> None:
    then = await set_env(switching, MODEL="the-small-model-of-then", KEPT="1")
    await switching.http.post("/v1/deployments/dep_2/promote")
    now = await set_env(switching, MODEL="the-large-model-of-now", NEW="a-new-value", KEPT="1")
    answer = await switching.http.post("/v1/projects/crew/rollback")
    assert answer.json()["env"] == {
        "version": now, "deployment_version": then, "restored": False,
        "changes": {"added": ["NEW"], "removed": [], "changed": ["MODEL"]},
    }  # fmt: skip
    assert not any(value in answer.text for value in ("model-of", "a-new-value"))
    assert switching.row(Project, "crew").env_version == now


async def test_a_rollback_with_env_restores_both(switching: Api) -> None:
    then = await set_env(switching, MODEL="small")
    await switching.http.post("/v1/deployments/dep_2/promote")
    now = await set_env(switching, MODEL="large", NEW="1")
    answer = await switching.http.post("/v1/projects/crew/rollback", json={"with_env": True})
    assert answer.json()["env"] == {
        "version": now + 1, "deployment_version": then, "restored": True,
        "changes": {"added": [], "removed": [], "changed": []},
    }  # fmt: skip
    listed = (await switching.http.get("/v1/projects/crew/env")).json()
    assert (listed["version"], [item["name"] for item in listed["env"]]) == (now + 1, ["MODEL"])
    with db.session(switching.platform.database) as session:
        sealed = db.env_values(session, "crew", now + 1)["MODEL"]
    assert switching.platform.sealer.open(sealed, "crew/MODEL") == "small"


async def test_the_history_says_who_when_from_to_and_what_for(switching: Api) -> None:
    for path in ("deployments/dep_2/promote", "projects/crew/rollback", "deployments/dep_2/promote"):
        assert (await switching.http.post(f"/v1/{path}")).status_code == 200
    first = (await switching.http.get("/v1/projects/crew/activations?limit=2")).json()
    rest = (await switching.http.get("/v1/projects/crew/activations", params={"cursor": first["next_cursor"]})).json()
    rows = first["activations"] + rest["activations"]
    assert [(row["kind"], row["previous_deployment_id"], row["deployment_id"]) for row in rows] == [
        ("promote", "dep_1", "dep_2"), ("rollback", "dep_2", "dep_1"), ("promote", "dep_1", "dep_2"),
    ]  # fmt: skip
    assert rest["next_cursor"] is None
    with db.session(switching.platform.database) as session:
        key = session.get_one(ApiKey, rows[0]["by"])
    assert rows[0]["by_name"] == key.name
    assert rows[0]["at"].endswith("Z")
    assert_problem(await switching.http.get("/v1/projects/nobody/activations"), 404, "project_not_found")
    assert_problem(await switching.http.get("/v1/projects/crew/activations?cursor=eyJ4"), 400, "invalid_cursor")
