"""Provisioning: finding, running and making, with stand-ins for downloads only."""

import contextlib
import io
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crewship.provision import __main__ as entry
from crewship.provision import temporal
from crewship.provision.commands import answers, locked, run
from crewship.provision.errors import ProvisionError
from crewship.provision.minio import MINIO
from crewship.provision.progress import Lines, Silent


def tool(path: Path, answer: int = 0) -> Path:
    """A program that takes any arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {answer}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Steps(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.details: list[str] = []

    @contextlib.contextmanager
    def step(self, name: str):  # type: ignore[no-untyped-def]
        self.names.append(name)
        yield self

    def detail(self, text: str) -> None:
        self.details.append(text)


# Programs


def test_a_program_is_shown_and_logged(tmp_path: Path) -> None:
    steps, log = Steps(), tmp_path / "logs" / "tool.log"
    run([sys.executable, "-c", "print('one'); print('two')"], steps, log=log, timeout_seconds=30)
    assert steps.details == ["one", "two"]
    assert log.read_text().endswith("one\ntwo\n")


def test_a_program_that_fails_is_told_with_its_last_lines_and_a_hint(tmp_path: Path) -> None:
    program = "import sys; [print(n) for n in range(100)]; sys.exit(4)"
    with pytest.raises(ProvisionError, match="failed with exit code 4") as caught:
        run([sys.executable, "-c", program], Steps(), log=tmp_path / "log", timeout_seconds=30, hint="do this")
    assert caught.value.detail.endswith("\n  98\n  99")
    assert "\n  80\n" not in caught.value.detail
    assert caught.value.hint == "do this"


def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])"
    with pytest.raises(ProvisionError, match="took over 1 s"):
        run([sys.executable, "-c", program], Steps(), log=tmp_path / "log", timeout_seconds=1)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="cannot be run: No such file"):
        run([tmp_path / "none"], Steps(), log=tmp_path / "log", timeout_seconds=1)
    assert not answers([tmp_path / "none"])


def test_a_lock_makes_the_second_wait(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from crewship.provision.commands import locked\n"
        "folder = Path(sys.argv[1]); print('comes', flush=True)\n"
        "with locked(folder, 'thing'): print((folder / 'made').exists())"
    )
    with locked(tmp_path, "thing"):
        waiter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "comes\n"
        (tmp_path / "made").touch()
    assert waiter.communicate()[0] == "True\n"


# Progress


def test_lines_say_begin_and_end_and_now_and_then_a_detail() -> None:
    out = io.StringIO()
    with Lines(out, every_seconds=0).step("Making it") as step:
        step.detail("half")
    with contextlib.suppress(ZeroDivisionError), Lines(out).step("Breaking it") as step:
        step.detail("too early to say more")
        raise ZeroDivisionError
    assert [line.partition(" (")[0] for line in out.getvalue().splitlines()] == [
        "Making it ...", "  half", "✓ Making it", "Breaking it ...", "✗ Breaking it",
    ]  # fmt: skip


# Temporal


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but what a test puts there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_temporal_is_the_configured_one_then_that_on_path_then_the_cached(no_tools: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert temporal.find_temporal(cache) is None
    cached = tool(cache / "bin" / "temporal")
    assert temporal.find_temporal(cache) == cached
    on_path = tool(no_tools / "temporal")
    assert temporal.find_temporal(cache) == on_path
    configured = tool(tmp_path / "mine")
    assert temporal.ensure_temporal(cache, Silent(), configured) == configured


def test_a_temporal_on_path_that_does_not_work_is_passed_over(no_tools: Path, tmp_path: Path) -> None:
    tool(no_tools / "temporal", answer=1)
    cached = tool(tmp_path / "cache" / "bin" / "temporal")
    assert temporal.find_temporal(tmp_path / "cache") == cached


def test_a_configured_temporal_that_does_not_work_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="CREWSHIP_TEMPORAL_BIN"):
        temporal.ensure_temporal(tmp_path, Silent(), tool(tmp_path / "mine", answer=1))


def test_temporal_is_built_once_when_there_is_go_and_no_network(
    no_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "_reachable", lambda *_: False)
    go = no_tools / "go"
    go.write_text('#!/bin/sh\necho "$@"\nprintf "#!/bin/sh\\n" > "$GOBIN/temporal"\n/bin/chmod +x "$GOBIN/temporal"\n')
    go.chmod(0o755)
    steps = Steps()
    built = temporal.ensure_temporal(tmp_path / "cache", steps)
    assert built == tmp_path / "cache" / "bin" / "temporal"
    assert steps.names == ["Building Temporal (once, about 3 minutes)"]
    assert steps.details == [f"install -v {temporal.PACKAGE}"]
    assert [path.name for path in built.parent.iterdir()] == ["temporal"], "nothing is left of the build"
    go.unlink()
    assert temporal.ensure_temporal(tmp_path / "cache", steps) == built


def test_a_download_that_fails_falls_back_to_a_build(
    no_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "_reachable", lambda *_: True)
    monkeypatch.setattr(sys, "executable", str(tool(tmp_path / "python", answer=1)))
    go = tool(no_tools / "go")
    go.write_text('#!/bin/sh\nprintf "#!/bin/sh\\n" > "$GOBIN/temporal"\n/bin/chmod +x "$GOBIN/temporal"\n')
    steps = Steps()
    assert temporal.ensure_temporal(tmp_path / "cache", steps).is_file()
    assert [name.split()[0] for name in steps.names] == ["Downloading", "Building"]


def test_without_any_way_to_get_temporal_it_says_what_to_do(
    no_tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporal, "_reachable", lambda *_: False)
    with pytest.raises(ProvisionError) as caught:
        temporal.ensure_temporal(tmp_path, Silent())
    assert "install Go" in str(caught.value.hint)


def test_the_server_is_reached_from_this_machine_only() -> None:
    arguments = temporal.server_arguments(Path("temporal"), port=1, ui_port=2, database=Path("/d/t.db"))
    assert arguments[arguments.index("--ip") + 1] == arguments[arguments.index("--ui-ip") + 1] == "127.0.0.1"
    assert "--headless" not in arguments
    assert [arguments[at + 1] for at, word in enumerate(arguments) if word == "--search-attribute"] == [
        "CrewshipProject=Keyword", "CrewshipDeployment=Keyword", "CrewshipStatus=Keyword",
    ]  # fmt: skip
    assert 'history.timerProcessorMaxTimeShift="100ms"' in arguments


def test_minio_is_that_on_path_then_the_cached(no_tools: Path, tmp_path: Path) -> None:
    assert MINIO.find(tmp_path) is None
    cached = tool(tmp_path / "bin" / "minio")
    assert MINIO.find(tmp_path) == cached


# The entry


def test_the_entry_renders_an_error_with_its_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Path:
        raise ProvisionError("no Temporal", hint="get one")

    monkeypatch.setattr(entry, "ensure_temporal", fail)
    assert entry.main(["temporal"]) == 1
    assert capsys.readouterr().err == "error: no Temporal\nhint: get one\n"
    with pytest.raises(SystemExit) as caught:
        entry.main(["nonsense"])
    assert caught.value.code == 2
