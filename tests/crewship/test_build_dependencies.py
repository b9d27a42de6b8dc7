"""Dependencies of every kind that a project may have, installed by real builds; and what must not be in an image."""

import json
import os
import secrets
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uv

from crewship.build_secrets import BuildSecrets
from crewship.builds import LABEL_DEPENDENCIES, BuildFailed, BuiltImage
from crewship.config import BuildConfig
from crewship.docker_engine import DockerEngine
from crewship.image_builder import ImageBuilder
from crewship.settings import Settings
from tests.fixtures.builds import CONFIG, RecordedLog, local_package, pack
from tests.fixtures.engine import connection, engine, engine_settings, platform_image  # noqa: F401

pytestmark = pytest.mark.docker

PROJECT = """
[project]
name = "x"
version = "1"
requires-python = ">=3.10"
dependencies = [{}]
[project.optional-dependencies]
web = ["sniffio==1.3.1"]
[dependency-groups]
dev = ["six"]
"""
IDNA_310 = "946d195a0d259cbba61165e88e65941f16e9b36ea6ddb97f00452bae8b1287d3"
"""SHA-256 of idna-3.10-py3-none-any.whl."""


@pytest.fixture(scope="module")
def builder(engine: DockerEngine, engine_settings: Settings, platform_image: str) -> Iterator[ImageBuilder]:  # noqa: F811
    builder = ImageBuilder(engine, engine_settings)
    yield builder
    builder.close()


def build(
    builder: ImageBuilder,
    folder: Path,
    files: Mapping[str, str],
    log: RecordedLog | None = None,
    own: BuildSecrets | None = None,
    **options: Any,
) -> BuiltImage:
    config = CONFIG.model_copy(update=options)
    upload = pack(folder, files)
    deployment = f"dep_{secrets.token_hex(6)}"
    return builder.build(
        deployment, "test-dependencies", config, upload, log or RecordedLog(), secrets=own or BuildSecrets()
    )


def failure(builder: ImageBuilder, folder: Path, files: Mapping[str, str], **options: Any) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        build(builder, folder, files, **options)
    assert caught.value.hint
    return caught.value


