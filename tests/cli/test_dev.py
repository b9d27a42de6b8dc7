"""``crewship dev`` on the command line: options in, one line out. The platform itself is in ``test_devserver``."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_data_dir

from crewship import devserver
from crewship.devserver import DevOptions, DevServer, Running
from crewship.devstate import PortInUse, hold
from tests.cli.conftest import Crewship
from tests.fixtures.servers import free_port

KEY = "crewship_a-new-one"


class Stand:
    """Instead of the platform: remembers its options, is ready at once and stopped right after."""

    options: DevOptions
    key: str | None = KEY

    def __init__(self, options: DevOptions, *_: object) -> None:
        Stand.options = options

    def serve(self, on_ready: Callable[[Running], None]) -> None:
        on_ready(Running(self.options.url, self.key, "http://127.0.0.1:8701", self.options.data))


@pytest.fixture(autouse=True)
def _stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devserver, "DevServer", Stand)
    monkeypatch.delenv("CREWSHIP_DATA_DIR", raising=False)


def test_it_listens_on_the_loopback_address_and_keeps_state_in_the_users_folder(crewship: Crewship) -> None:
    done = crewship("dev")
    assert done.exit_code == 0, done.output
    assert Stand.options == DevOptions(Path(user_data_dir("crewship")), "127.0.0.1", 8700, 8701)


def test_options(crewship: Crewship, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    crewship("dev", "--host", "0.0.0.0", "--port", "9000", "--ui-port", "9001", "--data", "here")
    assert Stand.options == DevOptions(tmp_path / "here", "0.0.0.0", 9000, 9001)


def test_json_is_one_line_on_stdout(crewship: Crewship, tmp_path: Path) -> None:
    done = crewship("dev", "--json", "--data", str(tmp_path))
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == {
        "url": "http://127.0.0.1:8700", "api_key": KEY, "temporal_ui": "http://127.0.0.1:8701", "data": str(tmp_path),
    }  # fmt: skip


def test_for_people_stdout_has_one_line_and_the_key_is_talk(crewship: Crewship, tmp_path: Path) -> None:
    done = crewship("dev", "--data", str(tmp_path))
    assert done.stdout == "Crewship is ready at http://127.0.0.1:8700\n"
    assert KEY in done.stderr
    assert "crewship deploy" in done.stderr


def test_a_key_that_is_old_is_not_shown(crewship: Crewship, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stand, "key", None)
    assert "admin key" not in crewship("dev", "--data", str(tmp_path)).stderr
    assert json.loads(crewship("dev", "--json", "--data", str(tmp_path)).stdout)["api_key"] is None


@pytest.mark.parametrize("port", ["0", "70000", "http"])
def test_a_port_that_is_none(crewship: Crewship, port: str) -> None:
    assert crewship("dev", "--port", port).exit_code == 2


def test_a_port_in_use_is_exit_code_1_with_a_hint(crewship: Crewship, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*_: object) -> None:
        raise PortInUse("port 8700 on 127.0.0.1 is in use", hint="choose another one: --port 8710")

    monkeypatch.setattr(Stand, "serve", serve)
    done = crewship("dev")
    assert done.exit_code == 1
    assert done.stderr == "error: port 8700 on 127.0.0.1 is in use\nhint: choose another one: --port 8710\n"


@pytest.mark.usefixtures("real")
class TestStartsThatFail:
    @pytest.fixture
    def real(self, _stand: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """The platform itself: none of these gets so far as to need an engine."""
        monkeypatch.setattr(devserver, "DevServer", DevServer)
        monkeypatch.delenv("CREWSHIP_TEMPORAL_ADDRESS", raising=False)

    def ports(self) -> list[str]:
        return ["--port", str(free_port()), "--ui-port", str(free_port())]

    @pytest.mark.parametrize(("below", "why"), [("", "it is a file"), ("/x", "Not a directory")])
    def test_a_data_folder_that_cannot_be_one(self, crewship: Crewship, tmp_path: Path, below: str, why: str) -> None:
        (tmp_path / "file").write_text("")
        data = f"{tmp_path}/file{below}"
        done = crewship("dev", *self.ports(), "--data", data)
        assert done.exit_code == 2
        assert done.stderr == (
            f"error: {data} cannot be the data folder: {why}\nhint: name another folder: --data DIR\n"
        )

    def test_a_port_in_use_leaves_nothing(self, crewship: Crewship, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            done = crewship("dev", *self.ports(), "--port", port, "--data", str(tmp_path / "new"))
        assert done.exit_code == 1
        assert f"port {port} on 127.0.0.1 is in use" in done.stderr
        assert not (tmp_path / "new").exists()

    def test_a_folder_in_use_is_said_before_a_port_is(self, crewship: Crewship, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, hold(tmp_path):
            port = str(taken.getsockname()[1])
            done = crewship("dev", *self.ports(), "--port", port, "--data", str(tmp_path))
        assert done.exit_code == 1
        assert f"another crewship dev uses {tmp_path}" in done.stderr
