"""The main job, as its user does it: deploy, invoke, watch, fetch, change, roll back."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures.builds import local_package
from tests.fixtures.platform import ROOT, CrewshipDev, pack, until

pytestmark = pytest.mark.platform

CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'


def version(number: int) -> dict[str, str]:
    return {"crewship.toml": CONFIG, "crew.py": f"def kickoff(inputs):\n    return {number}\n"}


def current(platform: CrewshipDev, project: str) -> str | None:
    found: str | None = platform.get(f"/projects/{project}")["current_deployment_id"]
    return found


def test_the_main_job_by_the_command_line(platform: CrewshipDev, tmp_path: Path) -> None:
    folder = tmp_path / "report-crew"
    shutil.copytree(ROOT / "examples" / "report-crew", folder, ignore=shutil.ignore_patterns("__pycache__"))

    def deploy() -> str:
        done = platform.crewship("deploy", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        deployment = json.loads(done.stdout)
        assert (deployment["status"], deployment["current"]) == ("ready", True)
        assert "crewship invoke" in done.stderr  # the next command to run
        return str(deployment["id"])

    first = deploy()
    rows = [{"port": "Oslo", "calls": 41}, {"port": "Bergen", "calls": 17}]
    (tmp_path / "input.json").write_text(json.dumps({"topic": "Calls", "rows": rows}))
    streamed = platform.crewship("invoke", "--stream", "-i", f"@{tmp_path / 'input.json'}", cwd=folder)
    assert streamed.returncode == 0, streamed.stderr
    assert json.loads(streamed.stdout)["rows"] == 2
    assert "report.md" in streamed.stderr
    assert "\x1b" not in streamed.stderr
    run = platform.get("/runs", project="report-crew")["runs"][0]
    assert run["deployment_id"] == first
    fetched = platform.crewship("runs", "download", run["id"], "report.md", "-o", "-")
    assert fetched.stdout.startswith("# Report: Calls")

    crew = folder / "report_crew" / "crew.py"
    crew.write_text(crew.read_text().replace('VERSION = "1.0"', 'VERSION = "2.0"'))
    second = deploy()
    assert second != first

    def answers() -> str:
        done = platform.crewship("invoke", "-i", '{"topic": "x"}', cwd=folder)
        assert done.returncode == 0, done.stderr
        found: str = json.loads(done.stdout)["version"]
        return found

    assert answers() == "2.0"
    back = platform.crewship("deploy", "--rollback", "--json", cwd=folder)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["deployment_id"] == first
    assert answers() == "1.0"
    listed = platform.crewship("deployments", "list", "--json", cwd=folder)
    assert {row["id"]: row["current"] for row in json.loads(listed.stdout)["deployments"]} == {
        second: False, first: True
    }  # fmt: skip
    events = platform.crewship("invoke", "--stream", "--json", "-i", "{}", cwd=folder)
    assert [json.loads(line)["seq"] for line in events.stdout.splitlines()] == list(
        range(1, len(events.stdout.splitlines()) + 1)
    )


def test_rollback(platform: CrewshipDev) -> None:
    project = "versions"
    ids = [platform.deploy(project, version(number))["id"] for number in (1, 2, 3)]
    assert current(platform, project) == ids[2]

    def roll_back(deployment: str | None = None) -> tuple[str, str | None, bool]:
        answer = platform.http.post(
            f"/projects/{project}/rollback", json={"deployment_id": deployment} if deployment else {}
        )
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["project"] == project
        assert isinstance(found["duration_ms"], int)
        assert current(platform, project) == found["deployment_id"]
        return found["deployment_id"], found["previous_deployment_id"], found["changed"]

    assert roll_back() == (ids[1], ids[2], True)
    assert platform.run(project)["output"] == 2
    assert roll_back() == (ids[2], ids[1], True)  # twice is back again
    assert roll_back(ids[0]) == (ids[0], ids[2], True)
    assert platform.run(project)["output"] == 1
    assert roll_back(ids[0])[::2] == (ids[0], False)
    by_cli = platform.crewship("deploy", "--rollback", ids[1], "-p", project)
    assert by_cli.returncode == 0, by_cli.stderr
    assert current(platform, project) == ids[1]


def test_rollback_where_it_cannot_be(platform: CrewshipDev) -> None:
    project = "one-version"
    only = platform.deploy(project, version(1))["id"]
    failed = platform.deploy(project, version(2) | {"crew.py": "raise RuntimeError('broken')"})
    assert failed["status"] == "failed"
    foreign = platform.deploy("other-versions", version(1))["id"]
    for target, status, code in (
        (None, 409, None),
        (failed["id"], 409, "deployment_not_ready"),
        ("dep_nothere0000", 404, "deployment_not_found"),
        (foreign, 404, "deployment_not_found"),
    ):
        body = {"deployment_id": target} if target else {}
        answer = platform.http.post(f"/projects/{project}/rollback", json=body)
        assert answer.status_code == status, (target, answer.text)
        assert code is None or answer.json()["code"] == code
        assert answer.json()["hint"], answer.text
        by_cli = platform.crewship("deploy", "--rollback", *([target] if target else []), "-p", project)
        assert by_cli.returncode == {409: 5, 404: 4}[status], by_cli
        assert "hint:" in by_cli.stderr
        assert current(platform, project) == only


def test_the_same_upload_with_the_same_key_is_one_deployment(platform: CrewshipDev) -> None:
    source = {"source": ("source.tar.gz", pack(version(1)), "application/gzip")}
    path, headers = "/projects/uploaded-once/deployments", {"Idempotency-Key": "one"}
    first = platform.http.post(path, files=source, headers=headers)
    second = platform.http.post(path, files=source, headers=headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    other = platform.http.post(
        path, files={"source": ("source.tar.gz", pack(version(2)), "application/gzip")}, headers=headers
    )
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    platform.read(f"/deployments/{first.json()['id']}/events")


def test_what_is_never_packed(platform: CrewshipDev, tmp_path: Path) -> None:
    for name, content in {
        "crewship.toml": CONFIG + '[build]\nexclude = ["tests"]\n',
        "crew.py": "import os\n\ndef kickoff(inputs):\n"
        "    return sorted(os.path.join(d, f) for d, _, fs in os.walk('.') for f in fs if not f.endswith('.pyc'))\n",
        ".gitignore": "*.secret\n",
        ".env": "KEY=1",
        "a.secret": "x",
        "tests/test_it.py": "x",
        ".git/config": "x",
        ".venv/pyvenv.cfg": "x",
        "data/kept.txt": "x",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert platform.crewship("deploy", "-p", "packed", cwd=tmp_path).returncode == 0
    found = platform.run("packed")["output"]
    assert found == ["./.gitignore", "./crew.py", "./crewship.toml", "./data/kept.txt"]


def test_code_that_the_crews_of_a_monorepo_share(platform: CrewshipDev, tmp_path: Path) -> None:
    for name, content in {
        "crewship.toml": "".join(
            f'[deployments.shares-{name}]\nframework = "python"\nentrypoint = "crews.{name}.crew:kickoff"\n'
            for name in ("one", "two")
        ),
        "shared/__init__.py": "",
        "shared/prices.py": "from pathlib import Path\nPRICES = Path(__file__).with_name('prices.txt').read_text()\n",
        "shared/prices.txt": "12",
        "crews/one/crew.py": "from shared.prices import PRICES\ndef kickoff(inputs):\n    return ['one', PRICES]\n",
        "crews/two/crew.py": "from shared.prices import PRICES\nfrom . import own\n"
        "def kickoff(inputs):\n    return [own.NAME, PRICES]\n",
        "crews/two/own.py": "NAME = 'two'\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    done = platform.crewship("deploy", "--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("one", "two"):
        assert platform.run(f"shares-{name}")["output"] == [name, "12"]


def test_a_monorepo(platform: CrewshipDev, tmp_path: Path) -> None:
    tables = "".join(
        f'[deployments.mono-{name}]\nframework = "python"\nentrypoint = "crew:{name}"\n' for name in ("one", "two")
    )
    (tmp_path / "crewship.toml").write_text(tables)
    (tmp_path / "crew.py").write_text("def one(inputs):\n    return 'one'\n\ndef two(inputs):\n    return 'two'\n")
    unclear = platform.crewship("deploy", cwd=tmp_path)
    assert unclear.returncode == 2
    assert "mono-one, mono-two" in unclear.stderr
    done = platform.crewship("deploy", "--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("one", "two"):
        invoked = platform.crewship("invoke", "-n", f"mono-{name}", cwd=tmp_path)
        assert invoked.stdout.strip() == name, invoked


def contents(platform: CrewshipDev, deployment: str) -> dict[str, tuple[int, bytes]]:
    """Name → mode and content of all that a deployment's image has of the project, the runner and the packages."""
    image = platform.get(f"/deployments/{deployment}")["image"]
    return platform.files_in(image, "/opt/crewship") | platform.files_in(image, "/opt/venv")


