"""``crewship dev`` with stand-ins for worker and API: what it starts, in which order, what it tells and what it leaves.

The stand-ins let a test see order and environment, and be killed. The real ones are tested as a whole platform elsewhere.
"""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crewship.db import migrate, open_database, session
from crewship.devserver import DevOptions, Interrupted
from crewship.devstate import PortInUse, check_port, valid_key
from crewship.keys import find_key, store_first_key
from crewship.processes import ChildLog
from crewship.provision.temporal import find_temporal
from crewship.settings import Settings
from tests.fixtures.servers import free_port

WORKER = """
import json, os, signal, sys
from pathlib import Path
data = Path(os.environ["CREWSHIP_DATA_DIR"])
def stop(*_):
    with (data / "order").open("a") as file: file.write("worker stops\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with (data / "order").open("a") as file: file.write("worker starts\\n")
(data / "worker.json").write_text(json.dumps({"pid": os.getpid(), "env": dict(os.environ), "cwd": os.getcwd()}))
print("worker ready", flush=True)
while True: signal.pause()
"""

API = """
import json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
data = Path(os.environ["CREWSHIP_DATA_DIR"])
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404); self.end_headers()
def stop(*_):
    with (data / "order").open("a") as file: file.write("api stops\\n")
    os._exit(0)
from crewship.db import migrate, open_database, session
from crewship.keys import store_first_key
database = open_database(f"sqlite:///{data / 'crewship.db'}")
migrate(database)
with session(database) as opened: store_first_key(opened, os.environ["CREWSHIP_BOOTSTRAP_ADMIN_KEY"])
server = HTTPServer((os.environ["CREWSHIP_API_HOST"], int(os.environ["CREWSHIP_API_PORT"])), Answer)
with (data / "order").open("a") as file: file.write("api starts\\n")
(data / "api.json").write_text(json.dumps({"pid": os.getpid(), "env": dict(os.environ)}))
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
"""

API_THAT_HANGS = """
import os, signal
from pathlib import Path
(Path(os.environ["CREWSHIP_DATA_DIR"]) / "api.json").write_text("{}")
signal.pause()
"""

