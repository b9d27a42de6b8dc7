"""Images that are put together in containers started ahead, and what becomes of these."""

import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from crewship import workbench
from crewship.builds import BuildFailed, BuiltImage
from crewship.docker_engine import DockerEngine
from crewship.engine import Limits
from crewship.errors import Unavailable
from crewship.image_builder import ImageBuilder
from crewship.installer import OPT
from crewship.settings import Settings
from crewship.workbench import AHEAD_PREFIX, Workbench, Workbenches
from tests.fixtures.builds import CONFIG, CREW, RecordedLog, pack
from tests.fixtures.engine import connection, engine, engine_settings, platform_image  # noqa: F401

LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)


class Made:
    """Of a workbench what the pool asks for."""

    def __init__(self, name: str, image: str, keep_seconds: float) -> None:
        self.name, self.image, self.keep_seconds = name, image, keep_seconds
        self.runs, self.removed = True, threading.Event()
        self.on_become: Callable[[], None] = lambda: None

    def become(self, name: str) -> bool:
        self.on_become()
        if self.runs:
            self.name = name
        return self.runs

    def remove(self) -> None:
        self.removed.set()


class Pool:
    def __init__(self, keep_seconds: float = 60.0, *, is_busy: bool = False) -> None:
        self.made: list[Made] = []
        self.benches = Workbenches(self._make, keep_seconds, lambda: is_busy)

    def _make(self, name: str, image: str, keep_seconds: float) -> Workbench:
        assert name in self.benches.names()  # no stray while it is being made
        self.made.append(Made(name, image, keep_seconds))
        return cast(Workbench, self.made[-1])


class TestWorkbenches:
    def test_one_of_an_image_is_used_once(self) -> None:
        pool = Pool()
        with pool.benches as benches:
            assert benches.take("a", "crewship-build-1") is None
            benches.prepare("a")
            benches.prepare("a")
            (made,) = pool.made
            assert (made.image, made.keep_seconds) == ("a", 60.0)
            assert made.name.startswith(AHEAD_PREFIX)
            assert benches.names() == {made.name}
            ahead = made.name
            made.on_become = lambda: cast(
                None, benches.names() == {ahead} or pytest.fail("a stray while it is renamed")
            )
            assert benches.take("b", "crewship-build-1") is None
            assert benches.take("a", "crewship-build-1") is cast(Workbench, made)
            assert made.name == "crewship-build-1"
            assert benches.names() == set()
            assert benches.take("a", "crewship-build-2") is None
        assert not made.removed.is_set()

    def test_one_that_has_ended_is_not_taken(self) -> None:
        pool = Pool()
        with pool.benches as benches:
            benches.prepare("a")
            pool.made[0].runs = False
            assert benches.take("a", "crewship-build-1") is None
            assert pool.made[0].removed.is_set()

    def test_the_engine_is_away(self) -> None:
        pool = Pool()

        def away() -> None:
            raise Unavailable("the engine is away")

        with pool.benches as benches:
            benches.prepare("a")
            pool.made[0].on_become = away
            assert benches.take("a", "crewship-build-1") is None
            assert benches.names() == set()

    def test_they_go_after_a_while(self) -> None:
        pool = Pool(keep_seconds=0.05)
        with pool.benches as benches:
            benches.prepare("a")
            assert pool.made[0].removed.wait(10)
            assert benches.names() == set()

    def test_the_one_of_an_image_that_goes_and_all_in_the_end(self) -> None:
        pool = Pool()
        for image in "ab":
            pool.benches.prepare(image)
        pool.benches.discard("a")
        pool.benches.discard("unknown")
        assert [made.removed.is_set() for made in pool.made] == [True, False]
        pool.benches.close()
        assert pool.made[1].removed.is_set()
        pool.benches.prepare("c")
        assert len(pool.made) == 2

    def test_the_ones_made_last_stay(self) -> None:
        pool = Pool()
        with pool.benches as benches:
            for number in range(9):
                benches.prepare(str(number))
            assert [made.removed.is_set() for made in pool.made] == [True] + [False] * 8

    def test_none_where_nothing_is_started_ahead_or_the_host_is_full(self) -> None:
        for pool in (Pool(keep_seconds=0.0), Pool(is_busy=True)):
            pool.benches.prepare("a")
            assert pool.made == []


