"""The programs that an installer runs in a build's container, run here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crewship import installer


@pytest.mark.parametrize("name", ["_REACH", "_LET_IN", "_READ_POETRY", "_FORGET", "_SEARCH"])
def test_each_is_python(name: str) -> None:
    """They are texts in the code, in which a quote or a backslash is soon lost."""
    compile(getattr(installer, name), name, "exec")


def test_no_credentials_are_in_where_a_package_came_from(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    urls = {
        "private": ("https://user:t0ken@pypi.corp/a-1.whl", "https://pypi.corp/a-1.whl"),
        "key": ("git+https://t0ken@git.corp/x@main", "git+https://git.corp/x@main"),
        "public": ("https://pypi.org/a@1.whl", "https://pypi.org/a@1.whl"),
    }
    files = {name: packages / f"{name}-1.0.dist-info" / "direct_url.json" for name in urls}
    for name, path in files.items():
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"url": urls[name][0], "archive_info": {}}))
    script = installer._FORGET.replace(installer.VENV, str(tmp_path))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert {name: json.loads(path.read_text())["url"] for name, path in files.items()} == {
        name: after for name, (_, after) in urls.items()
    }
