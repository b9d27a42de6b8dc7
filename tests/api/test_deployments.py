import asyncio
import hashlib
import io
import tarfile
from typing import Any

import httpx
from sqlmodel import select

from crewship import db
from crewship.models import Activation, Deployment, Idempotency, Project
from crewship.objects import source_key
from crewship.storage import read
from tests.api.conftest import Api, assert_problem

CONFIG = '[deployment]\nframework = "python"\nentrypoint = "main:kickoff"\n'


def pack(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SOURCE = pack({"crewship.toml": CONFIG, "main.py": "def kickoff(inputs): return inputs"})


async def upload(
    api: Api, source: bytes = SOURCE, project: str = "crew", query: str = "", **arguments: Any
) -> httpx.Response:
    return await api.http.post(
        f"/v1/projects/{project}/deployments{query}", files={"source": ("source.tar.gz", source)}, **arguments
    )


async def test_an_upload_is_kept_recorded_and_built(api: Api) -> None:
    response = await upload(api)
    body = response.json()
    assert response.status_code == 202, body
    assert response.headers["location"] == f"/v1/deployments/{body['id']}"
    digest = hashlib.sha256(SOURCE).hexdigest()
    assert body == {
        "id": body["id"], "project": "crew", "status": "pending", "config": body["config"], "image": None,
        "image_removed_at": None, "source_sha256": digest,
        "created_at": body["created_at"], "ready_at": None, "error": None, "current": False,
        "events": {"last_seq": None}, "warnings": [],
    }  # fmt: skip
    assert body["config"]["entrypoint"] == "main:kickoff"
    assert read(api.store, source_key(digest)) == SOURCE
    (deploy,) = api.dispatch.deploys
    assert (deploy.deployment_id, deploy.project, deploy.host, deploy.activate) == (body["id"], "crew", "here", True)
    assert (await api.http.get(f"/v1/deployments/{body['id']}")).json() == body
    assert (await api.http.get("/v1/projects/crew")).json()["current_deployment_id"] is None


async def test_a_large_upload(api: Api) -> None:
    import os

    source = pack({"crewship.toml": CONFIG, "data.bin": os.urandom(900_000)})
    assert (await upload(api, source)).status_code == 202
    too_large = pack({"crewship.toml": CONFIG, "data.bin": os.urandom(1_010_000)})
    assert_problem(await upload(api, too_large), 413, "source_too_large")


async def test_building_without_switching(api: Api) -> None:
    assert (await upload(api, query="?activate=false")).status_code == 202
    assert api.dispatch.deploys[0].activate is False
    assert api.row(Deployment, api.dispatch.deploys[0].deployment_id).activate is False


async def test_one_of_several_named_deployments(api: Api) -> None:
    source = pack({"crewship.toml": "".join(CONFIG.replace("deployment", f"deployments.{name}") for name in "ab")})
    response = await upload(api, source, data={"name": "b"})
    assert (response.status_code, response.json()["config"]["name"]) == (202, "b")
    assert_problem(await upload(api, source), 400, "invalid_config")
    assert_problem(await upload(api, source, data={"name": "z"}), 400, "invalid_config")


async def test_what_is_refused_leaves_nothing(api: Api) -> None:
    for files, code in (
        ({"main.py": ""}, "invalid_config"),
        ({"crewship.toml": "[deployment]\nframework = 'python'\nentrypont = 'a:b'"}, "invalid_config"),
        ({"crewship.toml": CONFIG, "../evil": ""}, "invalid_source"),
        ({"crewship.toml": CONFIG + '[run]\nmemory = "9999g"\n'}, "invalid_config"),
        ({"crewship.toml": CONFIG + '[network]\nallow = ["api.openai.com"]\n'}, "invalid_config"),
    ):
        assert_problem(await upload(api, pack(dict(files))), 400, code)
    with db.session(api.platform.database) as session:
        assert session.exec(select(Deployment)).all() == []
        assert session.exec(select(Project)).all() == []
    assert list(api.store.list("")) == []
    assert api.dispatch.deploys == []


async def test_a_build_that_cannot_be_started_leaves_no_deployment(api: Api) -> None:
    api.dispatch.down.add("start_deploy")
    headers = {"idempotency-key": "k"}
    assert_problem(await upload(api, headers=headers), 503, "unavailable")
    with db.session(api.platform.database) as session:
        assert session.exec(select(Deployment)).all() == []
        assert session.exec(select(Idempotency)).all() == []
    api.dispatch.down.clear()
    assert (await upload(api, headers=headers)).status_code == 202


async def test_the_same_upload_twice_is_one_deployment(api: Api) -> None:
    headers = {"idempotency-key": "k"}
    answers = await asyncio.gather(*(upload(api, headers=headers) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.dispatch.deploys) == 1
    assert_problem(await upload(api, query="?activate=false", headers=headers), 409, "idempotency_conflict")
    assert (await upload(api, project="other", headers=headers)).status_code == 202


async def test_deployments_are_listed_newest_first(ready: Api) -> None:
    for _ in range(3):
        await upload(ready)
    first = (await ready.http.get("/v1/projects/crew/deployments?limit=2")).json()
    rest = (
        await ready.http.get("/v1/projects/crew/deployments", params={"cursor": first["next_cursor"], "limit": 9})
    ).json()
    deployments = first["deployments"] + rest["deployments"]
    created = [item["created_at"] for item in deployments]
    assert created == sorted(created, reverse=True)
    assert len({item["id"] for item in deployments}) == 5
    assert [item["id"] for item in deployments if item["current"]] == ["dep_1"]
    assert rest["next_cursor"] is None


async def test_rollback_goes_to_the_host_that_has_the_image(ready: Api) -> None:
    ready.add(Activation(project="crew", deployment_id="dep_1", previous_deployment_id="dep_2"))
    response = await ready.http.post("/v1/projects/crew/rollback")
    body = response.json()
    assert (response.status_code, body) == (200, {
        "project": "crew", "deployment_id": "dep_1", "previous_deployment_id": "dep_2", "changed": True,
        "env": None, "duration_ms": body["duration_ms"],
    })  # fmt: skip
    ((asked, queue),) = ready.dispatch.rollbacks
    assert (asked.project, asked.deployment_id, queue) == ("crew", "dep_2", "crewship-host-here")
    await ready.http.post("/v1/projects/crew/rollback", json={"deployment_id": "dep_2"})
    assert ready.dispatch.rollbacks[1][0].deployment_id == "dep_2"


async def test_rollback_to_what_is_not_ready(ready: Api) -> None:
    ready.add(Deployment(id="dep_f", project="crew", status="failed", host="h", source_key="k", source_sha256="s"))
    response = await ready.http.post("/v1/projects/crew/rollback", json={"deployment_id": "dep_f"})
    assert_problem(response, 409, "deployment_not_ready")
    assert ready.dispatch.rollbacks == []
