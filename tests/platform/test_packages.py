"""Packages from an index of the test's own: the same ones again for the same inputs, and private ones for builds alone."""

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import docker.errors
import pytest

from crewship.workbench import AHEAD_PREFIX
from tests.crewship.test_build_dependencies import _contains, _wheel
from tests.fixtures.index import Index, serving
from tests.fixtures.platform import CrewshipDev, running, until

pytestmark = pytest.mark.platform

CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'
CREW = "import os, changing\n\n\ndef kickoff(inputs):\n    return changing.version\n"


@pytest.fixture(scope="module")
def index() -> Iterator[Index]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def dev(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewshipDev]:
    """A platform whose builds take packages from the test's index, which is on this host, where guarded builds reach nothing."""
    settings = {"CREWSHIP_BUILD_INDEX_URL": index.url, "CREWSHIP_NETWORK_GUARD": "off"}
    with running(CrewshipDev(tmp_path_factory.mktemp("packages"), settings)) as dev:
        yield dev


def lock(dev: CrewshipDev, deployment: str) -> list[str]:
    return dev.http.get(f"/deployments/{deployment}/lock").text.splitlines()


def forget_dependencies(dev: CrewshipDev, deployment: str) -> None:
    """What retention does once no image is built on it: that of the deployment's packages, and its own, go."""
    engine = docker.from_env()
    image = dev.get(f"/deployments/{deployment}")["image"]
    parent = engine.api.inspect_image(image)["Parent"]
    dev.remove_image(deployment)
    for bench in until(lambda: [each for each in dev.containers(AHEAD_PREFIX) if each.attrs["Image"] == parent]):
        bench.remove(force=True)
    for tag in engine.api.inspect_image(parent)["RepoTags"]:
        engine.api.remove_image(tag)
    with pytest.raises(docker.errors.ImageNotFound):
        engine.api.inspect_image(parent)
    engine.close()


def said(dev: CrewshipDev, deployment: str) -> str:
    return "\n".join(str(event["data"].get("message")) for event in dev.ndjson(f"/deployments/{deployment}/events"))


def test_the_same_inputs_give_the_same_packages_when_their_image_is_gone(dev: CrewshipDev, index: Index) -> None:
    index.add_wheel("changing", "1.0", needs=("below>=1",))
    index.add_wheel("below", "1.1")
    unique = f"# {secrets.token_hex(8)}\n"
    files: dict[str, str | bytes] = {
        "crewship.toml": CONFIG,
        "crew.py": CREW,
        "requirements.txt": f"changing>=1\n{unique}",
    }
    first = dev.deploy("again", files)
    assert first["status"] == "ready", first["error"]
    assert lock(dev, first["id"]) == ["below==1.1", "changing==1.0"]
    index.add_wheel("changing", "2.0")
    index.add_wheel("below", "1.2")
    forget_dependencies(dev, first["id"])
    second = dev.deploy("again", files)
    assert second["status"] == "ready", second["error"]
    assert lock(dev, second["id"]) == ["below==1.1", "changing==1.0"]
    assert "Versions as they were installed before" in said(dev, second["id"])
    other = dev.deploy("elsewhere", files)  # the same inputs in another project
    assert lock(dev, other["id"]) == ["below==1.1", "changing==1.0"]
    asked = dev.deploy("again", files | {"requirements.txt": f"changing>=1\n{unique}#\n"})  # other inputs
    assert lock(dev, asked["id"]) == ["changing==2.0"]


def test_versions_that_nobody_has_any_more_are_no_reason_to_fail(dev: CrewshipDev, index: Index) -> None:
    index.add_wheel("passing", "1.0")
    files: dict[str, str | bytes] = {
        "crewship.toml": CONFIG,
        "crew.py": CREW.replace("changing", "passing"),
        "requirements.txt": f"passing\n# {secrets.token_hex(8)}\n",
    }
    first = dev.deploy("passing", files)
    assert lock(dev, first["id"]) == ["passing==1.0"]
    index.remove("passing-1.0-py3-none-any.whl")
    index.add_wheel("passing", "1.1")
    forget_dependencies(dev, first["id"])
    anew = dev.deploy("passing", files)
    assert anew["status"] == "ready", anew["error"]
    assert lock(dev, anew["id"]) == ["passing==1.1"]
    assert "cannot be had any more: resolved anew" in said(dev, anew["id"])


def test_a_private_index_is_for_builds_alone(dev: CrewshipDev, tmp_path: Path) -> None:
    password, runtime = f"pw-{secrets.token_hex(12)}", f"rt-{secrets.token_hex(12)}"
    files: dict[str, str | bytes] = {
        "crewship.toml": CONFIG,
        "crew.py": "import os, hidden\n\n\ndef kickoff(inputs):\n"
        "    return {'build': hidden.names, 'run': sorted(os.environ)}\n",
        "requirements.txt": f"hidden\n# {secrets.token_hex(8)}\n",
    }
    with serving(f"builder:{password}") as private:
        private.add_source("hidden", _wheel("hidden", "names = sorted(os.environ)", "'names = ' + repr(names)"))
        dev.http.patch("/projects/private/env", json={"set": {"RUN_ONLY": runtime}}).raise_for_status()
        secret = {"UV_DEFAULT_INDEX": private.url}
        dev.http.patch("/projects/private/build-secrets", json={"set": secret}).raise_for_status()
        refused = dev.deploy("private", files)
        assert (refused["status"], refused["error"]["code"]) == ("failed", "dependency_resolution"), refused
        assert "does not let the build in" in refused["error"]["message"]
        assert "env set --build" in refused["error"]["hint"]
        assert not any(allowed for _, allowed in private.asked)

        secret = {"UV_DEFAULT_INDEX": private.private_url}
        dev.http.patch("/projects/private/build-secrets", json={"set": secret}).raise_for_status()
        made = dev.deploy("private", files)
        assert made["status"] == "ready", made["error"]
        assert ("/files/hidden-1.0.tar.gz", True) in private.asked
    assert lock(dev, made["id"]) == ["hidden==1.0"]
    run = dev.run("private")
    assert run["status"] == "succeeded", run
    assert "UV_DEFAULT_INDEX" in run["output"]["build"]
    assert "RUN_ONLY" not in run["output"]["build"]
    assert "RUN_ONLY" in run["output"]["run"]
    assert "UV_DEFAULT_INDEX" not in run["output"]["run"]
    for deployment in (refused, made):
        events = dev.read(f"/deployments/{deployment['id']}/events").decode()
        assert password not in events
        assert runtime not in events
    engine = docker.from_env()
    assert password not in json.dumps(engine.api.history(made["image"]))
    for needle in (password, runtime):
        assert not _contains(engine.api, made["image"], tmp_path / "image.tar", needle.encode())
        assert not [path for path in _files(dev.data) if needle.encode() in path.read_bytes()]
    engine.close()


def _files(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names if not name.endswith(".sock")]
