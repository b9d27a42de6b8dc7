from datetime import timedelta

from sqlmodel import select

from crewship import db
from crewship.clock import now
from crewship.keyring import open_keyring
from crewship.models import EnvVar, Project
from crewship.sealing import Sealer
from tests.api.conftest import Api, assert_problem
from tests.api.test_runs import run


async def test_projects_are_made_and_listed_by_name(api: Api) -> None:
    for name in ("b", "a", "c-3"):
        response = await api.http.post("/v1/projects", json={"name": name})
        assert (response.status_code, response.headers["location"]) == (201, f"/v1/projects/{name}")
    first = (await api.http.get("/v1/projects?limit=2")).json()
    second = (await api.http.get("/v1/projects", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["name"] for item in first["projects"] + second["projects"]] == ["a", "b", "c-3"]
    assert second["next_cursor"] is None
    one = (await api.http.get("/v1/projects/a")).json()
    assert one == {
        "name": "a", "current_deployment_id": None, "env_version": 0, "status": "active", "created_at": one["created_at"],
    }  # fmt: skip


async def test_a_name_that_will_not_do_comes_with_one_that_does(api: Api) -> None:
    problem = assert_problem(await api.http.post("/v1/projects", json={"name": "My_Crew"}), 400, "invalid_request")
    assert "my-crew" in problem["hint"]


async def test_deletion_waits_for_runs_unless_forced(ready: Api) -> None:
    ready.add(run(1, status="running"))
    assert_problem(await ready.http.delete("/v1/projects/crew"), 409, "project_has_active_runs")
    assert ready.row(Project, "crew").deleting is False
    response = await ready.http.delete("/v1/projects/crew?force=true")
    assert (response.status_code, response.json()["status"]) == (202, "deleting")
    assert_problem(await ready.http.post("/v1/runs", json={"project": "crew"}), 409, "project_deleting")
    assert_problem(await ready.http.post("/v1/runs", json={"deployment_id": "dep_1"}), 409, "project_deleting")
    env = await ready.http.patch("/v1/projects/crew/env", json={"set": {"A": "b"}})
    assert_problem(env, 409, "project_deleting")
    assert (await ready.http.delete("/v1/projects/crew")).status_code == 202
    assert ready.dispatch.deletions == ["crew", "crew"]


async def test_a_deletion_that_cannot_be_started_is_none(ready: Api) -> None:
    ready.dispatch.down.add("start_project_deletion")
    assert_problem(await ready.http.delete("/v1/projects/crew"), 503, "unavailable")
    assert ready.row(Project, "crew").deleting is False


async def test_env_values_go_in_sealed_and_never_come_back(api: Api) -> None:
    secret = "sk-live-0123456789abcdef-WXYZ"
    response = await api.http.patch("/v1/projects/new-one/env", json={"set": {"OPENAI_API_KEY": secret, "SHORT": "on"}})
    assert (response.status_code, response.json()) == (200, {"version": 1, "shown": ["SHORT"]})
    listed = await api.http.get("/v1/projects/new-one/env")
    assert secret not in listed.text
    assert [(item["name"], item["preview"], item["secret"], item["redacted"]) for item in listed.json()["env"]] == [
        ("OPENAI_API_KEY", "…WXYZ", True, True), ("SHORT", "…", True, False),
    ]  # fmt: skip
    with db.session(api.platform.database) as session:
        rows = session.exec(select(EnvVar)).all()
        sealed = db.env_values(session, "new-one", 1)
    assert secret not in "".join(row.model_dump_json() for row in rows)
    sealer = open_keyring(api.settings).sealer()
    assert sealer.open(sealed["OPENAI_API_KEY"], "new-one/OPENAI_API_KEY") == secret


async def test_what_logs_will_show_is_said_when_it_is_set_and_listed(api: Api) -> None:
    values = {
        "PORT": "8080", "MODEL": "gpt-4o-mini", "STAGE": "production", "EMPTY": "", "TOKEN": "abcd-1234",
        "DATABASE_URL": "postgres://app:hunter2hunter2@db/app",
    }  # fmt: skip
    answer = await api.http.patch("/v1/projects/crew/env", json={"set": values})
    assert answer.json()["shown"] == ["MODEL", "PORT", "STAGE"]
    listed = (await api.http.get("/v1/projects/crew/env")).json()["env"]
    assert {item["name"]: item["redacted"] for item in listed} == {
        "PORT": False, "MODEL": False, "STAGE": False, "EMPTY": False, "TOKEN": True, "DATABASE_URL": True,
    }  # fmt: skip


async def test_a_value_that_cannot_be_opened_is_listed_nevertheless(api: Api) -> None:
    api.add(Project(name="crew", env_version=1))
    lost = Sealer(bytes(range(9, 41))).seal("a-value-of-a-lost-key", "crew/LOST")
    api.add(EnvVar(project="crew", name="LOST", sealed=lost, preview="…", since_version=1))
    (listed,) = (await api.http.get("/v1/projects/crew/env")).json()["env"]
    assert (listed["name"], listed["redacted"]) == ("LOST", None)


async def test_each_change_is_a_version_and_old_ones_can_be_read(api: Api) -> None:
    for body, version in (
        ({"set": {"A": "1", "B": "1"}}, 1), ({"set": {"A": "2"}, "unset": ["B", "NOT_THERE"]}, 2), ({}, 2),
    ):  # fmt: skip
        assert (await api.http.patch("/v1/projects/crew/env", json=body)).json()["version"] == version
    with db.session(api.platform.database) as session:
        assert [sorted(db.env_values(session, "crew", version)) for version in (1, 2)] == [["A", "B"], ["A"]]
    listed = (await api.http.get("/v1/projects/crew/env")).json()
    assert (listed["version"], listed["current_version"], [item["name"] for item in listed["env"]]) == (2, 2, ["A"])
    earlier = (await api.http.get("/v1/projects/crew/env?version=1")).json()
    assert (earlier["version"], earlier["current_version"]) == (1, 2)
    assert [item["name"] for item in earlier["env"]] == ["A", "B"]
    assert_problem(await api.http.get("/v1/projects/crew/env?version=3"), 404, "env_version_not_found")


async def test_env_is_all_or_nothing(api: Api) -> None:
    response = await api.http.patch("/v1/projects/crew/env", json={"set": {"GOOD": "x", "BAD NAME": "secret-value"}})
    problem = assert_problem(response, 422, "validation_error")
    assert problem["errors"][0]["pointer"] == "/set/BAD NAME"
    assert "secret-value" not in response.text
    assert_problem(await api.http.get("/v1/projects/crew/env"), 404, "project_not_found")


async def test_a_value_of_the_wrong_type_is_not_repeated(api: Api) -> None:
    response = await api.http.patch("/v1/projects/crew/env", json={"set": {"A": ["secret-value"]}})
    assert_problem(response, 422, "validation_error")
    assert "secret-value" not in response.text


async def test_env_changes_at_once_each_have_a_version(api: Api) -> None:
    import asyncio

    answers = await asyncio.gather(
        *(api.http.patch("/v1/projects/crew/env", json={"set": {"A": str(number)}}) for number in range(8))
    )
    assert sorted(answer.json()["version"] for answer in answers) == list(range(1, 9))
    with db.session(api.platform.database) as session:
        assert [len(db.env_values(session, "crew", version)) for version in range(9)] == [0] + [1] * 8
        assert max(row.updated_at for row in session.exec(select(EnvVar))) > now() - timedelta(minutes=1)
