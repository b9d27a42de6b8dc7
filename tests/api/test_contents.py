import json

import pytest

from crewship import contents
from crewship.contents import Build
from crewship.models import Activation, Deployment
from crewship.source import SourceFile
from crewship.system_packages import SystemPackage, SystemPackages
from tests.api.conftest import Api, assert_problem

BASE = f"sha256:{'b' * 64}"


def build(lock: str, base: str = BASE, openssl: str = "3.0.1") -> Build:
    system = SystemPackages("debian", "12", (SystemPackage("openssl", openssl, "amd64"),))
    return Build("crewship/base:py3.11-abc", base, "3.11.2", lock, system)


@pytest.fixture
def built(ready: Api) -> Api:
    """Whose two deployments have contents."""
    file = SourceFile("1" * 64, 10, False)
    contents.keep_files(ready.store, "dep_1", {"crew.py": file, "old name.py": file, "run.sh": file})
    contents.keep_files(
        ready.store, "dep_2",
        {"crew.py": SourceFile("2" * 64, 12, False), "new/ü.txt": file, "run.sh": SourceFile("1" * 64, 10, True)},
    )  # fmt: skip
    contents.keep_build(ready.store, "dep_1", build("httpx==0.27.0\nold-one==1.0\nkept==1\n"))
    contents.keep_build(
        ready.store, "dep_2", build("httpx==0.28.1\nkept==1\nNew_One @ https://example.org/new.whl\n", openssl="3.0.2")
    )
    return ready


async def test_the_lock_is_shown_as_it_is(built: Api) -> None:
    answer = await built.http.get("/v1/deployments/dep_1/lock")
    assert (answer.status_code, answer.text) == (200, "httpx==0.27.0\nold-one==1.0\nkept==1\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_the_bill_of_materials_names_what_there_is_and_is_always_the_same(built: Api) -> None:
    answer = await built.http.get("/v1/deployments/dep_2/sbom")
    assert answer.headers["content-type"].startswith("application/vnd.cyclonedx+json")
    assert (await built.http.get("/v1/deployments/dep_2/sbom")).content == answer.content
    found = answer.json()
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == "crew"
    assert {item.get("purl", item["name"]) for item in found["components"]} == {
        "crewship/base",
        "pkg:pypi/httpx@0.28.1",
        "pkg:pypi/kept@1",
        "pkg:pypi/new-one",
        "pkg:deb/debian/openssl@3.0.2?arch=amd64&distro=debian-12",
    }
    (base,) = [item for item in found["components"] if item["type"] == "container"]
    assert base["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]
    (new,) = [item for item in found["components"] if item["name"] == "New_One"]
    assert new["externalReferences"][0]["url"] == "https://example.org/new.whl"


async def test_what_differs_between_two(built: Api) -> None:
    built.add(
        Activation(project="crew", deployment_id="dep_1", previous_deployment_id="dep_2", previous_env_version=1),
    )
    for values in ({"KEPT": "1", "CHANGED": "old-secret", "GONE": "1"}, {"CHANGED": "new-secret", "NEW": "1"}):
        await built.http.patch("/v1/projects/crew/env", json={"set": values})
    await built.http.patch("/v1/projects/crew/env", json={"unset": ["GONE"]})
    row = built.row(Deployment, "dep_2")
    row.config = row.config | {"run": {"memory": "512m", "cpus": None}}
    built.add(row)
    answer = await built.http.get("/v1/deployments/dep_2/diff/dep_1")
    found = answer.json()
    assert answer.status_code == 200, found
    assert (found["before"], found["after"], found["same"]) == ("dep_2", "dep_1", False)
    assert [item["name"] for item in found["files"]["added"]] == ["old name.py"]
    assert [item["name"] for item in found["files"]["removed"]] == ["new/ü.txt"]
    assert [(item["name"], item["after"]["size_bytes"], item["after"]["executable"])
            for item in found["files"]["changed"]] == [("crew.py", 10, False), ("run.sh", 10, False)]  # fmt: skip
    assert found["dependencies"] == {
        "added": [{"name": "old-one", "version": "1.0"}],
        "removed": [{"name": "new-one", "version": "https://example.org/new.whl"}],
        "changed": [{"name": "httpx", "before": "0.28.1", "after": "0.27.0"}],
    }
    assert found["system_packages"]["changed"] == [{"name": "openssl:amd64", "before": "3.0.2", "after": "3.0.1"}]
    assert found["config"] == [{"key": "run.memory", "before": "512m", "after": None}]
    assert found["env"] == {
        "before": 1, "after": 3, "changes": {"added": ["NEW"], "removed": ["GONE"], "changed": ["CHANGED"]}
    }  # fmt: skip
    assert "secret" not in answer.text


async def test_another_base_image_is_a_difference(built: Api) -> None:
    contents.keep_files(built.store, "dep_2", contents.read_files(built.store, "dep_1") or {})
    lock = (contents.read_build(built.store, "dep_1") or build("")).lock
    contents.keep_build(built.store, "dep_2", build(lock))
    assert (await built.http.get("/v1/deployments/dep_1/diff/dep_2")).json()["same"] is True
    contents.keep_build(built.store, "dep_2", build(lock, base=f"sha256:{'c' * 64}"))
    found = (await built.http.get("/v1/deployments/dep_1/diff/dep_2")).json()
    assert (found["same"], [item["key"] for item in found["config"]]) == (False, ["base_image"])


async def test_what_is_not_known_is_said(ready: Api) -> None:
    assert_problem(await ready.http.get("/v1/deployments/dep_1/lock"), 409, "contents_not_kept")
    assert_problem(await ready.http.get("/v1/deployments/dep_1/diff/dep_2"), 409, "contents_not_kept")
    assert_problem(await ready.http.get("/v1/deployments/dep_x/sbom"), 404, "deployment_not_found")
    assert_problem(await ready.http.get("/v1/deployments/dep_1/diff/dep_x"), 404, "deployment_not_found")
    for number, status in enumerate(("building", "failed")):
        name = f"dep_w{number}"
        ready.add(Deployment(id=name, project="crew", status=status, host="h", source_key="k", source_sha256="s"))
        assert_problem(await ready.http.get(f"/v1/deployments/{name}/lock"), 409, "deployment_not_ready")
    # One that failed has files, which tell what has broken it.
    contents.keep_files(ready.store, "dep_1", {})
    contents.keep_files(ready.store, "dep_w1", {"crew.py": SourceFile("2" * 64, 12, False)})
    found = (await ready.http.get("/v1/deployments/dep_1/diff/dep_w1")).json()
    assert (found["dependencies"], [item["name"] for item in found["files"]["added"]]) == (None, ["crew.py"])


def test_files_of_before_can_be_read(built: Api) -> None:
    """The form in which contents are kept; deployments outlive the code."""
    kept = json.loads(b"".join(built.store.open("deployments/dep_2/files.json")))
    assert kept["run.sh"] == {"sha256": "1" * 64, "size_bytes": 10, "is_executable": True}
    kept = json.loads(b"".join(built.store.open("deployments/dep_1/build.json")))
    assert kept["lock"].startswith("httpx==0.27.0\n")
    assert kept["system"]["packages"] == [{"name": "openssl", "version": "3.0.1", "architecture": "amd64"}]
