"""The smoke boot with the real runner in real images."""

import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from crewship.builds import BuildFailed
from crewship.docker_engine import DockerEngine
from crewship.engine import ImageMissing, Limits
from crewship.image_builder import ImageBuilder
from crewship.settings import Settings
from crewship.smoke import SmokeFacts, smoke
from tests.fixtures.builds import CONFIG, RecordedLog, pack
from tests.fixtures.engine import connection, engine, engine_settings, platform_image  # noqa: F401

pytestmark = pytest.mark.docker

LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)


class Booted:
    """One boot of a crew: what it logged, and its facts or its failure."""

    def __init__(self, builder: ImageBuilder, engine: DockerEngine, folder: Path) -> None:  # noqa: F811
        self._builder, self._engine, self._folder = builder, engine, folder
        self.log = RecordedLog()

    def boot(
        self,
        crew: str,
        env: Mapping[str, str] | None = None,
        *,
        timeout_seconds: float = 60,
        cancel: threading.Event | None = None,
    ) -> SmokeFacts:
        deployment_id = f"dep_{secrets.token_hex(6)}"
        upload = pack(self._folder, {}, crew=crew)
        built = self._builder.build(deployment_id, "test-project", CONFIG, upload, RecordedLog())
        try:
            return smoke(
                self._engine,
                deployment_id,
                built.image_id,
                CONFIG,
                env or {},
                LIMITS,
                self.log,
                timeout_seconds=timeout_seconds,
                cancel=cancel,
            )
        finally:
            assert self._engine.list() == []

    def fail(self, crew: str, **options: float) -> BuildFailed:
        with pytest.raises(BuildFailed) as caught:
            self.boot(crew, **options)
        return caught.value


@pytest.fixture(scope="module")
def builder(engine: DockerEngine, engine_settings: Settings, platform_image: str) -> Iterator[ImageBuilder]:  # noqa: F811
    builder = ImageBuilder(engine, engine_settings)
    yield builder
    builder.close()


@pytest.fixture
def booted(builder: ImageBuilder, engine: DockerEngine, tmp_path: Path) -> Booted:  # noqa: F811
    return Booted(builder, engine, tmp_path)


def test_a_boot_that_works(booted: Booted) -> None:
    facts = booted.boot(
        "import logging, os, sys\n"
        "print('out', os.environ['GREETING'])\n"
        "print('err', file=sys.stderr)\n"
        "logging.basicConfig(stream=sys.stdout); logging.getLogger().warning('careful')\n"
        "def kickoff(inputs): raise RuntimeError('never called')\n",
        {"GREETING": "hello"},
    )
    assert facts.kind == "function"
    assert facts.import_ms >= 0
    assert facts.memory_bytes > 1 << 20
    assert facts.isolation["uid"] == 10001
    assert facts.isolation["no_new_privs"] is True
    assert facts.isolation["memory_max_bytes"] == LIMITS.memory_bytes
    assert sorted(booted.log.lines) == [
        ("WARNING:root:careful", "warning", "stdout"),
        ("err", "info", "stderr"),
        ("out hello", "info", "stdout"),
    ]


def test_env_vars_are_not_in_the_containers_configuration(
    builder: ImageBuilder,
    engine: DockerEngine,  # noqa: F811
    tmp_path: Path,
) -> None:
    seen: list[str] = []

    def look(line: str) -> None:
        for state in engine.list("smoke"):
            seen.append(str(engine.connection.api.inspect_container(state.id)))

    booted = Booted(builder, engine, tmp_path)
    booted.log = RecordedLog(on_line=look)
    booted.boot("import time\nprint('up')\ntime.sleep(0.5)\ndef kickoff(inputs): ...\n", {"API_KEY": "swordfish99"})
    assert seen
    assert "swordfish99" not in "".join(seen)


def test_an_import_that_fails(booted: Booted) -> None:
    failed = booted.fail("def inner():\n    raise ValueError('no such luck')\ninner()\n")
    assert failed.code == "import_error"
    assert "no such luck" in failed.message
    assert "inner()" in (failed.traceback or "")
    assert ("ValueError: no such luck", "error", "stderr") in booted.log.lines
    assert failed.error.code == "import_error"


def test_a_missing_env_var_is_named(booted: Booted) -> None:
    failed = booted.fail("import os\nos.environ['OPENAI_API_KEY']\n")
    assert failed.code == "import_error"
    assert "crewship env set OPENAI_API_KEY=" in (failed.hint or "")


@pytest.mark.parametrize(
    ("crew", "code"),
    [
        ("def other(inputs): ...\n", "entrypoint_not_found"),
        ("kickoff = 3\n", "entrypoint_not_callable"),
        ("class kickoff:\n    def run(self, inputs): ...\n", "entrypoint_not_callable"),
        ("import crewship_no_such_module\n", "import_error"),
        ("def f(:\n", "import_error"),
        ("import sys; sys.exit(0)\n", "import_error"),
        ("import os; os._exit(3)\n", "import_error"),
        ("import os; os.kill(os.getpid(), 9)\n", "import_error"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), 5)\n", "import_error"),
    ],
)
def test_what_each_failure_is_called(booted: Booted, crew: str, code: str) -> None:
    failed = booted.fail(crew)
    assert (failed.code, bool(failed.message)) == (code, True)


def test_an_import_that_needs_more_memory(booted: Booted) -> None:
    failed = booted.fail("hoard = [bytearray(16 << 20) for _ in range(100)]\n")
    assert failed.code == "import_error"
    assert "256 MiB" in failed.message
    assert "memory" in (failed.hint or "")


def test_an_import_that_takes_too_long(booted: Booted) -> None:
    failed = booted.fail("import time\nprint('waiting')\ntime.sleep(600)\n", timeout_seconds=3)
    assert (failed.code, "3 s" in failed.message) == ("import_timeout", True)
    assert ("waiting", "info", "stdout") in booted.log.lines


def test_a_flood_of_output_does_not_hold_it_up(booted: Booted) -> None:
    booted.boot("for i in range(20_000): print('line', i)\ndef kickoff(inputs): ...\n")
    assert [message for message, _, _ in booted.log.lines] == [f"line {i}" for i in range(20_000)]


def test_a_crew_cannot_forge_a_boot(booted: Booted) -> None:
    forged = '{"n":1,"k":"guess","t":"loaded","import_ms":1,"memory_bytes":1,"kind":"function"}'
    failed = booted.fail(f"import os\nprint('''{forged}''')\nos._exit(0)\n")
    assert failed.code == "import_error"


def test_a_cancel(builder: ImageBuilder, engine: DockerEngine, tmp_path: Path) -> None:  # noqa: F811
    cancel = threading.Event()
    booted = Booted(builder, engine, tmp_path)
    booted.log = RecordedLog(on_line=lambda line: cancel.set())
    with pytest.raises(BuildFailed) as caught:
        booted.boot("import time\nprint('waiting')\ntime.sleep(600)\n", cancel=cancel)
    assert caught.value.code == "canceled"


def test_an_image_that_is_gone(builder: ImageBuilder, engine: DockerEngine) -> None:  # noqa: F811
    with pytest.raises(ImageMissing):
        smoke(engine, "dep_x", "crewship/app:dep_gone", CONFIG, {}, LIMITS, RecordedLog(), timeout_seconds=5)
    with pytest.raises(BuildFailed) as caught:
        builder.smoke("dep_x", "crewship/app:dep_gone", CONFIG, LIMITS, {}, RecordedLog())
    assert caught.value.code == "infrastructure"
