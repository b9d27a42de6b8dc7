import re
from pathlib import Path

import pytest

from crewship.errors import Unavailable
from crewship.folder_storage import FolderStore
from crewship.settings import Settings
from tests.api.conftest import Api, assert_problem, fill, running
from tests.api.test_runs import run
from tests.crewship.test_source import member, packed


async def test_alive_and_ready_without_a_key(api: Api) -> None:
    nobody = {"authorization": ""}
    assert (await api.http.get("/healthz", headers=nobody)).json() == {"status": "ok"}
    assert (await api.http.head("/healthz", headers=nobody)).status_code == 200
    ready = (await api.http.get("/readyz", headers=nobody)).json()
    assert ready["ready"] is True
    assert [(row["name"], row["ok"], row["required"]) for row in ready["dependencies"]] == [
        ("database", True, True), ("object_store", True, True), ("temporal", True, True),
        ("container_engine", True, False), ("network", True, False), ("worker", True, False),
    ]  # fmt: skip


async def test_without_a_worker_the_api_is_ready_and_says_so(api: Api) -> None:
    api.dispatch.worker_count = 0
    ready = (await api.http.get("/readyz")).json()
    assert ready["ready"] is True
    assert ready["dependencies"][5]["ok"] is False
    assert ready["dependencies"][5]["hint"]


async def test_a_dependency_that_is_down_is_named(api: Api) -> None:
    api.dispatch.down.add("all")
    problem = assert_problem(await api.http.get("/readyz"), 503, "unavailable")
    assert [row["ok"] for row in problem["dependencies"]] == [True, True, False, True, True, False]
    assert "temporal" in problem["detail"]


async def test_an_object_store_that_is_lost_is_no_empty_one(ready: Api, tmp_path: Path) -> None:
    store, elsewhere = tmp_path / "objects", tmp_path / "elsewhere"
    ready.add(run(1, status="succeeded", last_seq=3))
    store.rename(elsewhere)
    problem = assert_problem(await ready.http.get("/readyz"), 503, "unavailable")
    assert [row["ok"] for row in problem["dependencies"]] == [True, False, True, True, True, True]
    assert "object store" in problem["detail"]
    for method, path, arguments in [
        ("GET", "/v1/runs/run_000000000001/events", {}),
        ("POST", "/v1/projects/crew/deployments", {"files": {"source": packed(member("crew.py"))}}),
    ]:
        problem = assert_problem(await ready.http.request(method, path, **arguments), 503, "unavailable")
        assert "object store" in problem["detail"]
        assert "crewship doctor" in problem["hint"]
    assert not store.exists()
    elsewhere.rename(store)
    assert (await ready.http.get("/readyz")).status_code == 200


async def test_an_object_store_is_made_when_nothing_was_ever_stored(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as down:
        down.setattr(FolderStore, "create", _unavailable)  # as a server that starts after the API
        async with running(settings, tmp_path, served=False) as api:
            assert_problem(await api.http.get("/readyz"), 503, "unavailable")
            down.undo()
            assert (await api.http.get("/readyz")).status_code == 200
            fill(api)
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    async with running(settings, tmp_path, served=False) as api:  # and not when the API starts without it
        assert_problem(await api.http.get("/readyz"), 503, "unavailable")


def _unavailable(_: FolderStore) -> None:
    raise Unavailable("The object store does not answer.")


async def test_metrics_count_by_operation_not_by_path(ready: Api) -> None:
    ready.add(run(1, status="succeeded"))
    await ready.http.get("/v1/runs/run_000000000001")
    await ready.http.get("/v1/runs/run_nobody")
    await ready.http.get("/nowhere")
    text = (await ready.http.get("/metrics")).text
    assert 'crewship_http_requests_total{method="GET",operation="get_run_by_id",status="200"} 1.0' in text
    assert 'crewship_http_requests_total{method="GET",operation="get_run_by_id",status="404"} 1.0' in text
    assert 'operation="none",status="404"} 1.0' in text
    assert 'crewship_runs{status="succeeded"} 1.0' in text
    assert "nobody" not in text


async def test_metrics_can_be_opened(settings: Settings, tmp_path: Path) -> None:
    async with running(settings.model_copy(update={"metrics_open": True}), tmp_path, served=False) as api:
        assert (await api.http.get("/metrics", headers={"authorization": ""})).status_code == 200


async def test_pages_of_the_listed_origins_may_call(api: Api) -> None:
    headers = {"origin": "https://app.example", "access-control-request-method": "GET"}
    allowed = await api.http.options("/v1/runs", headers=headers)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    refused = await api.http.options("/v1/runs", headers=headers | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    error = await api.http.get("/v1/nothing", headers={"origin": "https://app.example"})
    assert error.headers["access-control-allow-origin"] == "https://app.example"


async def test_the_document_describes_the_calls(api: Api) -> None:
    document = (await api.http.get("/openapi.json", headers={"authorization": ""})).json()
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert "create_run" in operations
    upload = document["paths"]["/v1/projects/{project}/deployments"]["post"]["requestBody"]["content"]
    assert "source" in upload["multipart/form-data"]["schema"]["properties"]


async def test_the_page_of_the_document_loads_nothing_from_elsewhere(api: Api) -> None:
    page = await api.http.get("/docs", headers={"authorization": ""})
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in [*loaded, "/openapi.json"]:
        assert address.startswith("/")
        assert (await api.http.get(address, headers={"authorization": ""})).status_code == 200
    assert "//" not in re.sub(r"(?m)^\s*//.*$", "", page.text).replace("window.location.origin", "")
    assert '"validatorUrl": null' in page.text
    for path in ("/redoc", "/docs/static/", "/docs/static/nothing.js", "/docs/static/../core.py"):
        assert_problem(await api.http.get(path), 404, "not_found")
