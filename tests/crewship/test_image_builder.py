"""Builds on a real engine: what is in an image, what is not, what is done only once, and how builds fail."""

import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crewship.builds import BuildFailed, BuiltImage, app_image
from crewship.config import DeploymentConfig
from crewship.docker_engine import DockerEngine
from crewship.engine import LABEL_INSTANCE, Limits
from crewship.image_builder import ImageBuilder
from crewship.settings import Settings
from tests.fixtures.builds import CONFIG, CREW, RecordedLog, local_package, pack
from tests.fixtures.engine import connection, engine, engine_settings, platform_image  # noqa: F401

pytestmark = pytest.mark.docker

LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)


@pytest.fixture(scope="module")
def builder(engine: DockerEngine, engine_settings: Settings, platform_image: str) -> Iterator[ImageBuilder]:  # noqa: F811
    builder = ImageBuilder(engine, engine_settings)
    yield builder
    builder.close()


def new_id() -> str:
    return f"dep_{secrets.token_hex(6)}"


def build(builder: ImageBuilder, upload: Path, log: RecordedLog | None = None, **options: str) -> BuiltImage:
    config = CONFIG.model_copy(update=options)
    return builder.build(new_id(), "test-project", config, upload, log or RecordedLog())


def failure(builder: ImageBuilder, upload: Path, log: RecordedLog | None = None) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        build(builder, upload, log)
    return caught.value


