"""What cannot be right: the status, code and exit code that are documented, a hint, and nothing half-made."""

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.platform import CrewshipDev, pack

pytestmark = pytest.mark.platform

CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'
CREW = "def kickoff(inputs):\n    return 1\n"


@pytest.fixture(scope="module")
def sound(platform: CrewshipDev) -> tuple[str, str]:
    """A project with one good deployment, which has to stay current whatever is sent."""
    project = "sound"
    return project, str(platform.deploy(project, {"crewship.toml": CONFIG, "crew.py": CREW})["id"])


def refused(answer: httpx.Response, status: int, code: str, *words: str, hint: bool = True) -> dict[str, Any]:
    """Check that ``answer`` is a problem as documented; its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "hint"} <= set(body)
    assert (body["status"], body["code"]) == (status, code), body
    assert body["instance"] == answer.request.url.path
    for word in words:
        assert word in f"{body['detail']} {body['hint']}", body
    if hint:
        assert body["hint"], body
    return body


def untouched(platform: CrewshipDev, sound: tuple[str, str], ids: int = 1) -> None:
    """The project is as it was, and has no more deployments than before."""
    project, current = sound
    assert platform.get(f"/projects/{project}")["current_deployment_id"] == current
    assert len(platform.get(f"/projects/{project}/deployments")["deployments"]) == ids


def folder_of(path: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    return path


# --- what can be seen in the upload -----------------------------------------------------------------------------------

CONFIGS = {
    "both kinds of table": (CONFIG + "[deployments.x]\nframework = 'python'\nentrypoint = 'a:b'\n", "[deployments."),
    "unknown key": (CONFIG.replace("entrypoint", "entrypiont"), "Did you mean entrypoint?"),
    "unknown key in run": (CONFIG + "[run]\nmemroy = '1g'\n", "Did you mean memory?"),
    "unknown table": (CONFIG + "[rum]\nmemory = '1g'\n", "Did you mean run?"),
    "unknown framework": (CONFIG.replace('"python"', '"crewia"'), 'Did you mean "crewai"?'),
    "no entrypoint": ('[deployment]\nframework = "python"\n', "entrypoint"),
    "entrypoint by path": (CONFIG.replace("crew:kickoff", "src/crew.py"), "src.crew:kickoff"),
    "no TOML": ("[deployment\n", "line 1"),
    "no size": (CONFIG + '[run]\nmemory = "much"\n', "512m"),
    "empty": ("", "crewship init"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_config(platform: CrewshipDev, sound: tuple[str, str], tmp_path: Path, what: str) -> None:
    config, word = CONFIGS[what]
    files = {"crewship.toml": config, "crew.py": CREW}
    refused(platform.upload(sound[0], pack(files)), 400, "invalid_config", word, hint=what != "no TOML")
    by_cli = platform.crewship("deploy", "-p", sound[0], cwd=folder_of(tmp_path, files))
    assert by_cli.returncode == 1, by_cli
    assert by_cli.stdout == ""
    assert "\nerror: crewship.toml" in f"\n{by_cli.stderr}"
    assert word in by_cli.stderr
    untouched(platform, sound)


def test_no_config(platform: CrewshipDev, sound: tuple[str, str], tmp_path: Path) -> None:
    refused(platform.upload(sound[0], pack({"crew.py": CREW})), 400, "invalid_config", "crewship init")
    nested = refused(platform.upload(sound[0], pack({"in/crewship.toml": CONFIG})), 400, "invalid_config", "tar -czf")
    assert "not at the archive's root" in nested["detail"]
    by_cli = platform.crewship("deploy", "-p", sound[0], cwd=folder_of(tmp_path, {"crew.py": CREW}))
    assert by_cli.returncode == 1
    assert "hint: crewship init" in by_cli.stderr
    untouched(platform, sound)


def tarball(*members: tuple[str | bytes, bytes, str]) -> bytes:
    """An archive by hand: name, type and link target of each member, after a good crew."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for good, content in (("crewship.toml", CONFIG), ("crew.py", CREW)):
            member = tarfile.TarInfo(good)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        for name, kind, target in members:
            member = tarfile.TarInfo(os.fsdecode(name))
            member.type, member.linkname = kind, target
            member.devmajor = member.devminor = 1
            tar.addfile(member)
    return buffer.getvalue()