def test_the_same_inputs_give_the_same_deployment(platform: CrewshipDev) -> None:
    project = "twice-the-same"
    files = version(1) | {"requirements.txt": "idna==3.10\n"}
    one, other = [platform.deploy(project, files) for _ in range(2)]
    assert one["id"] != other["id"]
    assert (one["base_image"], one["python"]) == (other["base_image"], other["python"])
    first, second = (contents(platform, deployment["id"]) for deployment in (one, other))
    assert "crewship/source/crew.py" in first
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == set()
    assert platform.get(f"/deployments/{one['id']}/diff/{other['id']}")["same"] is True
    lock = platform.crewship("deployments", "show", one["id"], "--lock")
    assert (lock.returncode, lock.stdout) == (0, "idna==3.10\n")
    sbom = json.loads(platform.crewship("deployments", "show", other["id"], "--sbom").stdout)
    names = {item.get("purl", item["name"]) for item in sbom["components"]}
    assert "pkg:pypi/idna@3.10" in names
    assert any(name.startswith("pkg:deb/") and "/libc6@" in name for name in names)

    changed = platform.deploy(project, version(2) | {"requirements.txt": "idna==3.9\n"})
    diff = platform.crewship("deployments", "diff", one["id"], changed["id"])
    assert diff.returncode == 0, diff.stderr
    shown = [" ".join(line.split()) for line in diff.stdout.splitlines()]
    assert shown[0] == "files"
    assert any(line.startswith("~ crew.py ") for line in shown)
    assert "~ idna 3.10 → 3.9" in shown


