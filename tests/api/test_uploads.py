"""A source in parts: begun, gone on with, made a deployment of, and never seen half."""

import asyncio
import hashlib
import os
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlmodel import select

from crewship import db, uploads
from crewship.clock import now
from crewship.models import Deployment, Project, Upload
from crewship.objects import source_key
from crewship.storage import read
from tests.api.conftest import Api, assert_problem
from tests.api.test_deployments import CONFIG, offer, pack, upload

PART = 100_000
SOURCE = pack(
    {"crewship.toml": CONFIG, "main.py": "def kickoff(inputs): return inputs", "data.bin": os.urandom(250_000)}
)
DIGEST = hashlib.sha256(SOURCE).hexdigest()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("crewship.uploads", "api.routes.uploads"):
        monkeypatch.setattr(f"{module}.PART_BYTES", PART)


async def begin(api: Api, source: bytes = SOURCE, project: str = "crew", **body: Any) -> httpx.Response:
    about = {"source_sha256": hashlib.sha256(source).hexdigest(), "size_bytes": len(source)} | body
    return await api.http.post(f"/v1/projects/{project}/uploads", json=about)


async def put(
    api: Api, number: int, content: bytes | None = None, digest: str = DIGEST, project: str = "crew"
) -> httpx.Response:
    content = SOURCE[number * PART : (number + 1) * PART] if content is None else content
    return await api.http.put(f"/v1/projects/{project}/uploads/{digest}/parts/{number}", content=content)


def leftovers(api: Api) -> tuple[list[str], list[str]]:
    """Objects that are not sources, and uploads."""
    with db.session(api.platform.database) as session:
        rows = [row.source_sha256 for row in session.exec(select(Upload))]
    return [found.key for found in api.store.list("uploads/")], rows


async def test_a_source_in_parts_becomes_a_deployment(api: Api) -> None:
    begun = await begin(api)
    body = begun.json()
    assert begun.status_code == 201, body
    assert body == {
        "project": "crew", "source_sha256": DIGEST, "size_bytes": len(SOURCE), "part_bytes": PART, "missing": [0, 1, 2],
        "created_at": body["created_at"], "expires_at": body["expires_at"],
    }  # fmt: skip
    for number in (2, 0, 0):  # in any order, and more than once
        assert (await put(api, number)).status_code == 204
    again = await begin(api)
    assert (again.status_code, again.json()["missing"]) == (200, [1])
    problem = assert_problem(await offer(api, DIGEST), 409, "upload_incomplete")
    assert problem["detail"] == "1 of 3 parts of the source are missing"
    assert api.dispatch.deploys == []
    assert (await put(api, 1)).status_code == 204
    made = await offer(api, DIGEST)
    assert (made.status_code, made.json()["source_sha256"]) == (202, DIGEST), made.text
    assert read(api.store, source_key(DIGEST)) == SOURCE
    assert leftovers(api) == ([], [])
    assert (await offer(api, DIGEST)).status_code == 202  # known from then on


async def test_nothing_is_seen_before_it_is_whole(api: Api) -> None:
    await begin(api)
    await put(api, 0)
    with db.session(api.platform.database) as session:
        assert session.exec(select(Project)).all() == []
        assert session.exec(select(Deployment)).all() == []
    assert [found.key for found in api.store.list("sources/")] == []
    assert (await api.http.get("/v1/projects/crew")).status_code == 404


async def test_parts_of_another_archive_are_refused_and_dropped(api: Api) -> None:
    await begin(api)
    for number in range(3):
        await put(api, number)
    await put(api, 1, os.urandom(PART))
    assert_problem(await offer(api, DIGEST), 400, "digest_mismatch")
    assert list(api.store.list("")) == []
    assert leftovers(api) == ([], [])
    other = pack({"crewship.toml": CONFIG, "main.py": "other"})  # whole and fine, but not what was announced
    await begin(api, size_bytes=len(other))
    await put(api, 0, other)
    assert_problem(await offer(api, DIGEST), 400, "digest_mismatch")
    assert list(api.store.list("")) == []


async def test_what_is_refused_leaves_nothing(api: Api) -> None:
    for files, code in (
        ({"main.py": os.urandom(150_000)}, "invalid_config"),
        ({"crewship.toml": CONFIG, "../evil": os.urandom(150_000)}, "invalid_source"),
    ):
        source = pack(dict(files))
        digest = hashlib.sha256(source).hexdigest()
        await begin(api, source)
        for number in range(2):
            assert (await put(api, number, source[number * PART : (number + 1) * PART], digest)).status_code == 204
        assert_problem(await offer(api, digest), 400, code)
        assert list(api.store.list("")) == []
        assert leftovers(api) == ([], [])