ARCHIVES = {
    "parent": tarball(("../outside.py", tarfile.REGTYPE, "")),
    "parent inside": tarball(("pkg/../../outside.py", tarfile.REGTYPE, "")),
    "absolute": tarball(("/etc/cron.d/x", tarfile.REGTYPE, "")),
    "link": tarball(("link", tarfile.SYMTYPE, "/etc/passwd")),
    "link inside": tarball(("link.py", tarfile.SYMTYPE, "crew.py")),
    "hard link": tarball(("link.py", tarfile.LNKTYPE, "crew.py")),
    "device": tarball(("null", tarfile.CHRTYPE, "")),
    "block device": tarball(("disk", tarfile.BLKTYPE, "")),
    "pipe": tarball(("pipe", tarfile.FIFOTYPE, "")),
    "long name": tarball(("x" * 300, tarfile.REGTYPE, "")),
    "long path": tarball(("/".join(["part"] * 1000), tarfile.REGTYPE, "")),
    "not UTF-8": tarball((b"caf\xe9.py", tarfile.REGTYPE, "")),
    "control character": tarball(("new\nline.py", tarfile.REGTYPE, "")),
    "twice": tarball(("crew.py", tarfile.REGTYPE, "")),
    "no gzip": b"this is not an archive",
    "cut": tarball()[:-20],
    "empty": b"",
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_archive(platform: CrewshipDev, sound: tuple[str, str], what: str) -> None:
    refused(platform.upload(sound[0], ARCHIVES[what]), 400, "invalid_source", hint=False)
    refused(platform.upload("never-made", ARCHIVES[what]), 400, "invalid_source", hint=False)
    assert platform.http.get("/projects/never-made").status_code == 404
    untouched(platform, sound)


def test_a_bomb(platform: CrewshipDev, sound: tuple[str, str]) -> None:
    files = {"crewship.toml": CONFIG, "crew.py": CREW}
    bomb = pack(files | {"zeros.bin": b"\0" * (128 << 20)})
    assert len(bomb) < 1 << 20
    refused(platform.upload(sound[0], bomb), 413, "source_too_large")
    untouched(platform, sound)


def test_links_that_the_command_line_refuses(platform: CrewshipDev, sound: tuple[str, str], tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", {"crewship.toml": CONFIG, "crew.py": CREW})
    (folder / "out").symlink_to("/etc/hostname")
    by_cli = platform.crewship("deploy", "-p", sound[0], cwd=folder)
    assert by_cli.returncode == 1
    assert "out" in by_cli.stderr
    assert "hint:" in by_cli.stderr
    (folder / "out").unlink()
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    assert "loop" in platform.crewship("deploy", "-p", sound[0], cwd=folder).stderr
    untouched(platform, sound)


def test_uploads_that_are_no_uploads(platform: CrewshipDev, sound: tuple[str, str]) -> None:
    path = f"/projects/{sound[0]}/deployments"
    for answer in (
        platform.http.post(path),
        platform.http.post(path, json={"source": "x"}),
        platform.http.post(path, files={"other": ("a.tar.gz", b"x")}),
        platform.http.post(path, data={"source": "not a file"}),
    ):
        refused(answer, 422, "validation_error")
    refused(platform.upload(sound[0], pack({"crewship.toml": CONFIG}), name="nowhere"), 400, "invalid_config")
    for name in ("Upper", "with_underscore", "-x", "x" * 64, "a--b", "%2e%2e"):
        refused(platform.upload(name, pack({"crewship.toml": CONFIG})), 400, "invalid_request")
    untouched(platform, sound)


# --- what needs the build ---------------------------------------------------------------------------------------------

BUILDS: dict[str, tuple[dict[str, str], str, str]] = {
    "no module": ({"crewship.toml": CONFIG.replace("crew:", "crw:")}, "entrypoint_not_found", "crw"),
    "no attribute": ({"crewship.toml": CONFIG.replace(":kickoff", ":kikoff")}, "entrypoint_not_found", "kikoff"),
    "not callable": (
        {"crewship.toml": CONFIG.replace(":kickoff", ":NUMBER"), "crew.py": "NUMBER = 5\n"},
        "entrypoint_not_callable",
        "an int",
    ),
    "a class that is no crew": (
        {"crewship.toml": CONFIG.replace(":kickoff", ":Crew"), "crew.py": "class Crew:\n    def run(self, x): ...\n"},
        "entrypoint_not_callable",
        "def kickoff(inputs): return Crew().run(inputs)",
    ),
    "fails at import": ({"crew.py": "import json\njson.loads('{')\n"}, "import_error", "JSONDecodeError"),
    "a name that is missing": ({"crew.py": "import requests_not_there\n"}, "import_error", "requests_not_there"),
    "no syntax": ({"crew.py": "def kickoff(inputs:\n"}, "import_error", "SyntaxError"),
    "missing key": (
        {"crew.py": "import os\nKEY = os.environ['SEARCH_API_KEY']\n" + CREW},
        "import_error",
        "crewship env set SEARCH_API_KEY",
    ),
    "ends at import": ({"crew.py": "import sys\nsys.exit('no configuration')\n"}, "import_error", "no configuration"),
    "a file that was not uploaded": (
        {"crew.py": "AGENTS = open('config/agents.yaml').read()\n" + CREW},
        "import_error",
        "has no config/agents.yaml",
    ),
    "a repository, without git": (
        {"requirements.txt": "thing @ git+https://git.invalid/thing.git\n"},
        "dependency_resolution",
        'apt = [\\"git\\"]',
    ),
    "a path outside": ({"requirements.txt": "../shared\n"}, "dependency_resolution", "outside the project's folder"),
    "a file that is not there": ({"requirements.txt": "-r base.txt\n"}, "dependency_resolution", "line 1: -r base.txt"),
    "no TOML": ({"pyproject.toml": "[project\n"}, "dependency_resolution", "pyproject.toml"),
    "two Pythons": (
        {
            "crewship.toml": CONFIG + 'python = "3.11"\n',
            "pyproject.toml": '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.12"\n',
        },
        "python_version",
        "excludes it",
    ),
    "no such package": (
        {"requirements.txt": "crewship-has-no-such-package==99.99\n"},
        "dependency_resolution",
        "crewship-has-no-such-package",
    ),
    "conflict": ({"requirements.txt": "six==1.15.0\nsix==1.16.0\n"}, "dependency_resolution", "six"),
    "no requirement": ({"requirements.txt": "this is ! not a requirement\n"}, "dependency_resolution", "requirement"),
    "no such python": ({"crewship.toml": CONFIG + 'python = "3.2"\n'}, "python_version", "3.2"),
}


@pytest.mark.parametrize("what", BUILDS)
def test_build(platform: CrewshipDev, what: str) -> None:
    files, code, word = BUILDS[what]
    good = {"crewship.toml": CONFIG, "crew.py": CREW}
    project = "builds"
    if platform.http.get(f"/projects/{project}").status_code == 404:
        assert platform.deploy(project, good)["status"] == "ready"
    current = platform.get(f"/projects/{project}")["current_deployment_id"]
    answer = platform.upload(project, pack(good | files))
    if answer.status_code == 400:  # it can be seen without a build
        assert answer.json()["code"] in (code, "invalid_config"), answer.text
        assert answer.json()["hint"]
        return
    assert answer.status_code == 202, answer.text
    deployment = answer.json()["id"]
    events = platform.ndjson(f"/deployments/{deployment}/events")
    assert [event["type"] for event in events][-2:] == ["build.failed", "deployment.failed"]
    failed = platform.get(f"/deployments/{deployment}")
    assert (failed["status"], failed["error"]["code"]) == ("failed", code), failed
    assert failed["error"]["hint"], failed
    assert word in json.dumps(failed["error"]), failed
    if code == "import_error" and what != "ends at import":
        assert "crew.py" in failed["error"]["traceback"]
        assert "/opt/crewship/runtime" not in failed["error"]["traceback"]
    assert events[-1]["data"]["error"]["code"] == code
    assert platform.get(f"/projects/{project}")["current_deployment_id"] == current
    refused(platform.http.post("/runs", json={"deployment_id": deployment}), 409, "deployment_not_ready")


def test_a_failed_build_by_the_command_line(platform: CrewshipDev, sound: tuple[str, str], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"crewship.toml": CONFIG, "crew.py": "import not_installed_anywhere\n"})
    by_cli = platform.crewship("deploy", "-p", "fails-by-cli", cwd=folder)
    assert by_cli.returncode == 1
    assert "not_installed_anywhere" in by_cli.stderr
    assert "Traceback" in by_cli.stderr  # the crew's own
    assert "hint:" in by_cli.stderr
    assert platform.get("/projects/fails-by-cli")["current_deployment_id"] is None
    untouched(platform, sound)


SCRIPTS = (
    "报告.txt",
    "отчёт.txt",
    "تقرير.txt",
    "two words.txt",
    'it\'s "quoted".txt',
    "näme.txt",
    "$HOME;`x`.txt",
    "-rf.txt",
)


def test_names_in_any_script_with_spaces_and_quotes(platform: CrewshipDev, tmp_path: Path) -> None:
    files = {
        "crewship.toml": CONFIG,
        "crew.py": "import os\ndef kickoff(inputs):\n    return sorted(os.listdir('data dir'))\n",
    }
    folder = folder_of(tmp_path, files | {f"data dir/{name}": name for name in (*SCRIPTS, "Case.txt", "case.txt")})
    deployed = platform.crewship("deploy", "-p", "scripts", cwd=folder)
    assert deployed.returncode == 0, deployed.stderr
    assert "warning: “data dir/Case.txt” and “data dir/case.txt” differ in case only" in deployed.stderr
    assert platform.run("scripts")["output"] == sorted((*SCRIPTS, "Case.txt", "case.txt"))


def test_a_file_that_nobody_wanted_to_upload(platform: CrewshipDev, sound: tuple[str, str], tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"crewship.toml": CONFIG, "crew.py": CREW})
    with (folder / "junk.bin").open("wb") as junk:
        for _ in range(201):
            junk.write(os.urandom(1 << 20))
    by_cli = platform.crewship("deploy", "-p", sound[0], cwd=folder)
    assert by_cli.returncode == 1
    assert "error: The project is larger than 200 MiB when packed, which is too large." in by_cli.stderr
    assert "junk.bin" in by_cli.stderr
    assert "[build] exclude" in by_cli.stderr
    untouched(platform, sound)


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["[]", '"text"', "5", "null", "true", "{", '{"a": NaN}', '{"a": [-1e999]}', ""])
def test_input_that_is_no_object(platform: CrewshipDev, sound: tuple[str, str], given: str) -> None:
    body = f'{{"project": "{sound[0]}", "input": {given}}}'
    answer = platform.http.post("/runs", content=body, headers={"Content-Type": "application/json"})
    if given in ("{", ""):
        refused(answer, 400, "invalid_request", "JSON", hint=False)
    else:
        problem = refused(answer, 422, "validation_error", hint=False)
        assert problem["errors"][0]["pointer"].startswith("/input")
    by_cli = platform.crewship("invoke", "-p", sound[0], "-i", given)
    assert by_cli.returncode == 2
    assert "error: the input" in by_cli.stderr
    assert platform.get("/runs", project=sound[0])["runs"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/project"),
        ({"project": "sound", "inputs": {}}, "/inputs"),
        ({"project": "sound", "timeout_seconds": 0}, "/timeout_seconds"),
        ({"project": "sound", "timeout_seconds": 10**9}, "/timeout_seconds"),
        ({"project": "sound", "labels": {"a b": "c"}}, "/labels"),
        ({"project": "sound", "labels": {"a": 5}}, "/labels/a"),
        ({"project": 5}, "/project"),
    ],
)
def test_bodies(platform: CrewshipDev, sound: tuple[str, str], body: dict[str, Any], pointer: str) -> None:
    problem = refused(platform.http.post("/runs", json=body), 422, "validation_error", hint=False)
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"]), problem
    assert platform.get("/runs", project=sound[0])["runs"] == []