def test_nothing_changed(platform: CrewshipDev, tmp_path: Path) -> None:
    for name, content in version(1).items():
        (tmp_path / name).write_text(content)

    def deploy(*options: str) -> tuple[str, bool]:
        done = platform.crewship("deploy", "-p", "unchanged", "--json", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        return found["id"], found["unchanged"]

    first, _ = deploy()
    images = len(platform.images())
    assert deploy() == (first, True)
    assert len(platform.images()) == images
    forced, unchanged = deploy("--force")
    assert (forced != first, unchanged) == (True, False)
    (tmp_path / "crew.py").write_text(version(2)["crew.py"])
    second, unchanged = deploy()
    assert (second != forced, unchanged) == (True, False)
    platform.remove_image(second)
    third, unchanged = deploy()  # the same, but its image is gone: built again
    assert (third != second, unchanged) == (True, False)


def test_a_rollback_and_the_env_of_then(platform: CrewshipDev) -> None:
    project = "env-of-then"
    crew = "import os\ndef kickoff(inputs):\n    return [{number}, os.environ.get('MODEL')]\n"

    def set_env(value: str) -> None:
        assert platform.crewship("env", "set", f"MODEL={value}", "-p", project).returncode == 0

    set_env("small")
    first = platform.deploy(project, version(1) | {"crew.py": crew.format(number=1)})["id"]
    second = platform.deploy(project, version(2) | {"crew.py": crew.format(number=2)}, activate="false")["id"]
    assert platform.run(project)["output"] == [1, "small"]
    promoted = platform.crewship("deployments", "promote", second)
    assert promoted.returncode == 0, promoted.stderr
    set_env("large")
    assert platform.run(project)["output"] == [2, "large"]
    back = platform.crewship("deploy", "--rollback", "-p", project)
    assert back.returncode == 0, back.stderr
    assert f"since {first} was current, and stay as they are: changed MODEL" in back.stderr
    assert platform.run(project)["output"] == [1, "large"]
    assert platform.crewship("deployments", "promote", second).returncode == 0
    set_env("huge")
    restored = platform.crewship("deploy", "--rollback", first, "--with-env", "--json", "-p", project)
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout)["env"]["restored"] is True
    assert platform.run(project)["output"] == [1, "large"]
    history = json.loads(platform.crewship("deployments", "history", "-p", project, "--json").stdout)["activations"]
    assert [(row["kind"], row["previous_deployment_id"], row["deployment_id"]) for row in history] == [
        ("rollback", second, first), ("promote", first, second), ("rollback", second, first),
        ("promote", first, second), ("deploy", None, first),
    ]  # fmt: skip
    assert history[0]["by_name"]


def test_switches_at_once_come_one_after_the_other(platform: CrewshipDev) -> None:
    project = "switched-at-once"
    ids = [platform.deploy(project, version(number))["id"] for number in (1, 2)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: platform.http.post(f"/deployments/{ids[n % 2]}/promote"), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    rows = platform.get(f"/projects/{project}/activations", limit=200)["activations"][::-1]
    assert [row["previous_deployment_id"] for row in rows] == [None, *[row["deployment_id"] for row in rows[:-1]]]
    assert len(rows) == 2 + sum(answer.json()["changed"] for answer in answers)
    assert current(platform, project) == rows[-1]["deployment_id"]


def test_a_build_is_canceled(platform: CrewshipDev) -> None:
    project = "canceled-build"
    kept = platform.deploy(project, version(1))["id"]
    slow = version(2) | local_package("slowly", "import time\ntime.sleep(120)")
    deployment = platform.upload(project, pack(slow)).json()["id"]
    platform.logged(deployment, "dependencies")  # the step has begun
    canceled = platform.crewship("deployments", "cancel", deployment)
    assert canceled.returncode == 0, canceled.stderr
    last = platform.ndjson(f"/deployments/{deployment}/events")[-1]
    assert (last["type"], last["data"]["error"]["code"]) == ("deployment.failed", "canceled")
    assert platform.get(f"/deployments/{deployment}")["status"] == "failed"
    assert current(platform, project) == kept
    until(lambda: not platform.containers(deployment.replace("_", "-")))
    again = platform.http.post(f"/deployments/{deployment}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (200, "canceled")
