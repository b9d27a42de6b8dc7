"""The supply chain's scripts: hashes of what installs everything else, the audit, the list of what the platform is made of."""

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.fixtures.engine import connection, engine, engine_settings, platform_image  # noqa: F401

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    """A script as a module; the folder is no package."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> list[dict[str, object]]:
    packages: list[dict[str, object]] = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    return packages


def test_everything_that_is_locked_has_a_hash() -> None:
    requirement = script("locked").requirement
    names = [str(package["name"]) for package in locked() if package["name"] != "crewship"]
    assert len(names) > 50
    for name in names:
        assert re.fullmatch(rf"{re.escape(name)}==\S+( --hash=sha256:[0-9a-f]{{64}})+", requirement(name)), name


def test_what_has_no_hash_is_refused(tmp_path: Path) -> None:
    requirement = script("locked").requirement
    lock = tmp_path / "uv.lock"
    lock.write_text('[[package]]\nname = "bare"\nversion = "1"\n')
    with pytest.raises(LookupError, match="no hash of bare"):
        requirement("bare", lock)
    with pytest.raises(LookupError, match="no package other"):
        requirement("other", lock)


def test_uv_is_installed_by_its_hash_wherever_it_is_installed() -> None:
    for name in ("scripts/setup.sh", "deploy/Dockerfile"):
        installs = re.findall(r"pip install[^\n]*", (ROOT / name).read_text())
        assert installs
        assert all("--require-hashes" in line for line in installs), name
    assert "!scripts/locked.py\n" in (ROOT / "deploy/Dockerfile.dockerignore").read_text()


def test_the_list_of_parts_has_all_that_is_installed(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    path = tmp_path / "crewship.cdx.json"
    options = (ROOT / "Makefile").read_text().partition(".venv/bin/uv export ")[2].partition(" -o ")[0].split()
    subprocess.run([str(uv), "export", *options, "-o", str(path)], cwd=ROOT, check=True, capture_output=True)
    document = json.loads(path.read_text())
    assert document["bomFormat"] == "CycloneDX"
    found = {part["name"]: part["version"] for part in document["components"]}
    versions = {package["name"]: package["version"] for package in locked()}
    assert {"fastapi", "temporalio", "cryptography", "docker"} <= found.keys()
    assert "pytest" not in found
    assert all(versions[name] == version for name, version in found.items())
    assert all(part["purl"].startswith("pkg:pypi/") for part in document["components"])


class TestAudit:
    @contextmanager
    def database(self, answer: bytes) -> Iterator[str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/v1/query"
            finally:
                server.shutdown()
                thread.join()

    def test_without_a_database_it_says_loudly_that_nothing_was_checked(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main = script("audit").main
        nowhere = "http://127.0.0.1:9/v1/query"
        assert main([], nowhere) == 0
        assert main(["--required"], nowhere) == 1
        assert "NOT AUDITED" in capsys.readouterr().err

    @pytest.mark.parametrize("answer", [b"{}", b"<html>sign in</html>", b'{"vulns": []}'])
    def test_what_does_not_know_a_vulnerable_package_is_no_database(self, answer: bytes) -> None:
        audit = script("audit")
        with self.database(answer) as url:
            assert audit.why_unreachable(url)
            assert audit.main(["--required"], url) == 1

    @pytest.mark.parametrize("code", [0, 1])
    def test_with_a_database_uvs_word_counts(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        audit = script("audit")
        commands: list[list[str]] = []

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(audit.subprocess, "run", run)
        with self.database(b'{"vulns": [{"id": "PYSEC-1"}]}') as url:
            assert audit.main([], url) == code
        assert commands[0][1:3] == ["audit", "--frozen"]


# --- images by their digests ----------------------------------------------------------------------------------------------


def _digest(image: str) -> str:
    return "sha256:" + hashlib.sha256(image.encode()).hexdigest()


def test_no_image_of_the_stack_is_left_out() -> None:
    pin_images = script("pin_images")
    found = pin_images.images(ROOT)
    digests = {image: _digest(image) for image in pin_images.names(found)}
    text = yaml.safe_dump(pin_images.pinned(found, digests))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(found) == set(compose)
    foreign = {service["image"] for service in compose.values() if "build" not in service}
    bases = {
        image
        for path in (ROOT / "deploy").rglob("Dockerfile")
        for image in re.findall(r"^ARG \w+=(\S+:\S+)$", path.read_text(), re.MULTILINE)
    }
    assert set(digests) == foreign | bases
    assert all(f"{image}@{digest}" in text for image, digest in digests.items())
    for path in (ROOT / "deploy").rglob("Dockerfile"):
        assert all(line.startswith("FROM ${") for line in path.read_text().splitlines() if line.startswith("FROM "))


def test_pins_are_written_once_all_images_are_here(tmp_path: Path, capsys: Any) -> None:
    pin_images = script("pin_images")
    (tmp_path / "docker-compose.yml").write_text(
        "services: {db: {image: 'postgres:16.9'}, api: {image: x, build: sub}}"
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/Dockerfile").write_text("ARG BASE_IMAGE=debian:12\nFROM ${BASE_IMAGE}\n")
    override = tmp_path / "docker-compose.override.yml"

    def missing(image: str) -> str:
        raise pin_images.NotPulled(image)

    assert pin_images.main(tmp_path, missing) == 1
    assert capsys.readouterr().err.splitlines()[1:] == ["  docker pull debian:12", "  docker pull postgres:16.9"]
    assert not override.exists()
    for _ in range(2):
        assert pin_images.main(tmp_path, _digest) == 0
    assert yaml.safe_load(override.read_text())["services"] == {
        "db": {"image": f"postgres:16.9@{_digest('postgres:16.9')}"},
        "api": {"build": {"context": "sub", "args": {"BASE_IMAGE": f"debian:12@{_digest('debian:12')}"}}},
    }
    override.write_text("services: {}\n")
    assert pin_images.main(tmp_path, _digest) == 1
    assert override.read_text() == "services: {}\n"


@pytest.mark.docker
def test_an_image_from_no_registry_has_no_digest(platform_image: str) -> None:  # noqa: F811
    pin_images = script("pin_images")
    for image in (platform_image, "crewship/none:1"):
        with pytest.raises(pin_images.NotPulled):
            pin_images.pulled_digest(image)