def test_an_input_that_is_too_large(platform: CrewshipDev, sound: tuple[str, str]) -> None:
    answer = platform.http.post("/runs", json={"project": sound[0], "input": {"a": "x" * (2 << 20)}})
    refused(answer, 413, "too_large", hint=False)
    assert platform.get("/runs", project=sound[0])["runs"] == []


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/projects/nobody", "project_not_found"),
        ("GET", "/projects/nobody/env", "project_not_found"),
        ("GET", "/projects/nobody/deployments", "project_not_found"),
        ("POST", "/projects/nobody/rollback", "project_not_found"),
        ("GET", "/deployments/dep_nothere00000", "deployment_not_found"),
        ("GET", "/deployments/dep_nothere00000/events", "deployment_not_found"),
        ("GET", "/runs/run_nothere00000", "run_not_found"),
        ("GET", "/runs/run_nothere00000?wait=5", "run_not_found"),
        ("GET", "/runs/run_nothere00000/events", "run_not_found"),
        ("GET", "/runs/run_nothere00000/artifacts", "run_not_found"),
        ("GET", "/runs/run_nothere00000/artifacts/a.md", "run_not_found"),
        ("POST", "/runs/run_nothere00000/cancel", "run_not_found"),
        ("POST", "/runs/run_nothere00000/stream-token", "run_not_found"),
    ],
)
def test_what_is_not_there(platform: CrewshipDev, method: str, path: str, code: str) -> None:
    refused(platform.http.request(method, path), 404, code, "crewship")


