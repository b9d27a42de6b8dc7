"""Environment variables: they reach the next run, never come back, and never show in what the platform keeps."""

import hashlib
from pathlib import Path

import pytest

from tests.fixtures.builds import local_package
from tests.fixtures.platform import CREWS, CrewshipDev

pytestmark = pytest.mark.platform

SECRET = "sk-3Yt9vQpL-platform-secret-0xC0FFEE"


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def environment(platform: CrewshipDev, project: str, *names: str) -> dict[str, str | None]:
    run = platform.run(project, {"do": "environment", "names": names})
    assert run["status"] == "succeeded", run
    found: dict[str, str | None] = run["output"]
    return found


def test_set_and_unset_reach_the_next_run(platform: CrewshipDev, probe: str) -> None:
    hard = 'with "quotes", $dollars and\nlines — ünïcode'
    done = platform.http.patch(f"/projects/{probe}/env", json={"set": {"FIRST_KEY": "first-value", "HARD": hard}})
    assert done.status_code == 200
    assert environment(platform, probe, "FIRST_KEY", "HARD") == {
        "FIRST_KEY": digest("first-value"), "HARD": digest(hard)
    }  # fmt: skip
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"FIRST_KEY": "second-value"}, "unset": ["HARD"]})
    assert environment(platform, probe, "FIRST_KEY", "HARD") == {"FIRST_KEY": digest("second-value"), "HARD": None}


def test_a_run_keeps_those_it_was_made_with(platform: CrewshipDev, probe: str) -> None:
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"KEPT": "before-the-run"}})
    run_id = platform.start_run(probe, {"do": "environment", "names": ["KEPT"]})
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"KEPT": "after-the-run"}})
    assert platform.ended(run_id)["output"] == {"KEPT": digest("before-the-run")}


def test_the_command_line_sets_lists_and_unsets(platform: CrewshipDev, tmp_path: Path) -> None:
    (tmp_path / "crewship.toml").write_text('[project]\nname = "env-first"\n')
    (tmp_path / ".env").write_text("# a comment\nFROM_FILE='quoted value'\nexport OTHER=1234\n")
    done = platform.crewship("env", "set", f"API_KEY={SECRET}", "--from-file", ".env", "-p", "env-first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = platform.crewship("env", "list", "-p", "env-first", cwd=tmp_path)
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in ("API_KEY", "FROM_FILE", "OTHER"))
    assert SECRET not in done.stdout + done.stderr + listed.stdout + listed.stderr
    assert platform.deploy("env-first", CREWS / "probe", name="probe")["status"] == "ready"
    assert environment(platform, "env-first", "API_KEY", "FROM_FILE", "OTHER") == {
        "API_KEY": digest(SECRET), "FROM_FILE": digest("quoted value"), "OTHER": digest("1234")
    }  # fmt: skip
    assert platform.crewship("env", "unset", "API_KEY", "-p", "env-first", cwd=tmp_path).returncode == 0
    names = [row["name"] for row in platform.get("/projects/env-first/env")["env"]]
    assert names == ["FROM_FILE", "OTHER"]


@pytest.mark.parametrize(
    "body",
    [
        {"set": {"1BAD": "x"}},
        {"set": {"GOOD": "x", "WITH SPACE": "y"}},
        {"set": {"GOOD": 5}},
        {"set": {"GOOD": "x" * 70_000}},
        {"set": {"GOOD": "x\0y"}},
        {"set": {"GOOD": "x"}, "unset": ["GOOD"]},
        {"put": {}},
    ],
)
def test_a_wrong_change_changes_nothing(platform: CrewshipDev, probe: str, body: dict[str, object]) -> None:
    before = platform.get(f"/projects/{probe}/env"), platform.get(f"/projects/{probe}")["env_version"]
    answer = platform.http.patch(f"/projects/{probe}/env", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"]
    assert (platform.get(f"/projects/{probe}/env"), platform.get(f"/projects/{probe}")["env_version"]) == before


@pytest.mark.parametrize("fails", [False, True])
def test_a_secret_is_redacted_everywhere_but_in_the_crew(platform: CrewshipDev, probe: str, fails: bool) -> None:
    platform.http.patch(f"/projects/{probe}/env", json={"set": {"LEAKED": SECRET}})
    assert SECRET not in platform.http.get(f"/projects/{probe}/env").text
    run = platform.run(probe, {"do": "leak", "name": "LEAKED", "raise": fails})
    assert run["status"] == ("failed" if fails else "succeeded"), run
    answer = platform.http.get(f"/runs/{run['id']}")
    events = platform.read(f"/runs/{run['id']}/events")
    shown = platform.crewship("runs", "show", run["id"])
    for text in (answer.text, events.decode(), shown.stdout, shown.stderr):
        assert SECRET not in text
    messages = [event["data"]["message"] for event in platform.events(run["id"], types="log")]
    assert any(message.startswith("stdout ") and message.endswith(" end") for message in messages)
    assert any(message.startswith("stderr ") and message.endswith(" end") for message in messages)
    assert not any(SECRET[len(SECRET) // 2 :] in message for message in messages), messages
    if fails:
        assert run["error"]["code"] == "user_error"
        assert run["error"]["message"].startswith("ValueError: the key ")
        assert run["error"]["message"].endswith(" is refused")
    else:
        assert run["output"]["key"] != SECRET
        assert len(run["output"]) == 2


def test_a_secret_is_redacted_in_a_build(platform: CrewshipDev) -> None:
    project = "build-secret"
    platform.http.patch(f"/projects/{project}/env", json={"set": {"LEAKED": SECRET}})
    files = {
        "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
        "crew.py": "import os\nprint('importing with', os.environ['LEAKED'])\nraise RuntimeError(os.environ['LEAKED'])\n",
    }
    failed = platform.deploy(project, files)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == "import_error"
    everything = platform.read(f"/deployments/{failed['id']}/events").decode()
    assert "importing with" in everything
    assert SECRET not in everything
    assert SECRET not in platform.http.get(f"/deployments/{failed['id']}").text


def test_builds_and_runs_have_secrets_of_their_own(platform: CrewshipDev, tmp_path: Path) -> None:
    build = "raise SystemExit(f\"build: {os.environ.get('CORP_TOKEN')} {os.environ.get('RUN_TOKEN')}\")"
    files = {
        "crewship.toml": '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n',
        "crew.py": "import os\ndef kickoff(inputs):\n    return [os.environ.get(n) for n in ('CORP_TOKEN', 'RUN_TOKEN')]\n",
    }
    project = "two-kinds"
    for arguments in (("set", "--build", f"CORP_TOKEN={SECRET}"), ("set", "RUN_TOKEN=of-the-runs")):
        done = platform.crewship("env", *arguments, "-p", project, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert platform.deploy(project, files)["status"] == "ready"
    run = platform.run(project)
    assert run["output"][0] is None
    assert run["output"][1] is not None
    failed = platform.deploy(project, files | local_package("nosy", build))
    assert failed["error"]["code"] == "build_failed", failed
    assert "build: [redacted:CORP_TOKEN] None" in failed["error"]["message"]
    everything = platform.read(f"/deployments/{failed['id']}/events").decode()
    assert "[redacted:CORP_TOKEN]" in everything
    assert SECRET not in everything
