"""Build secrets: set, unset, listed by name, never sent back, never among the env vars."""

from crewship import db
from crewship.build_secrets import open_secrets
from crewship.models import BuildSecret
from tests.api.conftest import Api, assert_problem

PATH = "/v1/projects/crew/build-secrets"
URL = "https://user:tok-5Zr8kQ2mPw@pypi.corp/simple"


async def test_they_go_in_sealed_and_never_come_back(api: Api) -> None:
    answer = await api.http.patch(PATH, json={"set": {"UV_INDEX_URL": URL, "CA_BUNDLE": "-----BEGIN"}})
    assert answer.status_code == 200
    listed = await api.http.get(PATH)
    assert [item["name"] for item in listed.json()["build_secrets"]] == ["CA_BUNDLE", "UV_INDEX_URL"]
    assert "tok-5Zr8kQ2mPw" not in answer.text + listed.text
    assert (await api.http.get("/v1/projects/crew/env")).json()["env"] == []
    with db.session(api.platform.database) as session:
        row = session.get_one(BuildSecret, ("crew", "UV_INDEX_URL"))
        assert "tok-5Zr8kQ2mPw" not in row.sealed
        sealer = api.platform.sealer
        opened = open_secrets(session, "crew", sealer)
        assert opened.values == {"UV_INDEX_URL": URL, "CA_BUNDLE": "-----BEGIN"}
        assert opened.environment == {"UV_INDEX_URL": URL}
        assert opened.names_an_index
        assert "tok-" not in repr(opened)
        assert db.env_values(session, "crew", 0) == {}
    again = await api.http.patch(PATH, json={"set": {"UV_INDEX_URL": "x"}, "unset": ["CA_BUNDLE", "NEVER_SET"]})
    assert [item["name"] for item in again.json()["build_secrets"]] == ["UV_INDEX_URL"]
    with db.session(api.platform.database) as session:
        changed = open_secrets(session, "crew", sealer)
        assert changed.revision != opened.revision
        assert open_secrets(session, "other", sealer).revision == ""


async def test_all_or_nothing(api: Api) -> None:
    for body in (
        {"set": {"GOOD": "x", "BAD NAME": "y"}},
        {"set": {"GOOD": "x", "LD_PRELOAD": "/tmp/x.so"}},
        {"set": {"GOOD": "x", "PATH": "/tmp"}},
        {"set": {f"GOOD_{number}": "x" * 60_000 for number in range(2)}},
    ):
        problem = assert_problem(await api.http.patch(PATH, json=body), 422, "validation_error")
        assert problem["hint"]
    assert_problem(await api.http.get(PATH), 404, "project_not_found")
