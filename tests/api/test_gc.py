"""``POST /v1/gc``: for admins, shown or done, and what a deployment without its image is good for."""

from crewship.clock import now
from crewship.contracts import Actor, GarbageInput, GarbageResult, Removal
from crewship.keys import make_key
from crewship.models import Deployment
from tests.api.conftest import Api, assert_problem

GONE = Removal(kind="image", name="sha256:1", why="of dep_0: not among the last 10 of crew", bytes=5, host="here")


async def test_what_would_go_and_what_goes(ready: Api) -> None:
    ready.dispatch.garbage_result = GarbageResult(
        removals=[GONE, Removal(kind="volume", name="v", why="w")], more=True, unreachable_hosts=["there"]
    )
    response = await ready.http.post("/v1/gc", params={"dry_run": "true"})
    assert response.status_code == 200
    assert response.json() == {
        "dry_run": True,
        "removals": [
            {"kind": "image", "name": "sha256:1", "why": GONE.why, "bytes": 5, "host": "here"},
            {"kind": "volume", "name": "v", "why": "w", "bytes": None, "host": None},
        ],
        "bytes": 5,
        "more": True,
        "unreachable_hosts": ["there"],
    }  # fmt: skip
    assert (await ready.http.post("/v1/gc")).json()["dry_run"] is False
    admin = Actor(key_id="key_0bootstrap0", name="admin", address="127.0.0.1")
    assert ready.dispatch.garbage == [
        GarbageInput(dry_run=True, limit=1000, by=admin),
        GarbageInput(dry_run=False, limit=50, by=admin),
    ]


async def test_for_admins_of_the_whole_platform_only(ready: Api) -> None:
    for scopes, project in ((["deploy"], None), (["admin"], "crew")):
        key = make_key("k", scopes=scopes, project=project)
        ready.add(key.row)
        response = await ready.http.post("/v1/gc", headers={"Authorization": f"Bearer {key.secret}"})
        assert_problem(response, 403, "forbidden")
    assert ready.dispatch.garbage == []


async def test_a_deployment_whose_image_went(ready: Api) -> None:
    ready.add(
        Deployment(
            id="dep_0", project="crew", status="ready", host="here", source_key="k", source_sha256="s",
            config={"framework": "python", "entrypoint": "main:kickoff"}, image="sha256:1", image_removed_at=now(),
        )
    )  # fmt: skip
    for path, body in (
        ("/v1/projects/crew/rollback", {"deployment_id": "dep_0"}),
        ("/v1/runs", {"deployment_id": "dep_0"}),
    ):
        problem = assert_problem(await ready.http.post(path, json=body), 409, "image_missing")
        assert "crewship deploy" in problem["hint"]
    assert (ready.dispatch.rollbacks, ready.dispatch.runs) == ([], [])
    assert (await ready.http.get("/v1/deployments/dep_0")).json()["image_removed_at"] is not None