def lock(folder: Path, files: Mapping[str, str], *arguments: str) -> str:
    """What ``uv`` writes for a project of ``files``: its ``uv.lock``."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run([uv.find_uv_bin(), *(arguments or ("lock", "--quiet"))], cwd=folder, env=env, check=True)
    return (folder / "uv.lock").read_text() if not arguments else ""


def test_requirements_of_every_form(builder: ImageBuilder, tmp_path: Path) -> None:
    files = local_package("lib", _wheel("lib")) | {
        "requirements.txt": "-r more/base.txt\n-c constraints.txt\nlib @ ./lib\n"
        "sniffio ; python_version < '4'\ntomli ; python_version < '3.8'\n",
        "more/base.txt": f"idna==3.10 \\\n    --hash=sha256:{IDNA_310}\nhttpx[http2]==0.28.1\n",
        "constraints.txt": "sniffio==1.3.0\n",
    }
    installed = build(builder, tmp_path, files).lock
    for line in ("idna==3.10", "sniffio==1.3.0", "httpx==0.28.1"):
        assert f"{line}\n" in installed, installed
    assert "h2==" in installed
    assert "tomli" not in installed
    assert "lib @ " in installed


def test_a_hash_that_does_not_match(builder: ImageBuilder, tmp_path: Path) -> None:
    failed = failure(builder, tmp_path, {"requirements.txt": f"idna==3.9 --hash=sha256:{'0' * 64}\n"})
    assert failed.code in ("dependency_resolution", "build_failed")
    assert "idna" in failed.message
    assert "sha256" in failed.message


@pytest.mark.parametrize("backend", ["hatchling", "setuptools", "flit_core", "poetry.core"])
def test_pyproject_with_any_backend(builder: ImageBuilder, tmp_path: Path, backend: str) -> None:
    package = {"poetry.core": "poetry-core"}.get(backend, backend)
    module = {"setuptools": ".build_meta", "flit_core": ".buildapi", "poetry.core": ".masonry.api"}.get(
        backend, ".build"
    )
    build_system = f'[build-system]\nrequires = ["{package}"]\nbuild-backend = "{backend}{module}"\n'
    built = build(builder, tmp_path, {"pyproject.toml": PROJECT.format('"idna==3.10"') + build_system})
    assert built.lock == "idna==3.10\n"  # neither extras nor groups


def test_dependencies_that_a_backend_computes(builder: ImageBuilder, tmp_path: Path) -> None:
    pyproject = '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'
    pyproject += '[tool.setuptools.dynamic]\ndependencies = {file = ["wanted.txt"]}\n'
    pyproject += '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    files = {"pyproject.toml": pyproject + "[tool.setuptools]\npy-modules = []\n", "wanted.txt": "idna==3.10\n"}
    assert build(builder, tmp_path, files).lock == "idna==3.10\n"


def test_extras_by_name(builder: ImageBuilder, tmp_path: Path) -> None:
    files = {"pyproject.toml": PROJECT.format('"idna==3.10"')}
    web = BuildConfig(extras=["web"])
    assert build(builder, tmp_path, files, build=web).lock == "idna==3.10\nsniffio==1.3.1\n"
    locked = files | {"uv.lock": lock(tmp_path / "locked", files)}
    assert build(builder, tmp_path, locked, build=web).lock == "idna==3.10\nsniffio==1.3.1\n"
    failed = failure(builder, tmp_path, {"requirements.txt": "idna\n"}, build=web)
    assert "extras (web)" in failed.message


def test_uv_lock_is_honoured(builder: ImageBuilder, tmp_path: Path) -> None:
    older = {"pyproject.toml": PROJECT.format('"idna==3.9"')}
    locked = lock(tmp_path / "older", older).replace('specifier = "==3.9"', 'specifier = ">=3"')
    files = {"pyproject.toml": PROJECT.format('"idna>=3"'), "uv.lock": locked, "requirements.txt": "six\n"}
    log = RecordedLog()
    assert build(builder, tmp_path, files, log).lock == "idna==3.9\n"
    assert "Dependencies by uv.lock" in log.text
    assert "requirements.txt is not looked at" in log.text
    stale = failure(builder, tmp_path, files | {"pyproject.toml": PROJECT.format('"idna>=3", "six"')})
    assert stale.code == "dependency_resolution"
    assert "uv lock" in (stale.hint or "")


def test_uv_lock_with_a_package_of_the_project(builder: ImageBuilder, tmp_path: Path) -> None:
    files = {name: text for name, text in local_package("lib", _wheel("lib")).items() if name != "requirements.txt"}
    files["lib/pyproject.toml"] += '[project]\nname = "lib"\nversion = "1.0"\n'
    files["pyproject.toml"] = PROJECT.format('"lib"') + '[tool.uv.sources]\nlib = { path = "lib" }\n'
    files["uv.lock"] = lock(tmp_path / "project", files)
    assert build(builder, tmp_path, files).lock.startswith("lib @ ")


def test_pylock(builder: ImageBuilder, tmp_path: Path) -> None:
    project = {"pyproject.toml": PROJECT.format('"idna==3.9"')}
    lock(tmp_path / "p", project, "export", "--quiet", "--no-default-groups", "--no-emit-project", "-o", "pylock.toml")
    files = {"pylock.toml": (tmp_path / "p" / "pylock.toml").read_text(), "requirements.txt": "idna\n"}
    assert build(builder, tmp_path, files).lock == "idna==3.9\n"


POETRY = """
[tool.poetry]
name = "x"
version = "1"
description = ""
authors = []
package-mode = false
[tool.poetry.dependencies]
python = "^3.10"
idna = "^3.0"
[tool.poetry.group.dev.dependencies]
six = "*"
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""
POETRY_LOCK = """
[[package]]
name = "idna"
version = "{version}"
optional = false
python-versions = ">=3.6"
files = [{{file = "idna-{version}-py3-none-any.whl", hash = "sha256:{hash}"}}]
[[package]]
name = "six"
version = "1.16.0"
optional = false
python-versions = "*"
files = []
[metadata]
lock-version = "2.0"
"""


def test_poetry_lock_is_honoured(builder: ImageBuilder, tmp_path: Path) -> None:
    files = {"pyproject.toml": POETRY, "poetry.lock": POETRY_LOCK.format(version="3.10", hash=IDNA_310)}
    assert build(builder, tmp_path, files).lock == "idna==3.10\n"
    wrong = files | {"poetry.lock": POETRY_LOCK.format(version="3.10", hash="0" * 64)}
    assert "idna" in failure(builder, tmp_path, wrong).message
    stale = files | {"poetry.lock": POETRY_LOCK.format(version="2.10", hash=IDNA_310)}
    failed = failure(builder, tmp_path, stale)
    assert failed.code == "dependency_resolution"
    assert "poetry lock" in (failed.hint or "")