def test_runs_of_what_is_not_there(platform: CrewshipDev) -> None:
    refused(platform.http.post("/runs", json={"project": "nobody"}), 404, "project_not_found")
    refused(platform.http.post("/runs", json={"deployment_id": "dep_nothere00000"}), 404, "deployment_not_found")


@pytest.mark.parametrize(
    "command",
    [
        ("invoke", "-p", "nobody"),
        ("invoke", "dep_nothere00000"),
        ("deploy", "--rollback", "-p", "nobody"),
        ("deployments", "list", "-p", "nobody"),
        ("deployments", "show", "dep_nothere00000"),
        ("env", "list", "-p", "nobody"),
        ("runs", "show", "run_nothere00000"),
        ("runs", "events", "run_nothere00000"),
        ("runs", "cancel", "run_nothere00000"),
        ("runs", "download", "run_nothere00000"),
    ],
    ids=" ".join,
)
def test_commands_on_what_is_not_there(platform: CrewshipDev, command: tuple[str, ...]) -> None:
    done = platform.crewship(*command)
    assert done.returncode == 4, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["wrong", "crewship_" + "x" * 43, None])
def test_a_wrong_key(platform: CrewshipDev, sound: tuple[str, str], key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{platform.url}/v1", headers=headers, trust_env=False) as stranger:
        for method, path in (
            ("GET", "/projects"), ("POST", "/runs"), ("GET", "/runs/run_x/events"), ("DELETE", f"/projects/{sound[0]}"),
            ("POST", f"/projects/{sound[0]}/deployments"), ("PATCH", f"/projects/{sound[0]}/env"),
            ("GET", f"/projects/{sound[0]}/env"), ("POST", f"/projects/{sound[0]}/rollback"),
        ):  # fmt: skip
            answer = stranger.request(method, path)
            refused(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert stranger.get(f"{platform.url}/healthz").status_code == 200
        assert stranger.get(f"{platform.url}/readyz").status_code == 200
        assert stranger.get(f"{platform.url}/openapi.json").status_code == 200
        assert stranger.get(f"{platform.url}/metrics").status_code == 401
    if key is not None:
        done = platform.crewship("runs", "list", "-p", sound[0], key=key)
        assert done.returncode == 3
        assert "hint:" in done.stderr


def test_the_routers_own_errors(platform: CrewshipDev) -> None:
    refused(platform.http.get("/nothing/here"), 404, "not_found", hint=False)
    answer = platform.http.put("/runs")
    refused(answer, 405, "method_not_allowed", hint=False)
    assert answer.headers["allow"] == "GET, POST"
    refused(platform.http.post("/projects", json={"name": "Not A Name"}), 400, "invalid_request", "not-a-name")


def test_a_project_that_is_there(platform: CrewshipDev, sound: tuple[str, str]) -> None:
    refused(platform.http.post("/projects", json={"name": sound[0]}), 409, "project_exists", hint=False)


def test_commands_that_make_no_sense(platform: CrewshipDev, tmp_path: Path) -> None:
    for command in (
        ("deploi",), ("deploy", "--frobnicate"), ("invoke", "--detach", "--stream"), ("invoke", "not-an-id"),
        ("deploy", "/nowhere/at/all"), ("env", "set", "NOVALUE"), ("runs", "download"), ("invoke", "-l", "nolabel"),
    ):  # fmt: skip
        done = platform.crewship(*command, cwd=tmp_path)
        assert done.returncode == 2, (command, done)
        assert done.stderr.startswith("error: "), done.stderr
