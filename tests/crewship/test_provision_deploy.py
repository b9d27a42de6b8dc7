"""What production's files repeat of the embedded platform is the same there."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from crewship.provision.minio import VERSION
from crewship.provision.temporal import DYNAMIC_CONFIG, SEARCH_ATTRIBUTES
from crewship.temporal import SEARCH_ATTRIBUTES as USED_ATTRIBUTES

ROOT = Path(__file__).parents[2]


def test_production_has_the_same_dynamic_config() -> None:
    text = (ROOT / "deploy/temporal/dynamic-config.yaml").read_text()
    pairs = re.findall(r"^([\w.]+):\n  - value: (\S+)$", text, re.MULTILINE)
    assert dict(pairs) == {key: value.strip('"') for key, value in DYNAMIC_CONFIG.items()}


def test_both_make_the_search_attributes_that_workflows_set() -> None:
    assert sorted(SEARCH_ATTRIBUTES) == sorted(key.name for key in USED_ATTRIBUTES)
    assert f"for name in {' '.join(SEARCH_ATTRIBUTES)};" in (ROOT / "deploy/temporal/namespace.sh").read_text()


def test_the_minio_of_production_is_the_one_of_the_tests() -> None:
    assert f"github.com/minio/minio@{VERSION}\n" in (ROOT / "deploy/minio/Dockerfile").read_text()


def test_the_image_has_every_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text()
    for package in wheel["packages"]:
        assert f"COPY {package} {package}\n" in dockerfile
        assert f"!{package}\n" in ignored
    for name in wheel["force-include"]:  # a link, which a build's context may not keep
        assert f"RUN ln -s {os.readlink(ROOT / name)} {name}\n" in dockerfile


@pytest.mark.server
@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not on this machine")
def test_the_stack_is_valid_and_has_no_default_secret(tmp_path: Path) -> None:
    command = ["docker-compose", "--project-directory", str(ROOT), "-f", str(ROOT / "docker-compose.yml"), "--env-file"]
    env = {"PATH": os.environ["PATH"]}

    def check(settings: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, str(settings), "config", "-q"], capture_output=True, text=True, env=env)

    assert check(ROOT / ".env.example").returncode != 0, "a secret that is left blank is taken"
    settings = re.sub(r"^(\w+)=$", r"\1=filled-in", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    filled = tmp_path / "filled.env"
    filled.write_text(settings)
    whole = check(filled)
    assert whole.returncode == 0, whole.stderr
    for name in re.findall(r"^(\w+)=", settings, re.MULTILINE):
        partial = tmp_path / "partial.env"
        partial.write_text(re.sub(rf"^{name}=.*$", "", settings, flags=re.MULTILINE))
        done = check(partial)
        assert done.returncode != 0, f"{name} has a default"
        assert f"{name} is not set" in done.stderr