async def test_a_deployment_that_cannot_be_recorded_keeps_the_parts(api: Api) -> None:
    await begin(api)
    for number in range(3):
        await put(api, number)
    api.dispatch.down.add("start_deploy")
    assert_problem(await offer(api, DIGEST), 503, "unavailable")
    api.dispatch.down.clear()
    assert len(leftovers(api)[0]) == 3
    assert (await offer(api, DIGEST)).status_code == 202
    assert leftovers(api) == ([], [])


async def test_a_digest_is_no_right_to_another_projects_parts(api: Api) -> None:
    await begin(api)
    for number in range(3):
        await put(api, number)
    assert_problem(await offer(api, DIGEST, project="other"), 404, "source_unknown")
    assert (await begin(api, project="other")).json()["missing"] == [0, 1, 2]
    assert_problem(await put(api, 0, project="third"), 404, "upload_not_found")
    made = await api.http.post("/v1/keys", json={"name": "k", "scopes": ["deploy"], "project": "third"})
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    for method, path in (("POST", ""), ("PUT", f"/{DIGEST}/parts/0")):
        body: dict[str, Any] = (
            {"json": {"source_sha256": DIGEST, "size_bytes": len(SOURCE)}} if method == "POST" else {"content": b"x"}
        )
        refused = await api.http.request(method, f"/v1/projects/crew/uploads{path}", headers=headers, **body)
        assert_problem(refused, 403, "forbidden")


async def test_wrong_parts_say_what_would_be_right(api: Api) -> None:
    assert_problem(await put(api, 0), 404, "upload_not_found")
    await begin(api)
    last = len(SOURCE) - 2 * PART
    for number, content, detail in (
        (3, b"", f"its {len(SOURCE):,} bytes are the parts 0 to 2"),
        (-1, b"", "has no part -1"),
        (0, b"", "Part 0 has 100,000 bytes, not 0"),
        (0, SOURCE[: PART - 1], "Part 0 has 100,000 bytes, not 99,999"),
        (2, SOURCE[2 * PART :] + b"x", f"Part 2 has {last:,} bytes, not {last + 1:,}"),
        (2, SOURCE[:PART], f"Part 2 has {last:,} bytes, not 100,000"),
    ):
        problem = assert_problem(await put(api, number, content), 400, "invalid_part")
        assert detail in problem["detail"]
        assert problem["hint"]
    assert_problem(await put(api, 0, digest="../../etc"), 404, "not_found")
    assert_problem(await put(api, 0, digest="A" * 64), 422, "validation_error")
    assert_problem(await begin(api, source_sha256="x"), 422, "validation_error")
    assert_problem(await begin(api, size_bytes=0), 422, "validation_error")
    assert_problem(await begin(api, size_bytes=1_000_001), 413, "source_too_large")
    assert_problem(await begin(api, size_bytes=5), 409, "upload_conflict")
    assert_problem(await begin(api, project="No Name"), 400, "invalid_request")
    assert list(api.store.list("")) == []


async def test_a_part_is_limited_before_it_is_read(served: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await begin(served)
    path = f"/v1/projects/crew/uploads/{DIGEST}/parts/0"

    async def endless() -> Any:
        for _ in range(200):
            yield bytes(100_000)

    refused = await served.http.put(path, content=endless())
    assert_problem(refused, 413, "too_large")
    assert list(served.store.list("uploads/")) == []


async def test_a_project_that_is_being_deleted_takes_none(ready: Api) -> None:
    with db.session(ready.platform.database) as session:
        project = session.get_one(Project, "crew")
        project.deleting = True
        session.add(project)
    assert_problem(await begin(ready), 409, "project_deleting")


async def test_uploads_that_nobody_goes_on_with_make_room(api: Api) -> None:
    await begin(api)
    await put(api, 0)
    with db.session(api.platform.database) as session:
        row = session.get_one(Upload, ("crew", DIGEST))
        row.touched_at = now() - timedelta(hours=1)
        session.add(row)
    for number in range(uploads.MAX_OPEN):
        assert (await begin(api, source_sha256=f"{number:064x}")).status_code == 201
    objects, rows = leftovers(api)
    assert objects == []
    assert len(rows) == uploads.MAX_OPEN
    assert DIGEST not in rows
    assert_problem(await put(api, 1), 404, "upload_not_found")


async def test_a_part_that_comes_while_its_upload_is_dropped_stays_nowhere(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(api)
    keep = api.store.put

    def put_and_lose(key: str, data: Any) -> int:
        size = keep(key, data)
        with db.session(api.platform.database) as session:
            session.delete(session.get_one(Upload, ("crew", DIGEST)))
        return size

    monkeypatch.setattr(api.store, "put", put_and_lose)
    assert_problem(await put(api, 0), 404, "upload_not_found")
    assert leftovers(api) == ([], [])


async def test_two_that_begin_the_same_at_once(api: Api) -> None:
    answers = await asyncio.gather(*(begin(api) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]


async def test_the_whole_upload_goes_on_working(api: Api) -> None:
    assert (await upload(api, SOURCE)).status_code == 202
    assert leftovers(api) == ([], [])
