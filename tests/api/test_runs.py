import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select

from api.waiting import WaitingRead
from crewship import db
from crewship.clock import now
from crewship.keys import make_key
from crewship.models import ApiKey, Deployment, Idempotency, Project, Run, RunLabel
from tests.api.conftest import Api, assert_problem

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def run(number: int, **fields: Any) -> Run:
    values: dict[str, Any] = {
        "id": f"run_{number:012d}", "project": "crew", "deployment_id": "dep_1", "timeout_seconds": 60,
        "env_version": 0, "created_at": MOMENT + timedelta(seconds=number),
    }  # fmt: skip
    return Run(**{**values, **fields})


async def test_a_run_is_recorded_then_started(ready: Api) -> None:
    ready.add(Project(name="other", env_version=7))
    response = await ready.http.post(
        "/v1/runs", json={"project": "crew", "input": {"topic": "ships"}, "labels": {"team": "a/b"}}
    )
    assert response.status_code == 202
    body = response.json()
    assert response.headers["location"] == f"/v1/runs/{body['id']}"
    assert body == {
        "id": body["id"], "project": "crew", "deployment_id": "dep_1", "status": "pending", "input": {"topic": "ships"},
        "output": None, "error": None, "labels": {"team": "a/b"}, "created_at": body["created_at"], "started_at": None,
        "completed_at": None, "duration_ms": None, "timeout_seconds": 3600, "priority": 3,
        "waiting_for": {"reason": "starting", "position": 0, "since": body["created_at"]}, "cancel": None, "usage": {},
        "isolation": {}, "events": {"last_seq": None}, "artifact_count": 0,
    }  # fmt: skip
    assert body["created_at"].endswith("Z")
    (started,) = ready.dispatch.runs
    assert (started.run_id, started.deployment_id, started.host, started.timeout_seconds) == (
        body["id"], "dep_1", "here", 3600,
    )  # fmt: skip
    assert (await ready.http.get(f"/v1/runs/{body['id']}")).json() == body


async def test_the_timeout_is_the_calls_then_the_crews_then_the_platforms(ready: Api) -> None:
    config = {"framework": "python", "entrypoint": "a:b", "run": {"timeout_seconds": 77}}
    ready.add(
        Deployment(
            id="dep_3", project="crew", status="ready", host="h", source_key="k", source_sha256="s", config=config
        )
    )
    for wanted, expected in ((None, 77), (5, 5)):
        body = {"deployment_id": "dep_3"} | ({"timeout_seconds": wanted} if wanted else {})
        assert (await ready.http.post("/v1/runs", json=body)).json()["timeout_seconds"] == expected


async def test_a_run_keeps_the_env_version_of_its_start(ready: Api) -> None:
    await ready.http.patch("/v1/projects/crew/env", json={"set": {"A": "1"}})
    made = (await ready.http.post("/v1/runs", json={"project": "crew"})).json()
    await ready.http.patch("/v1/projects/crew/env", json={"set": {"A": "2"}})
    assert ready.row(Run, made["id"]).env_version == 1


async def test_work_that_cannot_be_taken(ready: Api) -> None:
    ready.add(
        Project(name="empty"),
        Project(name="leaving", deleting=True),
        Deployment(id="dep_f", project="crew", status="failed", host="h", source_key="k", source_sha256="s"),
    )
    for body, code in (
        ({"project": "empty"}, "no_current_deployment"),
        ({"project": "leaving"}, "project_deleting"),
        ({"deployment_id": "dep_f"}, "deployment_not_ready"),
    ):
        assert assert_problem(await ready.http.post("/v1/runs", json=body), 409, code)["detail"]
    assert ready.dispatch.runs == []


async def test_a_run_that_cannot_be_started_leaves_nothing(ready: Api) -> None:
    ready.dispatch.down.add("start_run")
    body, headers = {"project": "crew", "labels": {"a": "b"}}, {"idempotency-key": "k"}
    assert_problem(await ready.http.post("/v1/runs", json=body, headers=headers), 503, "unavailable")
    with db.session(ready.platform.database) as session:
        assert [session.exec(select(table)).all() for table in (Run, RunLabel, Idempotency)] == [[], [], []]
    ready.dispatch.down.clear()
    assert (await ready.http.post("/v1/runs", json=body, headers=headers)).status_code == 202


