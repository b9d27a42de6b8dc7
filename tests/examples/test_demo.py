"""``make demo`` checks its own claims; here it is run once, without a terminal, and once it is interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"

pytestmark = [pytest.mark.platform, pytest.mark.docker, pytest.mark.timeout(900)]


def test_all_its_claims_hold() -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "version 2.0 answered" in done.stdout
    assert "version 1.0 answered" in done.stdout
    assert "All of it in" in done.stdout


def test_interrupted_it_cleans_up() -> None:
    # A short path, as it is without pytest: a unix socket's has 107 bytes at most.
    with TemporaryDirectory(prefix="demo-") as folder:
        env = os.environ | {"TMPDIR": folder}
        with subprocess.Popen(
            [sys.executable, str(DEMO)],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as demo:  # fmt: skip
            assert demo.stdout is not None
            said = ""
            for line in demo.stdout:
                said += line
                if line.startswith("$ crewship deploy"):
                    demo.send_signal(signal.SIGTERM)
        assert demo.returncode == 130, said
        assert "platform stopped" in said
        assert list(Path(folder).iterdir()) == []