@pytest.mark.parametrize("blocks", range(21))
def test_an_archive_of_any_size_comes_to_its_end(tmp_path: Path, blocks: int) -> None:
    """It is read in records of twenty blocks, and written in two parts, the first of which has no end."""
    script = workbench._ASSEMBLE.replace(OPT, str(tmp_path / "opt"))
    command = [sys.executable, "-I", "-S", "-c", script, "30"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        write = cast(Callable[[bytes], None], process.stdin.write)
        workbench._feed({"runtime/a.py": b"#" * 512 * blocks}, write, is_all=False)
        workbench._feed({f"source/{'d' * 90}/{'e' * 90}/b.py": b"b = 2"}, write, is_all=True)
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n"
        process.kill()
    assert {path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")} == {"a", "b"}


@pytest.fixture(scope="module")
def builder(engine: DockerEngine, engine_settings: Settings, platform_image: str) -> Iterator[ImageBuilder]:  # noqa: F811
    builder = ImageBuilder(engine, engine_settings, ahead_seconds=600)
    yield builder
    builder.close()
    assert engine.names() == set()


def build(builder: ImageBuilder, folder: Path, crew: str = CREW, *, is_tried: bool = False) -> tuple[str, BuiltImage]:
    deployment_id = f"dep_{secrets.token_hex(6)}"
    upload = pack(folder, {"pkg/data.txt": "1"}, crew=crew)
    return deployment_id, builder.build(
        deployment_id, "test-project", CONFIG, upload, RecordedLog(), is_tried=is_tried
    )  # fmt: skip


def prepared(builder: ImageBuilder, folder: Path) -> str:
    """Name of a container that was made ahead for what ``build`` builds."""
    builder.prepare(build(builder, folder)[1].dependency_key)
    (name,) = builder.benches.names()
    return name


@pytest.mark.docker
class TestImages:
    def test_an_image_is_the_same_in_one_that_was_made_ahead(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        look = f"""
import hashlib, os
files = []
for where, _, names in os.walk("/opt/crewship"):
    for path in (os.path.join(where, name) for name in names):
        if not os.path.islink(path):
            facts, content = os.stat(path), open(path, "rb").read()
            files.append((path, facts.st_mode, facts.st_uid, facts.st_gid, hashlib.sha256(content).hexdigest()))
print(len(files) > 50, hashlib.sha256(repr(sorted(files)).encode()).hexdigest(), {secrets.token_hex(4)!r})
{CREW}"""
        seen = []
        for is_ahead in (False, True):
            if is_ahead:
                name = prepared(builder, tmp_path)
                made = engine.inspect(name).id
            deployment_id, built = build(builder, tmp_path, look, is_tried=True)
            assert builder.benches.names() == set()
            left = engine.inspect(f"crewship-build-{deployment_id.replace('_', '-')}")
            assert left.status == "running"
            assert not is_ahead or left.id == made
            log = RecordedLog()
            builder.smoke(deployment_id, built.image_id, CONFIG, LIMITS, {}, log)
            seen.append(log.lines)
            assert engine.names() == set()
        assert seen[0] == seen[1]
        assert seen[0][0][0].startswith("True ")

    def test_who_does_not_try_the_image_leaves_nothing(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        build(builder, tmp_path)
        assert engine.names() == set()

    def test_a_smoke_boot_beside_it_has_no_network_and_one_without_it_works_too(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        crew = f"import socket\nprint(socket.if_nameindex(), socket.gethostbyname('localhost'))\n{CREW}"
        for is_there in (True, False):
            deployment_id, built = build(builder, tmp_path, crew, is_tried=True)
            name = f"crewship-build-{deployment_id.replace('_', '-')}"
            bench, modes = engine.inspect(name).id, list[str]()

            def look(line: str, modes: list[str] = modes) -> None:
                for state in engine.list("smoke"):
                    modes.append(engine.connection.api.inspect_container(state.id)["HostConfig"]["NetworkMode"])

            if not is_there:
                engine.kill(name, "KILL")
                assert engine.wait(name, 10)
            log = RecordedLog(on_line=look)
            builder.smoke(deployment_id, built.image_id, CONFIG, LIMITS, {}, log)
            assert modes == [f"container:{bench}" if is_there else "none"]
            assert [message for message, _, _ in log.lines] == ["[(1, 'lo')] 127.0.0.1"]
            assert engine.names() == set()

    def test_one_that_is_gone_costs_nothing(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        for how in ("killed", "removed"):
            name = prepared(builder, tmp_path)
            if how == "killed":
                engine.kill(name, "KILL")
                assert engine.wait(name, 10)
            else:
                engine.remove(name)
            build(builder, tmp_path)
            assert engine.names() == set()

    def test_a_project_that_does_not_fit_is_refused(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        """It ends while the source is written: no image of a part of it."""
        image = builder._find_image(f"crewship/deps:{build(builder, tmp_path)[1].dependency_key}")
        assert image is not None
        bench = builder._bench("crewship-build-dep-full", image)
        try:
            engine.kill(bench.name, "STOP")
            threading.Timer(0.2, engine.kill, (bench.name, "KILL")).start()
            with pytest.raises(Unavailable, match="cannot be put together"):
                bench.assemble({"source/large.bin": bytes(64 << 20)}, threading.Event())
        finally:
            bench.remove()

    def test_it_is_canceled(
        self, builder: ImageBuilder, engine: DockerEngine, tmp_path: Path  # noqa: F811
    ) -> None:  # fmt: skip
        image = builder._find_image(f"crewship/deps:{build(builder, tmp_path)[1].dependency_key}")
        assert image is not None
        bench, cancel = builder._bench("crewship-build-dep-canceled", image), threading.Event()
        try:
            engine.kill(bench.name, "STOP")
            threading.Timer(0.1, cancel.set).start()
            with pytest.raises(BuildFailed) as caught:
                bench.assemble({"source/large.bin": bytes(64 << 20)}, cancel)
            assert caught.value.code == "canceled"
        finally:
            bench.remove()

    def test_what_ends_the_compiler_does_not_end_the_build(self, builder: ImageBuilder, tmp_path: Path) -> None:
        nested = "(" * 100_000 + ")" * 100_000
        upload = pack(tmp_path, {"pkg/nested.py": nested, "pkg/nul.py": "a\0b", "pkg/cut.py": "def f(:"})
        built = builder.build("dep_nested", "test-project", CONFIG, upload, RecordedLog(), is_tried=True)
        assert builder.smoke("dep_nested", built.image_id, CONFIG, LIMITS, {}, RecordedLog()).kind == "function"
