"""``crewship doctor``: what it prints, and which platform it looks at."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from platformdirs import user_state_dir

from crewship.provision import checks
from crewship.provision.checks import Check
from crewship.settings import Settings
from tests.cli.conftest import Crewship
from tests.fixtures.servers import free_port

DISK = Check("disk", "ok", "50 GiB free")
ROWS = [
    {"name": "database", "ok": True, "required": True, "detail": None, "hint": None},
    {
        "name": "object_store",
        "ok": False,
        "required": True,
        "detail": "It cannot be written to",
        "hint": "free its disk",
    },
]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """The findings on the machine; the checks themselves are tested where they are."""
    findings = [DISK]
    monkeypatch.setattr(checks, "check_machine", lambda _: iter(findings))
    return findings


class Answer(BaseHTTPRequestHandler):
    """A platform whose object store is down."""

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"ready": False, "dependencies": ROWS}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def unwell() -> Iterator[str]:
    """Address of a platform that answers and is not ready."""
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_fresh_machine_has_warnings_only(crewship: Crewship) -> None:
    done = crewship("doctor")
    assert done.exit_code == 0, done.output
    assert "✓ disk" in done.stdout
    assert "! database" in done.stdout
    assert "none runs here, and there is no login\n    start one: crewship dev\n" in done.stdout


def test_json_has_every_check_and_says_whether_all_is_well(crewship: Crewship, machine: list[Check]) -> None:
    told = json.loads(crewship("doctor", "--json").stdout)
    assert told["ok"] is True
    assert told["checks"][0] == {"name": "disk", "status": "ok", "detail": "50 GiB free", "hint": None}

    machine.append(Check("container engine", "fail", "it cannot be reached", "start it"))
    done = crewship("doctor", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["ok"] is False


def test_a_failure_says_how_to_mend_it_and_is_exit_code_1(crewship: Crewship, machine: list[Check]) -> None:
    machine.append(Check("container engine", "fail", "it cannot be reached\nand more", "start it"))
    done = crewship("doctor")
    assert done.exit_code == 1
    assert "✗ container engine         it cannot be reached\n    and more\n    start it\n" in done.stdout
    assert "checks failed" in done.stderr


def test_a_platform_that_is_not_ready_says_which_part_is_down(crewship: Crewship, unwell: str) -> None:
    done = crewship("doctor", "--url", unwell)
    assert done.exit_code == 1
    assert f"✗ platform                 {unwell} (from --url) is not ready: object store\n✗ its" in done.stdout
    assert "✗ its object store         It cannot be written to\n    free its disk\n" in done.stdout
    assert "its database" not in done.stdout


def test_a_platform_that_does_not_answer(crewship: Crewship) -> None:
    done = crewship("doctor", "--url", f"http://127.0.0.1:{free_port()}")
    assert done.exit_code == 1
    assert done.stdout.startswith("✗ platform")
    assert "\n    crewship dev starts one here; --url names another one\n" in done.stdout


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("crewship doctor", "the API's CREWSHIP_OBJECT_STORE right"),
        (None, "the API's CREWSHIP_OBJECT_STORE right"),
        ("Check the disk; `crewship doctor` tells more.", "    Check the disk\n"),
    ],
)
def test_no_hint_leads_back_to_the_doctor(
    crewship: Crewship, unwell: str, monkeypatch: pytest.MonkeyPatch, hint: str | None, shown: str
) -> None:
    monkeypatch.setitem(ROWS[1], "hint", hint)
    done = crewship("doctor", "--url", unwell)
    assert shown in done.stdout
    assert "crewship doctor" not in done.output


def register(url: str, data: Path) -> int:
    """A ``crewship dev`` that runs here; its Temporal's port, where nothing listens."""
    port = free_port()
    data.mkdir(exist_ok=True)
    (data / "dev.json").write_text(json.dumps({"instance": "dev-1", "temporal_port": port}))
    registry = Path(user_state_dir("crewship")) / "dev"
    registry.mkdir(parents=True, exist_ok=True)
    (registry / f"{os.getpid()}.json").write_text(json.dumps({"url": url, "data": str(data), "pid": os.getpid()}))
    return port


def test_it_looks_at_the_platform_that_runs_here(
    crewship: Crewship, tmp_path: Path, unwell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(checks, "check_machine", lambda settings: iter(seen.append(settings) or [DISK]))  # type: ignore[func-returns-value]
    monkeypatch.setitem(ROWS[1], "hint", "crewship doctor")
    port = register(unwell, tmp_path)

    done = crewship("doctor")
    assert seen[0].data_dir == tmp_path
    assert f"✗ Temporal server          nothing answers at 127.0.0.1:{port}" in done.stdout
    assert f"{unwell} (from crewship dev) is not ready" in done.stdout
    for name in ("temporal", "api"):
        assert f"    stop crewship dev and start it again; its log is {tmp_path}/logs/{name}.log\n" in done.stdout


def test_of_another_platform_it_tells_nothing_of_the_one_that_runs_here(
    crewship: Crewship, tmp_path: Path, unwell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = register("http://127.0.0.1:1", tmp_path)
    monkeypatch.setenv("CREWSHIP_URL", unwell)
    done = crewship("doctor")
    assert done.stdout.startswith(f"✗ platform                 {unwell} (from CREWSHIP_URL) is not ready")
    assert str(tmp_path) not in done.output
    assert str(port) not in done.output

    monkeypatch.setenv("CREWSHIP_TEMPORAL_ADDRESS", f"127.0.0.1:{free_port()}")
    assert "✓ disk" in crewship("doctor").stdout, "a server's settings: this machine is a part of it"


def test_an_address_that_is_none_is_said(crewship: Crewship) -> None:
    assert crewship("doctor", "--url", "nonsense").exit_code == 2