def test_an_image_of_a_project_without_dependencies(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    log, deployment_id = RecordedLog(), new_id()
    built = builder.build(deployment_id, "test-project", CONFIG, pack(tmp_path, {"pkg/data.txt": "1"}), log)
    assert engine.image_exists(built.image_id)
    assert engine.image_exists(app_image(deployment_id))
    assert (built.lock, built.python.rpartition(".")[0]) == ("", "3.11")
    assert [name for name, status, _ in log.steps if status == "completed"] == ["dependencies", "image"]
    assert [step.name for step in built.steps] == ["dependencies", "image"]
    found = engine.connection.api.inspect_image(built.image_id)
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["WorkingDir"] == "/app"
    assert found["Config"]["Entrypoint"][1:] == ["-I", "-S", "/opt/crewship/runtime/supervisor.py"]
    assert not found["Config"]["Volumes"]
    assert not found["Config"]["Cmd"]
    assert found["Config"]["Labels"]["crewship.deployment"] == deployment_id
    assert found["Config"]["Labels"]["crewship.instance"] == engine.instance


def test_bytecode_is_compiled_and_not_checked_against_times(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    crew = """
import importlib.util, os, socket, idna
def flags(path):
    with open(importlib.util.cache_from_source(path), "rb") as file:
        return int.from_bytes(file.read(8)[4:], "little")
print(flags("/opt/crewship/source/crew.py"), flags("/opt/crewship/runtime/session.py"), flags(idna.__file__))
print(os.path.exists(importlib.util.cache_from_source(os.__file__)), os.path.exists("/opt/crewship/source/broken.py"))
print(sorted(os.listdir("/opt/crewship/source")), os.listdir("/build"), os.listdir("/cache"), os.access("/opt", os.W_OK))
print(socket.gethostbyname("localhost"))
def kickoff(inputs): ...
"""
    upload = pack(tmp_path, {"broken.py": "def f(:\n", "requirements.txt": "idna==3.10\n"}, crew=crew)
    built, log = build(builder, upload), RecordedLog()
    assert built.lock == "idna==3.10\n"
    facts = builder.smoke(new_id(), built.image_id, CONFIG, LIMITS, {}, log)
    assert facts.kind == "function"
    unchecked_hash = 1
    assert [message for message, _, _ in log.lines] == [
        f"{unchecked_hash} {unchecked_hash} {unchecked_hash}",
        "True True",
        "['__pycache__', 'broken.py', 'crew.py', 'crewship.toml', 'requirements.txt'] [] [] False",
        "127.0.0.1",  # without a network as well
    ]


def test_a_change_of_the_source_alone_installs_nothing(builder: ImageBuilder, tmp_path: Path) -> None:
    requirements = {
        "requirements.txt": f"-r more/base.txt  # {secrets.token_hex(8)}\n",
        "more/base.txt": "idna>=3,<4\n",
    }
    first = build(builder, pack(tmp_path, requirements))
    assert not first.dependencies_cached
    log = RecordedLog()
    second = build(builder, pack(tmp_path, requirements, crew=CREW + "# changed\n"), log)
    assert second.dependencies_cached
    assert ("dependencies", "completed", True) in log.steps
    assert log.lines == []
    assert second.lock == first.lock != ""
    assert second.image_id != first.image_id
    changed = build(builder, pack(tmp_path, {**requirements, "more/base.txt": "idna>=3.1,<4\n"}))
    assert not changed.dependencies_cached


def test_two_builds_at_once_install_once(builder: ImageBuilder, tmp_path: Path) -> None:
    unique = f"# {secrets.token_hex(8)}\n"
    upload = pack(tmp_path, {"requirements.txt": unique})
    built: list[BuiltImage] = []
    threads = [threading.Thread(target=lambda: built.append(build(builder, upload))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(image.dependencies_cached for image in built) == [False, True, True]


def test_a_build_that_is_repeated_replaces_its_image(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    deployment_id, upload = new_id(), pack(tmp_path, {})
    first = builder.build(deployment_id, "test-project", CONFIG, upload, RecordedLog())
    second = builder.build(deployment_id, "test-project", CONFIG, upload, RecordedLog())
    assert not engine.image_exists(first.image_id)
    assert engine.image_exists(second.image_id)


@pytest.mark.parametrize("requirement", ["idna>=9999", "crewship-has-no-such-package==1"])
def test_what_cannot_be_resolved(builder: ImageBuilder, tmp_path: Path, requirement: str) -> None:
    failed = failure(builder, pack(tmp_path, {"requirements.txt": f"{requirement}\n"}))
    assert failed.code == "dependency_resolution"
    assert requirement.partition("=")[0].rstrip(">") in failed.message
    assert "requirements.txt" in (failed.hint or "")


def test_a_line_that_is_no_requirement(builder: ImageBuilder, tmp_path: Path) -> None:
    failed = failure(builder, pack(tmp_path, {"requirements.txt": "idna == three point ten\n"}))
    assert failed.code == "dependency_resolution"
    assert "requirements.txt" in failed.message


def test_pyproject(builder: ImageBuilder, tmp_path: Path) -> None:
    pyproject = '[project]\nname = "x"\nversion = "1"\nrequires-python = "{}"\ndependencies = ["idna==3.10"]\n'
    built = build(builder, pack(tmp_path, {"pyproject.toml": pyproject.format(">=3.10,<3.14")}))
    assert built.lock == "idna==3.10\n"
    failed = failure(builder, pack(tmp_path, {"pyproject.toml": pyproject.format(">=3.99")}))
    assert failed.code == "python_version"
    assert ">=3.99" in failed.message


def test_a_python_that_cannot_be_had(builder: ImageBuilder, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as caught:
        build(builder, pack(tmp_path, {}), python="3.7")
    assert caught.value.code == "python_version"
    assert "3.7" in caught.value.message


def test_code_of_a_package_is_built_without_privileges(builder: ImageBuilder, tmp_path: Path) -> None:
    look = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
facts = [status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")]
found = [path for path in ("/var/run/docker.sock", "/run/docker.sock") if os.path.exists(path)]
raise SystemExit(f"FACTS {facts} {found} {sorted(name for name in os.environ if 'CREWSHIP' in name)}")
"""
    log = RecordedLog()
    failed = failure(builder, pack(tmp_path, local_package("nosy", look)), log)
    assert failed.code == "build_failed"
    assert "nosy" in failed.message
    assert "FACTS ['0000000000000000', '0000000000000000', '1', '2'] [] []" in log.text


def test_a_package_of_the_project_itself(builder: ImageBuilder, tmp_path: Path) -> None:
    wheel = """
import zipfile
name = "homemade-1.0-py3-none-any.whl"
with zipfile.ZipFile(os.path.join(directory, name), "w") as file:
    file.writestr("homemade.py", "print('made at home')")
    file.writestr("homemade-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: homemade\\nVersion: 1.0\\n")
    file.writestr("homemade-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    file.writestr("homemade-1.0.dist-info/RECORD", "")
return name
"""
    crew = "import homemade\nassert 'site-packages' in homemade.__file__\ndef kickoff(inputs): ...\n"
    built = build(builder, pack(tmp_path, local_package("homemade", wheel), crew=crew))
    log = RecordedLog()
    builder.smoke(new_id(), built.image_id, CONFIG, LIMITS, {}, log)
    assert log.text == "made at home"


def test_a_cancel_stops_a_build(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    cancel = threading.Event()
    log = RecordedLog(on_line=lambda line: cancel.set() if line.startswith("Python 3.") else None)
    upload = pack(tmp_path, local_package(f"endless{secrets.token_hex(3)}", "import time; time.sleep(600)"))
    with pytest.raises(BuildFailed) as caught:
        builder.build(new_id(), "test-project", CONFIG, upload, log, cancel)
    assert caught.value.code == "canceled"
    assert log.steps[-1] == ("dependencies", "failed", False)
    assert engine.list("build") == []
    with pytest.raises(BuildFailed) as caught:
        builder.build(new_id(), "test-project", CONFIG, upload, log, cancel)
    assert caught.value.code == "canceled"


def test_a_build_that_takes_too_long(
    engine: DockerEngine,  # noqa: F811
    engine_settings: Settings,  # noqa: F811
    tmp_path: Path,
) -> None:
    builder = ImageBuilder(engine, engine_settings.model_copy(update={"build_timeout_seconds": 3}))
    upload = pack(tmp_path, local_package(f"endless{secrets.token_hex(3)}", "import time; time.sleep(600)"))
    failed = failure(builder, upload)
    builder.close()
    assert (failed.code, "3 s" in failed.message) == ("build_failed", True)
    assert engine.list("build") == []


def test_an_index_that_cannot_be_reached(
    engine: DockerEngine,  # noqa: F811
    engine_settings: Settings,  # noqa: F811
    tmp_path: Path,
) -> None:
    url = "http://someone:swordfish99@127.0.0.1:9/simple"
    builder = ImageBuilder(engine, engine_settings.model_copy(update={"build_index_url": url}))
    log = RecordedLog()
    failed = failure(builder, pack(tmp_path, {"requirements.txt": "idna\n"}), log)
    assert failed.code == "infrastructure"
    assert "127.0.0.1" in failed.message
    assert "swordfish99" not in failed.message + (failed.hint or "") + log.text
    built = build(builder, pack(tmp_path, {}), log)
    builder.close()
    api = engine.connection.api
    for layer in api.history(built.image_id):
        if layer["Id"].startswith("sha256:"):
            text = json.dumps(api.inspect_image(layer["Id"]))
            assert "swordfish99" not in text
            assert "ca.pem" not in text


def test_nothing_is_left_but_images_and_the_cache(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    api = engine.connection.api
    build(builder, pack(tmp_path, {"requirements.txt": f"# {secrets.token_hex(8)}\n"}))
    failure(builder, pack(tmp_path, {"requirements.txt": "idna>=9999\n"}))
    assert engine.list() == []
    volumes = api.volumes(filters={"label": f"{LABEL_INSTANCE}={engine.instance}"})["Volumes"]
    assert [volume["Name"] for volume in volumes] == [f"crewship-{engine.instance}-cache-test-project"]


def test_an_upload_that_has_changed_since_it_was_checked(builder: ImageBuilder, tmp_path: Path) -> None:
    upload = pack(tmp_path, {"../outside": "x"})
    failed = failure(builder, upload)
    assert failed.code == "build_failed"
    assert not (tmp_path.parent / "outside").exists()


def test_configs_come_back_from_the_database() -> None:
    assert DeploymentConfig.model_validate(json.loads(CONFIG.model_dump_json())) == CONFIG
