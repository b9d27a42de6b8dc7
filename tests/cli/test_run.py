"""``crewship run --local`` on a real engine: the same events, exit codes and endings as a run on a platform."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from crewship.engine import LABEL_DEPLOYMENT, LABEL_INSTANCE
from crewship.events import verify
from crewship.local_run import INSTANCE, own_build_secrets

ROOT = Path(__file__).parents[2]
SECRET = "sk-3Yt9vQpL-local-secret"
CREW = """
import os, signal, sys, time

def kickoff(inputs):
    print("the key is", os.environ.get("KEY"))
    os.makedirs("artifacts/deep", exist_ok=True)
    open("artifacts/deep/ünï cöde.txt", "w").write("kept")
    open("left.txt", "w").write("x")
    match inputs.get("do"):
        case "fail": raise ValueError("no " + os.environ["KEY"])
        case "sleep": time.sleep(600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("ignoring", flush=True)
            time.sleep(600)
    return {"uid": os.getuid(), "root_is_read_only": not os.access("/opt", os.W_OK)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local-crew")
    (folder / "crewship.toml").write_text('[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n')
    (folder / "crew.py").write_text(CREW)
    return folder


@pytest.fixture
def leftovers() -> Iterator[list[str]]:
    """What the test's commands left behind: filled when they are through."""
    client: Any = docker.from_env()
    ours = {"label": [f"{LABEL_INSTANCE}={INSTANCE}", LABEL_DEPLOYMENT]}

    def there() -> set[str]:
        containers = client.containers.list(all=True, filters={"label": f"{LABEL_INSTANCE}={INSTANCE}"})
        return {each.name for each in containers} | {each.id for each in client.images.list(filters=ours)}

    before = there()
    found: list[str] = []
    yield found
    found += there() - before
    client.close()
    assert found == []


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", "run", "--local", *arguments]


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CREWSHIP_")}
    # Nowhere: no platform is asked.
    return clean | {"CREWSHIP_URL": "http://127.0.0.1:9", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def crewship(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=200
    )


@pytest.mark.docker
class TestOnTheEngine:
    def test_a_run(self, folder: Path, tmp_path: Path, leftovers: list[str]) -> None:
        done = crewship(folder, "-e", f"KEY={SECRET}", "--download", str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"uid": 10001, "root_is_read_only": True}
        assert "│ the key is [redacted:KEY]" in done.stderr
        assert "▪ deep/ünï cöde.txt" in done.stderr
        assert "Written outside /app/artifacts and not kept: left.txt" in done.stderr
        assert "✓ succeeded" in done.stderr
        assert (tmp_path / "out/deep/ünï cöde.txt").read_text() == "kept"
        assert SECRET not in done.stderr

    def test_a_run_that_fails(self, folder: Path, leftovers: list[str]) -> None:
        done = crewship(folder, "--json", "-i", '{"do": "fail"}', "-e", f"KEY={SECRET}")
        assert done.returncode == 7
        lines = done.stdout.encode().splitlines()
        verify(lines)  # numbered and chained as any log
        types = [json.loads(line)["type"] for line in lines]
        assert (types[0], types[-1]) == ("run.started", "run.failed")
        assert json.loads(lines[-1])["data"]["error"]["code"] == "user_error"
        assert "ValueError: no [redacted:KEY]" in done.stderr
        assert SECRET not in done.stdout + done.stderr

    @pytest.mark.parametrize(("do", "presses"), [("sleep", 1), ("stubborn", 2)])
    def test_ctrl_c_stops_it(self, folder: Path, leftovers: list[str], do: str, presses: int) -> None:
        arguments = command("--json", "-i", json.dumps({"do": do}))
        with subprocess.Popen(
            arguments, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            wanted = "ignoring" if do == "stubborn" else "the key is"
            next(line for line in process.stdout if wanted in line)
            for _ in range(presses):
                process.send_signal(signal.SIGINT)
            rest = process.stdout.read().splitlines()
            assert process.wait(60) == 130
        last = json.loads(rest[-1])
        assert last["type"] == "run.canceled"
        assert last["data"]["sigterm_at"]
        assert bool(last["data"]["sigkill_at"]) == (do == "stubborn")

    def test_a_time_limit(self, folder: Path, leftovers: list[str]) -> None:
        done = crewship(folder, "--timeout", "1", "-i", '{"do": "sleep"}')
        assert done.returncode == 7
        assert "[timeout]" in done.stderr

    def test_what_cannot_be_built(self, folder: Path, tmp_path: Path, leftovers: list[str]) -> None:
        (tmp_path / "crewship.toml").write_text((folder / "crewship.toml").read_text())
        (tmp_path / "requirements.txt").write_text("crewship-has-no-such-package==1\n")
        done = crewship(tmp_path)
        assert done.returncode == 1
        assert "crewship-has-no-such-package" in done.stderr
        assert "[dependency_resolution]" in done.stderr
        assert "hint:" in done.stderr
        (tmp_path / "requirements.txt").unlink()
        missing = crewship(tmp_path)
        assert missing.returncode == 7
        assert "[import_error]" in missing.stderr

    def test_what_a_killed_one_has_left_goes_with_the_next(self, folder: Path, leftovers: list[str]) -> None:
        with subprocess.Popen(
            command("--json", "-i", '{"do": "sleep"}'),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if "the key is" in line)
            process.kill()
        assert crewship(folder).returncode == 0

    def test_the_deployments_of_a_monorepo(self, folder: Path, tmp_path: Path, leftovers: list[str]) -> None:
        (tmp_path / "crewship.toml").write_text(
            "".join(f'[deployments.{n}]\nframework = "python"\nentrypoint = "crew:{n}"\n' for n in ("one", "two"))
        )
        (tmp_path / "crew.py").write_text("def one(i): return 'one'\ndef two(i): return 'two'\n")
        assert crewship(tmp_path).returncode == 2
        assert crewship(tmp_path, "-n", "two").stdout == "two\n"


def test_what_is_wrong_is_said_before_anything_is_built(crewship: Any, tmp_path: Path) -> None:
    for arguments, code, word in (
        (["run"], 2, "--local"),
        (["run", "--local", str(tmp_path / "no")], 2, "not a folder"),
        (["run", "--local", str(tmp_path)], 1, "crewship init"),
        (["run", "--local", str(tmp_path), "-i", "[]"], 2, "JSON object"),
        (["run", "--local", str(tmp_path), "-e", "sk-value"], 2, "variable's name"),
    ):
        result = crewship(*arguments)
        assert (result.exit_code, word in result.stderr) == (code, True), result.output
        assert "hint:" in result.stderr


def test_the_persons_own_indexes_are_asked() -> None:
    token = secrets.token_hex(8)
    own = own_build_secrets(
        {"UV_INDEX_URL": f"https://u:{token}@h", "UV_INDEX_CORP_PASSWORD": "p", "UV_CACHE_DIR": "/x", "HOME": "/x"}
    )
    assert own.values == {"UV_INDEX_URL": f"https://u:{token}@h", "UV_INDEX_CORP_PASSWORD": "p"}
    assert token not in own.revision
    assert own_build_secrets({}).revision == ""