def test_poetrys_own_notation_without_a_lock(builder: ImageBuilder, tmp_path: Path) -> None:
    more = 'sniffio = {version = "~1.3.0", optional = true}\ntomli = {version = "*", python = "<3.8"}\n'
    pyproject = POETRY.replace('idna = "^3.0"\n', f'idna = "3.10"\n{more}').replace("[build-system]", "[tool.other]")
    pyproject += '[tool.poetry.extras]\nweb = ["sniffio"]\n'
    assert build(builder, tmp_path, {"pyproject.toml": pyproject}).lock == "idna==3.10\n"
    web = build(builder, tmp_path, {"pyproject.toml": pyproject}, build=BuildConfig(extras=["web"]))
    assert web.lock == "idna==3.10\nsniffio==1.3.1\n"
    no_extra = failure(builder, tmp_path, {"pyproject.toml": pyproject}, build=BuildConfig(extras=["wbe"]))
    assert "no extra wbe" in no_extra.message
    broken = failure(builder, tmp_path, {"pyproject.toml": pyproject.replace('"3.10"', '"three"')})
    assert broken.code == "dependency_resolution"
    assert "three" in broken.message


def test_each_of_several_has_what_its_own_file_says(builder: ImageBuilder, tmp_path: Path) -> None:
    files = local_package("lib", _wheel("lib")) | {
        "requirements.txt": "six\n",
        "reader/requirements.txt": "-r ../shared.txt\n../lib\n",
        "shared.txt": "idna==3.10\n",
        "writer/pyproject.toml": PROJECT.format('"sniffio==1.3.1"'),
        "poet/pyproject.toml": POETRY.replace('"^3.0"', '"3.9"'),
    }
    log = RecordedLog()
    reader = build(builder, tmp_path, files, log, build=BuildConfig(requirements="reader/requirements.txt"))
    assert reader.lock.splitlines()[0] == "idna==3.10"
    assert reader.lock.splitlines()[1].startswith("lib @ ")
    assert "Dependencies by reader/requirements.txt" in log.text
    assert (
        build(builder, tmp_path, files, build=BuildConfig(requirements="writer/pyproject.toml")).lock
        == "sniffio==1.3.1\n"
    )
    assert build(builder, tmp_path, files, build=BuildConfig(requirements="poet/pyproject.toml")).lock == "idna==3.9\n"
    writer = {name: text for name, text in files.items() if name == "writer/pyproject.toml"}
    locked = lock(tmp_path / "locked", {"pyproject.toml": writer["writer/pyproject.toml"]})
    both = writer | {"writer/uv.lock": locked}
    assert build(builder, tmp_path, both, build=BuildConfig(requirements="writer/uv.lock")).lock == "sniffio==1.3.1\n"


def test_a_repository_without_git(builder: ImageBuilder, tmp_path: Path) -> None:
    files = {"requirements.txt": "thing @ git+https://git.invalid/thing.git\n"}
    failed = failure(builder, tmp_path, files)
    assert failed.code == "dependency_resolution"
    assert "git.invalid" in failed.message
    assert 'apt = ["git"]' in (failed.hint or "")


def test_system_packages(builder: ImageBuilder, tmp_path: Path) -> None:
    crew = "import os\nassert os.path.exists('/usr/bin/tree')\ndef kickoff(inputs): ...\n"
    upload = pack(tmp_path, {"requirements.txt": f"# {secrets.token_hex(4)}\n"}, crew=crew)
    config = CONFIG.model_copy(update={"build": BuildConfig(apt=["tree"])})
    built = builder.build(f"dep_{secrets.token_hex(6)}", "test-dependencies", config, upload, RecordedLog())
    from crewship.engine import Limits

    limits = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)
    builder.smoke("dep_apt", built.image_id, config, limits, {}, RecordedLog())
    failed = failure(builder, tmp_path, {}, build=BuildConfig(apt=["no-such-package-anywhere"]))
    assert "no-such-package-anywhere" in failed.message
    assert "apt" in (failed.hint or "")


@pytest.mark.parametrize(
    ("files", "python", "words"),
    [
        ({"pyproject.toml": PROJECT.format("")}, "3.9", ('python = "3.9"', ">=3.10")),
        ({".python-version": "3.8\n"}, None, (".python-version: 3.8", "no base image for Python 3.8")),
        (
            {"pyproject.toml": PROJECT.format("").replace(">=3.10", "<3.9")},
            None,
            ('requires-python = "<3.9"', "no base image for Python 3.8"),
        ),
    ],
)
def test_a_python_that_cannot_be(
    builder: ImageBuilder, tmp_path: Path, files: dict[str, str], python: str | None, words: tuple[str, ...]
) -> None:
    log = RecordedLog()
    failed = failure(builder, tmp_path, files, python=python, log=log)
    assert failed.code == "python_version"
    for word in words:
        assert word in failed.message


# --- secrets of the build ---------------------------------------------------------------------------------------------

TOKEN = "tok-5Zr8kQ2mPw-build-secret"


def own(**values: str) -> BuildSecrets:
    return BuildSecrets(values, secrets.token_hex(8))


