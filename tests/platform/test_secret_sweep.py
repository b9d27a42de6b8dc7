"""Crews show their secrets in every way there is, and end in every way there is; then all that the platform keeps, says or shows
is looked through, and no value is anywhere."""

import base64
import gzip
import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf.json_format import MessageToDict
from temporalio.client import Client

from tests.fixtures.platform import CREWS, CrewshipDev, until
from tests.platform.sweep import found_in, needles, taken_apart

pytestmark = pytest.mark.platform

PROJECT = "swept"
MARKER = "marker-of-the-input-5b1f27"
PUBLIC = "8472"
PASSWORD = "hunter2/%hunter2+sweep"
PEM_LINE = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7sweepsweep01"
SECRETS = {
    "TOKEN": "sk-proj-8Qw2/swept+by=the_Sweep-0xC0FFEE",
    "PHRASE": 'correct "horse" \\battery\\ stäple ☕ & <more>',
    "DATABASE_URL": "postgresql://app:hunter2%2F%25hunter2%2Bsweep@db.internal:5432/app?sslmode=require",
    "PRIVATE_KEY": f"-----BEGIN PRIVATE KEY-----\n{PEM_LINE}\nq5nRZ0mKkYBqjP2sweep02sweepsweep03\n-----END PRIVATE KEY-----\n",
    "SERVICE": json.dumps({"type": "service_account", "private_key_id": "b7e2f1sweep04", "client": "x" * 40}),
}  # fmt: skip
WANTED = SECRETS | {"password in DATABASE_URL": PASSWORD, "line of PRIVATE_KEY": PEM_LINE}
ENDS = ("output", "raise", "group", "exit", "unfit")


class Swept:
    """What was done, and where to look."""

    def __init__(self, platform: CrewshipDev) -> None:
        self.platform = platform
        self.runs: dict[str, str] = {}
        self.deployments: list[str] = []
        self.live: list[tuple[str, bytes]] = []
        """What there was to see while a run was under way."""


@pytest.fixture(scope="module")
def swept(platform: CrewshipDev) -> Swept:
    found = Swept(platform)
    values = {**SECRETS, "LEAKS": ",".join(SECRETS), "PORT": PUBLIC}
    answer = platform.http.patch(f"/projects/{PROJECT}/env", json={"set": values})
    assert answer.status_code == 200, answer.text
    found.live.append(("the answer to env set", answer.content))
    crew = {path.name: path.read_text() for path in (CREWS / "leaky").iterdir() if path.is_file()}
    broken = crew | {"crew.py": crew["crew.py"] + "\nraise RuntimeError(dict(os.environ))\n"}
    for files, status in ((crew, "ready"), (broken, "failed")):
        deployment = platform.deploy(PROJECT, files)
        assert deployment["status"] == status, deployment
        found.deployments.append(deployment["id"])
    for how in ENDS:
        run = platform.run(PROJECT, {"marker": MARKER, "end": how})
        assert run["status"] == ("succeeded" if how == "output" else "failed"), run
        found.runs[how] = run["id"]
    for how, force in (("canceled", False), ("killed", True)):
        run_id = platform.start_run(PROJECT, {"marker": MARKER, "end": "wait"})
        platform.logged(run_id, "waiting")
        found.live += engine_places(platform)
        found.live += process_places(platform)
        platform.http.post(f"/runs/{run_id}/cancel", json={"force": force})
        assert platform.ended(run_id)["status"] == "canceled"
        found.runs[how] = run_id
    return found


def test_nothing_of_a_secret_is_in_what_the_engine_and_the_processes_show(swept: Swept) -> None:
    kinds = {place.split(" ")[0] for place, _ in swept.live}
    assert {"container", "image", "process", "network"} <= kinds
    assert found_in(swept.live, WANTED) == []


async def test_nothing_of_a_secret_is_in_the_workflow_engine(swept: Swept) -> None:
    client = await Client.connect(swept.platform.temporal_address)
    places: list[tuple[str, bytes]] = []
    async for execution in client.list_workflows():
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        description = (await handle.describe()).raw_description  # memo, search attributes, heartbeats
        places.append((f"{execution.id}, described", json.dumps(MessageToDict(description)).encode()))
        history = await handle.fetch_history()
        for event in history.events:
            places.append((f"{execution.id}, event {event.event_id}", json.dumps(MessageToDict(event)).encode()))
    assert len(places) > 100
    assert any(f"run-{swept.runs['output']}" in place for place, _ in places)
    places += list(rows(swept.platform.data / "temporal.db"))
    assert found_in(places, WANTED) == []
    assert_sees(places, swept.runs["raise"])


