import asyncio
import hashlib
import io
import tarfile
from typing import Any

import httpx
import pytest
from sqlmodel import select

from crewship import db
from crewship.clock import now
from crewship.models import Activation, Deployment, Idempotency, Project
from crewship.objects import source_key
from crewship.storage import read
from tests.api.conftest import Api, assert_problem
from tests.crewship.test_source import BAD

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
        "image_removed_at": None, "base_image": None, "python": None, "source_sha256": digest,
        "created_at": body["created_at"], "ready_at": None, "error": None, "current": False,
        "events": {"last_seq": None}, "warnings": [], "unchanged": False,
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
        ({"crewship.toml": CONFIG + '[network]\nallow = ["192.0.2.7"]\n'}, "invalid_config"),
        ({"crewship.toml": CONFIG + '[build]\nrequirements = "a/requirements.txt"\n'}, "invalid_config"),
    ):
        assert_problem(await upload(api, pack(dict(files))), 400, code)
    with db.session(api.platform.database) as session:
        assert session.exec(select(Deployment)).all() == []
        assert session.exec(select(Project)).all() == []
    assert list(api.store.list("")) == []
    assert api.dispatch.deploys == []


@pytest.mark.parametrize("case", BAD)
async def test_an_attack_is_refused_while_it_comes_in_and_leaves_nothing(api: Api, case: str) -> None:
    """Names that leave the folder, links, devices, doubles, damage: as ``tests/crewship/test_source.py`` has them."""
    source, detail = BAD[case]
    problem = assert_problem(await upload(api, source), 400, "invalid_source")
    assert detail in problem["detail"]
    assert problem["hint"]
    assert list(api.store.list("")) == []
    assert api.dispatch.deploys == []


async def test_a_bomb_is_refused_and_leaves_nothing(api: Api) -> None:
    """A hundred times what may be unpacked, in a fiftieth of what may be sent."""
    source = pack({"crewship.toml": CONFIG, "zeros": bytes(100_000_000)})
    assert len(source) < api.settings.max_source_bytes / 5
    problem = assert_problem(await upload(api, source), 413, "source_too_large")
    assert "unpacks to more than" in problem["detail"]
    assert list(api.store.list("")) == []


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


async def offer(api: Api, sha256: str, project: str = "crew", query: str = "", **arguments: Any) -> httpx.Response:
    """An upload's form without the archive."""
    return await api.http.post(
        f"/v1/projects/{project}/deployments{query}", files={"source_sha256": (None, sha256)}, **arguments
    )


def finish(api: Api, deployment_id: str, **changes: Any) -> None:
    """As the worker ends a build that makes a deployment current."""
    with db.session(api.platform.database) as session:
        row = session.get_one(Deployment, deployment_id)
        row.status, row.image, row.recipe, row.base_image, row.last_seq = "ready", "sha256:1", "r", "sha256:0", 9
        for name, value in changes.items():
            setattr(row, name, value)
        project = session.get_one(Project, row.project)
        project.current_deployment_id = deployment_id
        session.add_all([row, project])


async def test_a_source_that_was_sent_before_is_not_sent_again(api: Api) -> None:
    digest = hashlib.sha256(SOURCE).hexdigest()
    assert_problem(await offer(api, digest), 404, "source_unknown")
    await upload(api)
    assert_problem(await offer(api, digest, project="other"), 404, "source_unknown")  # a digest is no right to it
    again = await offer(api, digest)
    assert (again.status_code, again.json()["source_sha256"]) == (202, digest)
    assert again.json()["config"]["entrypoint"] == "main:kickoff"
    assert len(api.dispatch.deploys) == 2
    assert_problem(await offer(api, "0" * 64), 404, "source_unknown")
    assert_problem(await offer(api, "../secret.key"), 422, "validation_error")


async def test_a_source_that_is_gone_or_damaged_is_asked_for_again(api: Api) -> None:
    digest = hashlib.sha256(SOURCE).hexdigest()
    await upload(api)
    api.store.put(source_key(digest), pack({"crewship.toml": CONFIG, "main.py": "other"}))
    assert_problem(await offer(api, digest), 404, "source_unknown")
    api.store.delete(source_key(digest))
    assert_problem(await offer(api, digest), 404, "source_unknown")
    with db.session(api.platform.database) as session:
        assert len(session.exec(select(Deployment)).all()) == 1


async def test_nothing_changed_is_no_deployment(api: Api) -> None:
    digest = hashlib.sha256(SOURCE).hexdigest()
    first = (await upload(api)).json()["id"]
    finish(api, first)
    for answer in (await offer(api, digest), await upload(api), await upload(api, query="?activate=false")):
        assert (answer.status_code, answer.json()["id"], answer.json()["unchanged"]) == (200, first, True)
        assert answer.headers["location"] == f"/v1/deployments/{first}"
    assert len(api.dispatch.deploys) == 1
    asked, queue = api.dispatch.recognized[0]
    assert (asked.deployment_id, asked.project, queue) == (first, "crew", "crewship-host-here")


async def test_what_is_built_although_the_source_is_the_same(api: Api) -> None:
    first = (await upload(api)).json()["id"]

    async def is_built(**arguments: Any) -> bool:
        answer = await upload(api, **arguments)
        assert answer.status_code == 202 or answer.headers.get("idempotent-replayed"), answer.text
        with db.session(api.platform.database) as session:  # or it would be at work, which is another reason
            session.get_one(Deployment, answer.json()["id"]).last_seq = 9
        return bool(answer.json()["id"] != first)

    assert await is_built()  # the first one is not current yet
    finish(api, first)
    assert await is_built(query="?force=true")
    api.dispatch.is_same = False  # the base image, the platform or its settings are others, or the image is gone
    assert await is_built()
    api.dispatch.is_same = True
    api.dispatch.down.add("recognize")
    assert await is_built()
    api.dispatch.down.clear()
    table = CONFIG.replace("main:kickoff", "main:other")
    assert await is_built(source=pack({"crewship.toml": table, "main.py": "def kickoff(inputs): return inputs"}))
    finish(api, first, recipe=None)  # from before recipes were kept
    assert await is_built()
    finish(api, first, image_removed_at=now())
    assert await is_built()
    finish(api, first, image_removed_at=None)
    assert (await upload(api)).json()["id"] == first
    headers = {"idempotency-key": "k"}
    made = (await upload(api, query="?force=true", headers=headers)).json()["id"]
    assert (await upload(api, query="?force=true", headers=headers)).json()["id"] == made != first
    assert (await upload(api)).status_code == 202  # another one is at work, and may be current in a moment


async def test_a_build_is_canceled(api: Api) -> None:
    first = (await upload(api)).json()["id"]
    assert (await api.http.post(f"/v1/deployments/{first}/cancel")).status_code == 202
    assert api.dispatch.canceled_builds == [first]
    finish(api, first)
    answer = await api.http.post(f"/v1/deployments/{first}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert api.dispatch.canceled_builds == [first]
    assert_problem(await api.http.post("/v1/deployments/dep_x/cancel"), 404, "deployment_not_found")


async def test_a_build_that_was_not_started_is_started_so_as_to_end(api: Api) -> None:
    first = (await upload(api)).json()["id"]
    api.dispatch.deploys.clear()
    assert (await api.http.post(f"/v1/deployments/{first}/cancel")).status_code == 202
    assert [deploy.deployment_id for deploy in api.dispatch.deploys] == [first]
    assert api.dispatch.canceled_builds == [first]