def test_a_build_secret_is_in_no_layer_no_log_and_no_history(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    files = local_package("sees", _wheel("sees", "print('the build has', os.environ['CORP_TOKEN'])")) | {
        "requirements.txt": "./sees\nidna==3.10\n"
    }
    log = RecordedLog()
    given = own(
        CORP_TOKEN=TOKEN,
        UV_EXTRA_INDEX_URL=f"https://someone:{TOKEN}@pypi.org/simple",
        UV_INDEX_CORP_PASSWORD=TOKEN,
        CA_BUNDLE="# a bundle\n",
    )
    built = build(builder, tmp_path, files, log, given)
    assert "idna==3.10" in built.lock
    assert TOKEN not in log.text + built.lock + repr(built) + repr(given)
    api = engine.connection.api
    assert TOKEN not in json.dumps(api.history(built.image_id))
    for layer in api.history(built.image_id):
        if layer["Id"].startswith("sha256:"):
            assert TOKEN not in json.dumps(api.inspect_image(layer["Id"]))
    assert not _contains(api, built.image_id, tmp_path / "image.tar", TOKEN.encode())
    # The same dependencies without these secrets, or with others, are another image.
    keys = {
        _dependencies_of(api, build(builder, tmp_path, files, own=each).image_id)
        for each in (given, own(CORP_TOKEN=TOKEN))
    }
    assert len(keys) == 2
    assert not any(TOKEN in json.dumps(state) for state in api.volumes()["Volumes"] or ())


def test_what_a_failing_package_says_is_redacted(builder: ImageBuilder, tmp_path: Path) -> None:
    files, log = local_package("tells", "raise SystemExit('no: ' + os.environ['CORP_TOKEN'])"), RecordedLog()
    failed = failure(builder, tmp_path, files, own=own(CORP_TOKEN=TOKEN), log=log)
    assert "no: [redacted:CORP_TOKEN]" in failed.message
    assert TOKEN not in failed.message + log.text


def test_a_package_that_writes_a_secret_down_fails_the_build(builder: ImageBuilder, tmp_path: Path) -> None:
    leak = "import base64\nleaked = base64.b64encode(b'x' + os.environ['CORP_TOKEN'].encode()).decode()"
    files = local_package("leaks", _wheel("leaks", leak, "'leaked = ' + repr(leaked)"))
    log = RecordedLog()
    failed = failure(builder, tmp_path, files, own=own(CORP_TOKEN=TOKEN), log=log)
    assert failed.code == "build_failed"
    assert "/leaks.py" in failed.message
    assert TOKEN not in failed.message + log.text


def test_credentials_in_a_requirement_are_forgotten(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    scheme, _, rest = _wheel_url("idna==3.10").partition("://")
    url = f"{scheme}://someone:${{CORP_TOKEN}}@{rest}"
    log = RecordedLog()
    built = build(builder, tmp_path, {"requirements.txt": f"idna @ {url}\n"}, log, own(CORP_TOKEN=TOKEN))
    assert built.lock.startswith("idna @ https://")
    assert TOKEN not in built.lock + log.text
    assert not _contains(engine.connection.api, built.image_id, tmp_path / "image.tar", TOKEN.encode())


def _wheel_url(requirement: str) -> str:
    """Where the index that this machine is set to has the wheel of a pure package."""
    command = [uv.find_uv_bin(), "pip", "compile", "-q", "--no-deps", "--format", "pylock.toml", "-"]
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=True)
    [package] = tomllib.loads(done.stdout)["packages"]
    return str(package["wheels"][0]["url"])


def _dependencies_of(api: Any, image: str) -> str:
    parent = api.inspect_image(image)["Parent"]
    return str(api.inspect_image(parent)["Config"]["Labels"][LABEL_DEPENDENCIES])


def _contains(api: Any, image: str, path: Path, needle: bytes) -> bool:
    """Whether a layer, or the configuration, of an image has ``needle`` in it."""
    with path.open("wb") as file:
        for chunk in api.get_image(image):
            file.write(chunk)
    with tarfile.open(path) as saved:
        for member in saved:
            if not member.isfile():
                continue
            blob = saved.extractfile(member)
            assert blob is not None
            try:
                with tarfile.open(fileobj=blob) as layer:
                    for entry in layer:
                        file_ = layer.extractfile(entry) if entry.isfile() else None
                        if needle in entry.name.encode() or (file_ is not None and needle in file_.read()):
                            return True
            except tarfile.ReadError:
                blob.seek(0)
                if needle in blob.read():
                    return True
    return False


def _wheel(name: str, before: str = "", content: str = "''") -> str:
    """Statements that make a wheel with one module, whose text ``content`` gives."""
    return f"""
{before}
import zipfile
name = "{name}-1.0-py3-none-any.whl"
with zipfile.ZipFile(os.path.join(directory, name), "w") as file:
    file.writestr("{name}.py", {content})
    file.writestr("{name}-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
    file.writestr("{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    file.writestr("{name}-1.0.dist-info/RECORD", "")
return name
"""