def test_nothing_of_a_secret_is_in_any_file_of_the_platform(swept: Swept) -> None:
    places = list(files(swept.platform.data))
    assert {"crewship.db", "temporal.db"} <= {Path(place).name for place, _ in places}
    assert any("/objects/" in place for place, _ in places)
    assert any(place.endswith("api.log") for place, _ in places)
    places += list(rows(swept.platform.data / "crewship.db"))
    assert found_in(places, WANTED) == []
    assert_sees(places, MARKER, PUBLIC)


def test_nothing_of_a_secret_is_in_a_backup(swept: Swept, tmp_path: Path) -> None:
    """As docs/guides/production.md has it for an embedded platform that goes on."""
    data = swept.platform.data
    with (
        closing(sqlite3.connect(data / "crewship.db")) as source,
        closing(sqlite3.connect(tmp_path / "copy.db")) as copy,
    ):
        source.backup(copy)
    shutil.copytree(data / "objects", tmp_path / "objects")
    places = [*files(tmp_path), *rows(tmp_path / "copy.db")]
    assert found_in(places, WANTED) == []
    assert_sees(places, MARKER)
    # Nor are the keys, without which the sealed values are nothing.
    keys = {
        "the admin key": swept.platform.key,
        "the sealing key": (data / "secret.key").read_text().split()[0],
    }
    assert found_in(places, keys) == []
    raw = bytes.fromhex(keys["the sealing key"])
    assert not any(raw in piece for _, piece in places)


def test_nothing_of_a_secret_is_in_an_answer(swept: Swept) -> None:
    places = [*answers(swept), *commands(swept)]
    assert len(places) > 40
    assert found_in(places, WANTED) == []
    assert_sees(places, MARKER, PUBLIC, "[redacted:TOKEN]", "[redacted:PHRASE]", "[redacted:DATABASE_URL]")


def test_it_was_shown_and_taken_out_everywhere(swept: Swept) -> None:
    """Else a crew that shows nothing would pass."""
    for how, run_id in swept.runs.items():
        events = swept.platform.events(run_id)
        text = json.dumps(events)
        for name in SECRETS:
            assert text.count(f"[redacted:{name}]") > 20, (how, name)
        messages = [event["data"]["message"] for event in events if event["type"] == "log"]
        assert sum("here [redacted:TOKEN] it is" in message for message in messages) >= 6
        assert any(message == "  cut [redacted:TOKEN] cut" for message in messages)
    errors = {how: swept.platform.get(f"/runs/{swept.runs[how]}")["error"] for how in ("raise", "group", "exit")}
    assert "[redacted:TOKEN]" in errors["raise"]["message"]
    assert "[redacted:PHRASE]" in errors["raise"]["traceback"]
    assert "[redacted:TOKEN]" in errors["group"]["traceback"]
    build = swept.platform.read(f"/deployments/{swept.deployments[0]}/events").decode()
    assert "imported with TOKEN = [redacted:TOKEN]" in build
    assert "[redacted:" in json.dumps(swept.platform.get(f"/deployments/{swept.deployments[1]}")["error"])


@pytest.mark.parametrize("value", [*WANTED.values()], ids=[*WANTED])
def test_the_sweep_finds_what_is_there(value: str) -> None:
    raw = value.encode()
    hidden = {
        "clear": b"x" + raw + b"x", "base64": base64.b64encode(b"1" + raw), "twice": base64.b64encode(base64.b64encode(raw)),
        "zstd": b"abc" + zstandard.compress(b"log " + raw + b"\n" * 500), "hex": raw.hex().encode(),
        "gzip": gzip.compress(raw), "a payload": json.dumps({"data": base64.b64encode(raw).decode()}).encode(),
        "zstd in base64": base64.b64encode(zstandard.compress(raw)),
    }  # fmt: skip
    for name, data in hidden.items():
        assert found_in([(name, data)], {"IT": value}), name
    assert found_in([("nothing", b"hello" * 1000)], {"IT": value}) == []
    assert len(needles(value)) > 10


def assert_sees(places: list[tuple[str, bytes]], *texts: str) -> None:
    """Texts that are no secrets and have to be there: where they are not seen, no secret would be either."""
    for text in texts:
        assert any(text.encode() in piece for _, data in places for piece in taken_apart(data)), text