async def test_the_same_key_and_body_is_the_same_run(ready: Api) -> None:
    headers = {"idempotency-key": "order-17"}
    first = await ready.http.post("/v1/runs", json={"project": "crew", "input": {"a": 1, "b": 2}}, headers=headers)
    again = await ready.http.post(
        "/v1/runs", content=b'{"input": {"b":2, "a":1},  "project": "crew"}',
        headers=headers | {"content-type": "application/json"},
    )  # fmt: skip
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.json()["id"] == first.json()["id"]
    assert len(ready.dispatch.runs) == 1
    other = await ready.http.post("/v1/runs", json={"project": "crew", "input": {"a": 2}}, headers=headers)
    assert_problem(other, 409, "idempotency_conflict")


async def test_many_calls_at_once_with_one_key_make_one_run(ready: Api) -> None:
    headers = {"idempotency-key": "at once"}
    responses = await asyncio.gather(
        *(ready.http.post("/v1/runs", json={"project": "crew"}, headers=headers) for _ in range(12))
    )
    assert sorted(response.status_code for response in responses) == [200] * 11 + [202]
    assert len({response.json()["id"] for response in responses}) == 1
    assert len(ready.dispatch.runs) == 1


async def test_a_key_is_free_again_after_a_day_and_is_the_callers_own(ready: Api) -> None:
    headers = {"idempotency-key": "k"}
    first = await ready.http.post("/v1/runs", json={"project": "crew"}, headers=headers)
    other = make_key("other", ["invoke"])
    ready.add(other.row)
    theirs = await ready.http.post(
        "/v1/runs", json={"project": "crew"}, headers=headers | {"authorization": f"Bearer {other.secret}"}
    )
    assert (theirs.status_code, len(ready.dispatch.runs)) == (202, 2)
    with db.session(ready.platform.database) as session:
        for row in session.exec(select(Idempotency)):
            row.created_at = now() - timedelta(hours=24, seconds=1)
            session.add(row)
    later = await ready.http.post("/v1/runs", json={"project": "crew"}, headers=headers)
    assert later.status_code == 202
    assert later.json()["id"] != first.json()["id"]