DEV = """
import json, sys
from dataclasses import replace
from pathlib import Path
from cli.dev import _announce
from crewship.devserver import DevOptions, DevServer
from crewship.errors import CrewshipError
from crewship.provision.progress import Lines
from crewship.settings import Settings
told = json.loads(sys.argv[1])
options = DevOptions(Path(told["data"]), "127.0.0.1", told["port"], told["ui_port"], told["commands"])
def say(text): print(text, file=sys.stderr, flush=True)
try:
    DevServer(options, Settings(), Lines(sys.stderr), say).serve(lambda running: _announce(running, "127.0.0.1", True))
except CrewshipError as error:
    print(f"error: {error.detail}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Dev:
    """A ``crewship dev`` that a test can start again on the same folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.registry = folder / "state" / "crewship" / "dev"
        self.port, self.ui_port = free_port(), free_port()
        self.worker, self.api = WORKER, API
        self.env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        for name in [name for name in self.env if name.startswith("CREWSHIP_") and name != "CREWSHIP_CACHE_DIR"]:
            del self.env[name]
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> "subprocess.Popen[str]":
        commands = {"worker": [sys.executable, "-c", self.worker], "api": [sys.executable, "-c", self.api]}
        told = {"data": str(self.data), "port": self.port, "ui_port": self.ui_port, "commands": commands}
        process = subprocess.Popen(
            [sys.executable, "-c", DEV, json.dumps(told)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def ready(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            pytest.fail(f"crewship dev is not ready: {process.stderr.read()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def stop(self, process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGTERM) -> int:
        process.send_signal(number)
        process.communicate()
        return process.returncode

    def child(self, name: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.data / f"{name}.json").read_text())
        return told


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path)
    yield dev
    for process in dev.processes:
        process.kill()
        process.communicate()


@pytest.fixture
def dev_without_temporal(dev: Dev) -> Dev:
    dev.env["CREWSHIP_TEMPORAL_ADDRESS"] = "127.0.0.1:1"
    return dev


def await_line(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    pytest.fail(f"never said: {words}")


@pytest.mark.docker
@pytest.mark.temporal
def test_it_starts_everything_tells_and_stops_in_order(dev: Dev) -> None:
    process = dev.start()
    told = dev.ready(process)
    assert told["url"] == f"http://127.0.0.1:{dev.port}"
    assert told["temporal_ui"] == f"http://127.0.0.1:{dev.ui_port}"
    assert told["data"] == str(dev.data)

    key_file = dev.data / "admin.key"
    assert key_file.read_text().strip() == told["api_key"]
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    registration = dev.registry / f"{process.pid}.json"
    assert stat.S_IMODE(registration.stat().st_mode) == 0o600
    assert json.loads(registration.read_text()) == {"url": told["url"], "data": told["data"], "pid": process.pid}

    worker, api = dev.child("worker"), dev.child("api")
    for name in ("INSTANCE", "HOST", "TEMPORAL_ADDRESS", "BASE_IMAGE", "DATA_DIR", "API_PORT", "TEMPORAL_UI_URL"):
        assert worker["env"][f"CREWSHIP_{name}"] == api["env"][f"CREWSHIP_{name}"] != ""
    assert api["env"]["CREWSHIP_BOOTSTRAP_ADMIN_KEY"] == told["api_key"]
    assert "CREWSHIP_BOOTSTRAP_ADMIN_KEY" not in worker["env"]
    assert worker["cwd"] == str(dev.data)

    temporal_port = int(worker["env"]["CREWSHIP_TEMPORAL_ADDRESS"].rpartition(":")[2])
    socket.create_connection(("127.0.0.1", temporal_port)).close()
    assert _shows_search_attributes(temporal_port)

    assert dev.stop(process) == 0
    order = (dev.data / "order").read_text().splitlines()
    assert set(order[:2]) == {"worker starts", "api starts"}
    assert order[2:] == ["api stops", "worker stops"]
    assert not registration.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", temporal_port))

    again = dev.start()
    assert dev.ready(again)["api_key"] is None
    assert dev.child("worker")["env"]["CREWSHIP_INSTANCE"] == worker["env"]["CREWSHIP_INSTANCE"]
    assert dev.child("worker")["env"]["CREWSHIP_TEMPORAL_ADDRESS"] == worker["env"]["CREWSHIP_TEMPORAL_ADDRESS"]
    assert dev.stop(again, signal.SIGINT) == 0


def _shows_search_attributes(port: int) -> bool:
    binary = find_temporal(Settings().cache_dir)
    assert binary is not None
    command = [str(binary), "operator", "search-attribute", "list", "--address", f"127.0.0.1:{port}", "-o", "json"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return all(name in listed for name in ("CrewshipProject", "CrewshipDeployment", "CrewshipStatus"))


@pytest.mark.docker
def test_two_on_one_folder_refuse(dev_without_temporal: Dev) -> None:
    dev = dev_without_temporal
    first = dev.start()
    dev.ready(first)
    dev.port = free_port()
    second = dev.start()
    _, said = second.communicate()
    assert second.returncode == 1
    assert f"another crewship dev uses {dev.data} at http://127.0.0.1:" in said
    assert dev.stop(first) == 0


@pytest.mark.docker
def test_a_port_in_use_names_its_option(dev_without_temporal: Dev) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as caught:
            check_port("127.0.0.1", port, "--ui-port")
        assert caught.value.exit_code == 1
        assert caught.value.hint == f"choose another one: --ui-port {port + 10}"
        dev_without_temporal.port = port
        process = dev_without_temporal.start()
        _, said = process.communicate()
    assert process.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in said


@pytest.mark.docker
def test_a_child_that_dies_is_started_again(dev_without_temporal: Dev) -> None:
    dev = dev_without_temporal
    process = dev.start()
    dev.ready(process)
    before = dev.child("worker")["pid"]
    os.kill(before, signal.SIGKILL)
    await_line(process, "worker runs again")
    assert dev.child("worker")["pid"] != before
    assert dev.stop(process) == 0


@pytest.mark.docker
def test_a_child_that_cannot_start_ends_it_and_says_why(dev_without_temporal: Dev) -> None:
    working = dev_without_temporal.worker
    dev_without_temporal.worker = "import sys; sys.exit('the worker has no luck')"
    process = dev_without_temporal.start()
    out, said = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert "worker ended with exit code 1" in said
    assert "the worker has no luck" in said

    dev_without_temporal.worker = working
    again = dev_without_temporal.start()
    assert dev_without_temporal.ready(again)["api_key"], "the key has not been shown yet"
    assert dev_without_temporal.stop(again) == 0


@pytest.mark.docker
def test_stopping_it_while_it_starts_leaves_nothing(dev_without_temporal: Dev) -> None:
    dev = dev_without_temporal
    dev.api = API_THAT_HANGS
    dev.data.mkdir()
    for name in ("worker", "api"):  # reading one waits until that child is there
        os.mkfifo(dev.data / f"{name}.json")
    process = dev.start()
    for name in ("worker", "api"):
        (dev.data / f"{name}.json").read_text()
    assert dev.stop(process) == 0
    assert (dev.data / "order").read_text() == "worker starts\nworker stops\n"


@pytest.mark.docker
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_its_children_end_when_it_is_killed(dev_without_temporal: Dev) -> None:
    dev = dev_without_temporal
    process = dev.start()
    dev.ready(process)
    watched = [os.pidfd_open(dev.child(name)["pid"]) for name in ("worker", "api")]
    process.kill()
    process.communicate()
    for descriptor in watched:
        select.select([descriptor], [], [])
        os.close(descriptor)

    again = dev.start()  # what the killed one left is no obstacle
    dev.ready(again)
    assert [path.name for path in dev.registry.iterdir()] == [f"{again.pid}.json"]
    assert dev.stop(again) == 0


def test_a_lost_key_file_is_replaced_by_a_valid_key(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'crewship.db'}")
    migrate(database)
    with session(database) as opened:
        store_first_key(opened, "crewship_the-key-that-was-lost")
    (tmp_path / "admin.key").write_text("crewship_one-that-nobody-knows\n")

    secret = valid_key(Settings(database_url=""), tmp_path)

    assert secret == (tmp_path / "admin.key").read_text().strip() != "crewship_one-that-nobody-knows"
    with session(database) as opened:
        found = find_key(opened, secret)
        assert found is not None
        assert found.scopes == ["admin"]
    database.dispose()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8700"),
        ("0.0.0.0", "http://127.0.0.1:8700"),
        ("::", "http://[::1]:8700"),
        ("::1", "http://[::1]:8700"),
        ("box.example", "http://box.example:8700"),
    ],
)
def test_its_address_is_one_that_a_client_can_use(host: str, url: str) -> None:
    assert DevOptions(Path("/srv"), host=host).url == url


def test_temporals_database_is_interrupted_for_good_when_it_goes_on_being(tmp_path: Path) -> None:
    path = tmp_path / "temporal.log"
    path.write_text("Error: interrupted (9)\n" * 100)  # of the process before
    log, is_stuck = ChildLog(path), Interrupted()

    def looks(times: int) -> bool:
        with path.open("a") as file:
            file.write("Error: interrupted (9)\n" * times)
        return is_stuck(log)

    assert not looks(0)
    assert not looks(50)
    assert not looks(1)  # a call was given up, and no more
    assert not looks(50)
    assert looks(50)
    assert not looks(0)