# --- where to look ----------------------------------------------------------------------------------------------------


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All files below, but those that are there to hold a key."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("secret.key", "admin.key"):
            yield str(path), path.read_bytes()


def rows(database: Path) -> Iterator[tuple[str, bytes]]:
    """All rows of all tables: in the file itself a long value is in pieces."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables
        for table in tables:
            for number, row in enumerate(opened.execute(f'SELECT * FROM "{table}"')):
                for value in row:
                    if isinstance(value, (bytes, str)):
                        data = value if isinstance(value, bytes) else value.encode()
                        yield f"{database.name}, {table}, row {number}", data


def engine_places(platform: CrewshipDev) -> list[tuple[str, bytes]]:
    """What the engine tells of containers, images, volumes and networks of this installation, and of its images' making."""
    ours = f"label=crewship.instance={platform.instance}"
    containers = until(lambda: platform.containers())
    places = [(f"container {each.name}", json.dumps(each.attrs).encode()) for each in containers]
    places += [(f"container {each.name}, its log", _docker("logs", each.id)) for each in containers]
    for image in platform.images():
        places.append((f"image {image.id}", json.dumps(image.attrs).encode()))
        places.append((f"image {image.id}, history", _docker("history", "--no-trunc", image.id)))
    places += [(f"volume {each.name}", json.dumps(each.attrs).encode()) for each in platform.volumes()]
    networks = _docker("network", "ls", "-q", "--filter", ours).split()
    places += [(f"network {each.decode()}", _docker("network", "inspect", each.decode())) for each in networks]
    for each in containers:
        # The processes of the host see a container's arguments and its first process's environment.
        pid = each.attrs["State"].get("Pid") or 0
        if pid:
            places.append((f"container {each.name}, its arguments", Path(f"/proc/{pid}/cmdline").read_bytes()))
            places.append((f"container {each.name}, its init's environment", Path(f"/proc/{pid}/environ").read_bytes()))
    return places


def process_places(platform: CrewshipDev) -> list[tuple[str, bytes]]:
    """Arguments and environments of the platform's own processes."""
    places = []
    for part in ("api", "worker", "temporal"):
        pid = platform.pid(part)
        for kind in ("cmdline", "environ"):
            places.append((f"process {part}, {kind}", Path(f"/proc/{pid}/{kind}").read_bytes()))
    return places


def answers(swept: Swept) -> Iterator[tuple[str, bytes]]:
    """Every reading call of the API's own document, for all that this test has made."""
    http = swept.platform.http
    document: dict[str, Any] = http.get(f"{swept.platform.url}/openapi.json").json()
    known = {"project": [PROJECT], "run_id": list(swept.runs.values()), "deployment_id": swept.deployments}
    for template, operations in document["paths"].items():
        placeholders = re.findall(r"{(\w+)}", template)
        if "get" not in operations or not known.keys() >= set(placeholders):
            continue  # artifacts are the crews' own, and keys are no secrets' place
        name = placeholders[0] if placeholders else None
        for value in known[name] if name else [""]:
            path = template.format_map({name: value}) if name else template
            for accept in ("text/event-stream", "application/x-ndjson") if path.endswith("/events") else ("*/*",):
                answer = http.get(f"{swept.platform.url}{path}", headers={"Accept": accept})
                assert answer.status_code in (200, 204), (path, answer.text)
                yield f"GET {path} ({accept})", answer.content
    for body in ({"project": PROJECT, "input": 5}, {"project": PROJECT, "input": {}, "typo": 1}):
        yield "a refused run", http.post("/runs", json=body).content
    yield "a refused variable", http.patch(f"/projects/{PROJECT}/env", json={"set": {"BAD": "x\0"}}).content


def commands(swept: Swept) -> Iterator[tuple[str, bytes]]:
    run_id = swept.runs["raise"]
    for arguments in (
        ("env", "list", "-p", PROJECT), ("runs", "list", "-p", PROJECT), ("runs", "show", run_id), ("runs", "logs", run_id),
        ("runs", "show", swept.runs["output"], "--json"), ("deployments", "list", "-p", PROJECT), ("doctor",),
    ):  # fmt: skip
        done = swept.platform.crewship(*arguments)
        yield f"crewship {' '.join(arguments)}", (done.stdout + done.stderr).encode()


def _docker(*arguments: str) -> bytes:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=False)
    return done.stdout + done.stderr