async def test_pages_are_newest_first_without_gap_or_overlap(ready: Api) -> None:
    same = MOMENT + timedelta(seconds=99)
    ready.add(
        *(run(number, created_at=same if number < 4 else MOMENT + timedelta(seconds=number)) for number in range(10))
    )
    seen: list[str] = []
    cursor = None
    while True:
        page = (await ready.http.get("/v1/runs", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["runs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        ready.add(run(1000 + len(seen), created_at=now()))  # what comes meanwhile is newer, and not in later pages
    assert seen == [f"run_{number:012d}" for number in (3, 2, 1, 0, 9, 8, 7, 6, 5, 4)]


async def test_filters(ready: Api) -> None:
    ready.add(
        Project(name="other"),
        run(1, status="succeeded"),
        run(2, deployment_id="dep_2"),
        run(3, project="other"),
        *(RunLabel(run_id="run_000000000001", key=key, value=value) for key, value in (("a", "1"), ("b", "x:y"))),
        RunLabel(run_id="run_000000000002", key="a", value="1"),
    )

    async def found(query: str) -> list[int]:
        return [int(item["id"][4:]) for item in (await ready.http.get(f"/v1/runs?{query}")).json()["runs"]]

    assert await found("project=other") == [3]
    assert await found("deployment_id=dep_2") == [2]
    assert await found("status=succeeded") == [1]
    assert await found("label=a:1") == [2, 1]
    assert await found("label=a:1&label=b:x:y") == [1]
    assert await found("label=a:2") == []
    assert await found("since=2026-01-01T00:00:02Z") == [3, 2]
    assert await found("since=2026-01-01T00:00:02.001Z") == [3]
    assert await found("since=2026-01-01T01:00:02%2B01:00") == [3, 2]
    assert await found("since=2026-01-01T00:00:02") == [3, 2]


async def test_what_a_finished_run_says(ready: Api) -> None:
    ready.add(
        run(1, status="failed", output=None, error={"code": "user_error", "message": "m", "hint": None, "traceback": "t"},
            started_at=MOMENT, completed_at=MOMENT + timedelta(milliseconds=1500), last_seq=12, artifact_count=2,
            usage={"cpu_seconds": 1.5}, isolation={"uid": 10001}),
        run(2, status="canceled", cancel={"requested_at": "a", "sigterm_at": None, "sigkill_at": None, "gone_at": "b"}),
        run(3, status="succeeded", output=[1, {"a": None}], duration_ms=5),
    )  # fmt: skip
    failed, canceled, succeeded = [(await ready.http.get(f"/v1/runs/run_{number:012d}")).json() for number in (1, 2, 3)]
    assert failed["error"] == {"code": "user_error", "message": "m", "hint": None, "traceback": "t"}
    assert (failed["duration_ms"], failed["events"], failed["artifact_count"]) == (1500, {"last_seq": 12}, 2)
    assert (failed["usage"], failed["isolation"]) == ({"cpu_seconds": 1.5}, {"uid": 10001})
    assert canceled["cancel"] == {"requested_at": "a", "sigterm_at": None, "sigkill_at": None, "gone_at": "b"}
    assert (succeeded["output"], succeeded["duration_ms"], succeeded["waiting_for"]) == ([1, {"a": None}], 5, None)


async def test_pending_runs_say_what_they_wait_for(ready: Api) -> None:
    ready.add(
        Deployment(id="dep_far", project="crew", status="ready", host="far", source_key="k", source_sha256="s"),
        run(0, status="running"),
        *(run(number) for number in (1, 2, 3)),
        run(4, deployment_id="dep_far"),
    )
    runs = (await ready.http.get("/v1/runs")).json()["runs"]
    waits = {item["id"][-1]: item["waiting_for"] for item in runs}
    waiting = {key: wait and (wait["reason"], wait["position"]) for key, wait in waits.items()}
    # two slots, one taken
    assert waiting == {
        "0": None,
        "1": ("starting", 0),
        "2": ("capacity", 1),
        "3": ("capacity", 2),
        "4": ("starting", 0),
    }
    one = (await ready.http.get("/v1/runs/run_000000000003")).json()
    assert WaitingRead.model_validate(one["waiting_for"]).position == 2


async def test_the_place_in_the_queue_goes_by_priority_and_then_by_project(ready: Api) -> None:
    ready.add(
        Project(name="other"),
        *(run(number, status="running") for number in (1, 2)),
        *(run(number) for number in (3, 4, 5)),
        run(6, project="other"),
        run(7, priority=1),
        run(8, priority=5),
        run(9, concurrency=1),
    )
    runs = (await ready.http.get("/v1/runs?status=pending")).json()["runs"]
    waits = {item["id"][-1]: (item["waiting_for"]["reason"], item["waiting_for"]["position"]) for item in runs}
    in_order = ["7", "3", "6", "4", "5", "8"]
    assert waits == {number: ("capacity", place) for place, number in enumerate(in_order, 1)} | {
        "9": ("project_concurrency", 1)
    }


async def test_a_launched_run_is_in_no_queue(ready: Api) -> None:
    ready.add(run(1, launched_at=now()), run(2, launched_at=now()), run(3, launched_at=now()), run(4))
    runs = (await ready.http.get("/v1/runs")).json()["runs"]
    assert [(item["waiting_for"]["reason"], item["waiting_for"]["position"]) for item in runs] == [
        ("capacity", 2),
        *[("starting", 0)] * 3,
    ]


def limited(**fields: Any) -> Deployment:
    config = {"framework": "python", "entrypoint": "a:b", "run": fields}
    return Deployment(
        id="dep_3", project="crew", status="ready", host="here", source_key="k", source_sha256="s", config=config
    )


async def test_priority_and_queue_timeout_reach_the_workflow(ready: Api) -> None:
    ready.add(limited(queue_timeout_seconds=90))
    for body in ({"project": "crew"}, {"deployment_id": "dep_3", "priority": 1}):
        assert (await ready.http.post("/v1/runs", json=body)).status_code == 202
    assert [(run.priority, run.queue_timeout_seconds, run.held) for run in ready.dispatch.runs] == [
        (3, ready.settings.queue_timeout_seconds, False),
        (1, 90, False),
    ]
    for wrong in (0, 6, "high"):
        refused = await ready.http.post("/v1/runs", json={"project": "crew", "priority": wrong})
        assert_problem(refused, 422, "validation_error")


async def test_a_run_without_a_place_in_its_project_is_held(ready: Api) -> None:
    ready.add(limited(concurrency=1))
    first, second = [
        (await ready.http.post("/v1/runs", json={"deployment_id": "dep_3"})).json()["waiting_for"] for _ in range(2)
    ]
    assert (first["reason"], first["position"]) == ("starting", 0)
    assert (second["reason"], second["position"]) == ("project_concurrency", 1)
    assert [run.held for run in ready.dispatch.runs] == [False, True]


async def test_runs_that_come_at_once_do_not_take_a_place_twice(ready: Api) -> None:
    ready.add(limited(concurrency=3))
    await asyncio.gather(*(ready.http.post("/v1/runs", json={"deployment_id": "dep_3"}) for _ in range(12)))
    assert sorted(run.held for run in ready.dispatch.runs) == [False] * 3 + [True] * 9


async def test_a_raised_limit_lets_those_in_who_wait(ready: Api) -> None:
    ready.add(run(1, concurrency=1, admitted_at=now()), run(2, concurrency=4), limited(concurrency=4))
    await ready.http.post("/v1/runs", json={"deployment_id": "dep_3"})
    assert [run.run_id for run in ready.dispatch.admitted] == ["run_000000000002"]
    assert not ready.dispatch.admitted[0].held


async def test_waiting_ends_when_the_run_does(ready: Api) -> None:
    ready.add(run(1, status="running"))
    log = ready.live_log("run-run_000000000001")
    asked = asyncio.create_task(ready.http.get("/v1/runs/run_000000000001?wait=30"))
    while "run-run_000000000001" not in ready.tail.watched:
        await asyncio.sleep(0.005)
    began = time.perf_counter()
    ready.close_log(log)
    assert (await asked).json()["status"] == "succeeded"
    assert time.perf_counter() - began < 10  # far from the 30 s
    assert ready.dispatch.queries == 0
    assert (await ready.http.get("/v1/runs/run_000000000001?wait=30")).json()["status"] == "succeeded"


async def test_waiting_ends_when_its_time_is_over(ready: Api) -> None:
    ready.add(run(1, status="running"))
    assert (await ready.http.get("/v1/runs/run_000000000001?wait=0.05")).json()["status"] == "running"
    assert len(ready.platform.feeds) == 0


async def test_cancel_asks_the_workflow_and_notes_when(ready: Api) -> None:
    made = (await ready.http.post("/v1/runs", json={"project": "crew"})).json()
    response = await ready.http.post(f"/v1/runs/{made['id']}/cancel")
    assert (response.status_code, response.json()["cancel"]["gone_at"]) == (202, None)
    requested = response.json()["cancel"]["requested_at"]
    forced = await ready.http.post(f"/v1/runs/{made['id']}/cancel", json={"force": True})
    assert forced.json()["cancel"]["requested_at"] == requested
    assert ready.dispatch.cancels == [(made["id"], False), (made["id"], True)]


async def test_a_terminal_run_is_not_canceled(ready: Api) -> None:
    ready.add(run(1, status="succeeded"))
    before = (await ready.http.get("/v1/runs/run_000000000001")).json()
    response = await ready.http.post("/v1/runs/run_000000000001/cancel", json={"force": True})
    assert (response.status_code, response.json()) == (200, before)
    assert ready.dispatch.cancels == []


async def test_a_run_that_was_never_started_is_started_to_be_canceled(ready: Api) -> None:
    ready.add(run(1))
    assert (await ready.http.post("/v1/runs/run_000000000001/cancel")).status_code == 202
    assert ([started.run_id for started in ready.dispatch.runs], ready.dispatch.cancels) == (
        ["run_000000000001"], [("run_000000000001", False)],
    )  # fmt: skip


async def test_cancel_when_the_engine_is_down_changes_nothing(ready: Api) -> None:
    made = (await ready.http.post("/v1/runs", json={"project": "crew"})).json()
    ready.dispatch.down.add("cancel_run")
    assert_problem(await ready.http.post(f"/v1/runs/{made['id']}/cancel"), 503, "unavailable")
    assert ready.row(Run, made["id"]).cancel_requested_at is None


async def test_many_are_canceled_by_what_they_are(ready: Api) -> None:
    ready.add(
        Project(name="other"),
        run(1, status="succeeded"), run(2, status="running"), run(3), run(4, deployment_id="dep_2"), run(5, project="other"),
        *(RunLabel(run_id=f"run_{number:012d}", key="team", value="a") for number in (1, 3, 5)),
    )  # fmt: skip

    async def cancel(**body: Any) -> list[int]:
        answer = (await ready.http.post("/v1/runs/cancel", json=body)).json()
        assert (answer["requested"], answer["more"]) == (len(answer["run_ids"]), False)
        return sorted(int(run_id[4:]) for run_id in answer["run_ids"])

    assert await cancel(project="crew", status="pending", labels={"team": "a"}) == [3]
    assert await cancel(project="crew", status="pending") == [4]
    assert await cancel(project="crew") == [2]
    assert await cancel(project="crew") == []
    assert await cancel(run_ids=["run_000000000001", "run_000000000005"]) == [5]
    assert await cancel(deployment_id="dep_1", force=True) == [2, 3, 5]
    assert [force for _, force in ready.dispatch.cancels] == [False] * 4 + [True] * 3
    one = (await ready.http.get("/v1/runs/run_000000000003")).json()
    assert one["cancel"]["requested_at"]


async def test_a_cancel_of_everything_has_to_be_asked_for(ready: Api) -> None:
    for body in ({}, {"force": True}, {"labels": {}}):
        assert_problem(await ready.http.post("/v1/runs/cancel", json=body), 422, "validation_error")
    assert_problem(await ready.http.post("/v1/runs/cancel", json={"status": "failed"}), 422, "validation_error")
    assert_problem(await ready.http.post("/v1/runs/cancel", json={"run_ids": ["run_no"]}), 404, "run_not_found")


async def test_a_bulk_cancel_goes_on_where_the_engine_went_away(ready: Api) -> None:
    ready.add(run(1), run(2))
    ready.dispatch.down.add("cancel_run")
    assert_problem(await ready.http.post("/v1/runs/cancel", json={"project": "crew"}), 503, "unavailable")
    ready.dispatch.down.clear()
    assert (await ready.http.post("/v1/runs/cancel", json={"project": "crew"})).json()["requested"] == 2


async def test_a_key_of_one_project_cancels_only_its_runs(ready: Api) -> None:
    key = make_key("k", ["invoke"], project="crew")
    ready.add(Project(name="other"), key.row, run(1), run(2, project="other"))
    headers = {"authorization": f"Bearer {key.secret}"}
    answer = await ready.http.post("/v1/runs/cancel", json={"status": "pending"}, headers=headers)
    assert answer.json()["run_ids"] == ["run_000000000001"]


@pytest.mark.parametrize(
    ("scopes", "project", "expected"),
    [
        (["read"], None, {"read": 200, "invoke": 403, "deploy": 403, "env": 403, "admin": 403}),
        (["invoke"], None, {"read": 200, "invoke": 202, "deploy": 403, "env": 403, "admin": 403}),
        (["deploy"], None, {"read": 200, "invoke": 403, "deploy": 201, "env": 403, "admin": 403}),
        (["env"], None, {"read": 200, "invoke": 403, "deploy": 403, "env": 200, "admin": 403}),
        (["admin"], None, {"read": 200, "invoke": 202, "deploy": 201, "env": 200, "admin": 202}),
        (["admin"], "crew", {"read": 200, "invoke": 202, "deploy": 403, "env": 200, "admin": 202}),
        (["admin"], "other", {"read": 404, "invoke": 404, "deploy": 403, "env": 403, "admin": 404}),
    ],
)
async def test_scopes_and_projects_of_keys(
    ready: Api, scopes: list[str], project: str | None, expected: dict[str, int]
) -> None:
    key = make_key("k", scopes, project=project)
    ready.add(Project(name="other"), key.row)
    headers = {"authorization": f"Bearer {key.secret}"}
    calls = {
        "read": ("GET", "/v1/projects/crew", None),
        "invoke": ("POST", "/v1/runs", {"project": "crew"}),
        "deploy": ("POST", "/v1/projects", {"name": "third"}),
        "env": ("PATCH", "/v1/projects/crew/env", {"set": {"A": "b"}}),
        "admin": ("DELETE", "/v1/projects/crew?force=true", None),
    }
    got = {}
    for name, (method, path, body) in calls.items():
        got[name] = (await ready.http.request(method, path, json=body, headers=headers)).status_code
    assert got == expected
    listed = (await ready.http.get("/v1/projects", headers=headers)).json()["projects"]
    assert [item["name"] for item in listed if item["name"] != "third"] == ([project] if project else ["crew", "other"])


async def test_the_first_key_is_stored_hashed(ready: Api) -> None:
    with db.session(ready.platform.database) as session:
        (row,) = session.exec(select(ApiKey)).all()
    assert row.scopes == ["admin"]
    assert ready.settings.bootstrap_admin_key not in row.model_dump_json()
