"""Packing a project: what goes in, what never does, and that the same project always gives the same bytes."""

import gzip
import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.pack import Packed, pack
from crewship.errors import CrewshipError, InvalidConfig, InvalidSource, TooLarge
from crewship.source import Limits, check

CONFIG = '[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "crewship.toml").write_text(CONFIG)
    return folder


def write(folder: Path, *names: str, **contents: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get("text", f"content of {name}\n"))


def packed(project: Path, *exclude: str, limits: Limits | None = None) -> Packed:
    return pack(project, exclude, target=project.parent / "source.tar.gz", limits=limits)


def names(project: Path, *exclude: str) -> list[str]:
    """What is packed besides crewship.toml."""
    archive = packed(project, *exclude)
    with tarfile.open(archive.path) as found:
        listed = found.getnames()
    assert "crewship.toml" in listed
    assert listed == sorted(listed, key=os.fsencode)
    assert len(listed) == archive.files
    return [name for name in listed if name != "crewship.toml"]


def test_an_archive_is_what_the_server_accepts(project: Path) -> None:
    write(project, "src/pkg/crew.py", "requirements.txt", "dätä/ü n.txt", f"{'d' * 120}/{'f' * 120}")
    archive = packed(project)
    with archive.path.open("rb") as file:
        summary = check(file)
    assert summary.sha256 == archive.sha256 == hashlib.sha256(archive.path.read_bytes()).hexdigest()
    assert summary.size_bytes == archive.size_bytes == archive.path.stat().st_size
    assert len(summary.names) == archive.files == 5
    assert summary.config == CONFIG.encode()
    assert archive.warnings == ()


def test_without_a_target_it_is_a_temporary_file(project: Path) -> None:
    archive = pack(project, ())
    try:
        assert archive.path.name.endswith(".tar.gz")
        assert archive.sha256 == packed(project).sha256
    finally:
        archive.path.unlink()


def test_the_same_project_gives_the_same_bytes_wherever_and_whenever(project: Path, tmp_path: Path) -> None:
    write(project, "b.py", "a/z.py", "a/B.py", "ü.txt")
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    first = packed(project)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(project, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() or path.name == "run.sh" else 0o600)
    (copy / "empty").mkdir()
    assert packed(copy).sha256 == first.sha256
    with tarfile.open(first.path) as archive:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in archive} == {(0, 0, 0, "", "")}
        assert {m.name: m.mode for m in archive}["run.sh"] == 0o755
        assert {m.mode for m in archive if m.name != "run.sh"} == {0o644}
    write(copy, "b.py", text="changed")
    assert packed(copy).sha256 != first.sha256


def test_what_never_goes_in(project: Path) -> None:
    never = [
        ".git/config", ".env", ".env.local", ".env.production", ".envrc", "sub/.env", ".venv/x", "venv/x", "sub/venv/x",
        "pkg/__pycache__/m.cpython-311.pyc", "m.pyc", "node_modules/x/y.js", ".mypy_cache/x", ".ruff_cache/x",
        ".pytest_cache/x", ".DS_Store", "myenv/pyvenv.cfg", "myenv/lib/x.py",
    ]  # fmt: skip
    kept = [
        ".env.example",
        ".envelope",
        ".github/workflows/ci.yml",
        ".gitattributes",
        "environment.py",
        "sub/.env.sample",
    ]
    write(project, *never, *kept)
    (project / "submodule").mkdir()
    write(project, "submodule/.git", "submodule/x.py")
    assert names(project) == sorted([*kept, "submodule/x.py"])
    assert names(project, "!.env", "!.git", "!node_modules") == sorted([*kept, "submodule/x.py"])


def test_gitignore_nested_and_negated(project: Path) -> None:
    write(project, ".gitignore", text="*.log\n/build/\nsecret*\n!secrets.md\ntmp/\n")
    write(project, "sub/.gitignore", text="!keep.log\n*.csv\n")
    write(project, "build/out/.gitignore", text="!*\n")
    write(
        project, "a.log", "sub/keep.log", "sub/b.log", "sub/x.csv", "x.csv", "build/x", "build/out/y", "sub/build/z",
        "secret.txt", "secrets.md", "sub/tmp/x", "tmp.py",
    )  # fmt: skip
    assert names(project) == sorted(
        [".gitignore", "sub/.gitignore", "sub/keep.log", "x.csv", "sub/build/z", "secrets.md", "tmp.py"]
    )


def test_build_exclude_leaves_out_and_brings_back(project: Path) -> None:
    write(project, ".gitignore", text="data/\n*.bin\n")
    write(project, "data/big.csv", "data/model/weights.bin", "x.bin", "tests/test_a.py", "src/tests/test_b.py", "a.md")
    assert names(project, "/tests", "*.md") == [".gitignore", "src/tests/test_b.py"]
    assert names(project, "tests") == [".gitignore", "a.md"]
    found = names(project, "!data/model/", "tests/", "/a.md")
    assert found == [".gitignore", "data/model/weights.bin"]


def test_dockerignore_is_from_the_root_and_its_last_match_wins(project: Path) -> None:
    write(project, ".dockerignore", text="# all but src\n*\n!src\nsrc/*.log\n**/cache\n! src/keep.log \n./docs/\n")
    write(
        project,
        "README",
        "docs/x",
        "src/a.py",
        "src/b.log",
        "src/keep.log",
        "src/in/c.log",
        "src/in/cache/d",
        "lib/src/e",
    )
    assert names(project) == ["src/a.py", "src/in/c.log", "src/keep.log"]


def test_dockerignore_does_not_bring_back_what_git_ignores(project: Path) -> None:
    write(project, ".gitignore", text="data/\n")
    write(project, ".dockerignore", text="*\n!data\n!*.py\n")
    write(project, "data/x.csv", "a.py", "sub/b.py")
    assert names(project) == ["a.py"]


def test_the_config_goes_in_whatever_is_ignored(project: Path) -> None:
    write(project, ".gitignore", text="*\n")
    write(project, "x.py")
    assert names(project, "*.toml") == []


class TestLinks:
    def test_a_link_inside_is_packed_as_what_it_means(self, project: Path) -> None:
        write(project, "shared/prompt.md", "shared/more/x.md", text="prompt")
        (project / "crew").mkdir()
        (project / "crew" / "prompt.md").symlink_to("../shared/prompt.md")
        (project / "crew" / "all").symlink_to(project / "shared", target_is_directory=True)
        (project / "twice").symlink_to("crew/prompt.md")
        assert names(project) == [
            "crew/all/more/x.md", "crew/all/prompt.md", "crew/prompt.md", "shared/more/x.md", "shared/prompt.md", "twice",
        ]  # fmt: skip
        with tarfile.open(packed(project).path) as archive:
            assert all(member.isfile() for member in archive)
            twice = archive.extractfile("twice")
            assert twice is not None
            assert twice.read() == b"prompt"

    def test_the_project_itself_may_be_a_link(self, project: Path) -> None:
        write(project, "a.py")
        (project / "b.py").symlink_to(project / "a.py")
        link = project.parent / "link"
        link.symlink_to(project)
        assert names(link) == ["a.py", "b.py"]

    @pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "/nowhere/at/all", "..", "sub/../../outside"])
    def test_one_that_leaves_the_project_is_refused_by_name(self, project: Path, target: str) -> None:
        write(project.parent, "outside")
        write(project, "sub/x")
        (project / "sub" / "out").symlink_to(target if target.startswith("/") else f"../{target}")
        with pytest.raises(InvalidSource) as caught:
            packed(project)
        assert caught.value.detail == "The link “sub/out” leaves the project."
        assert "[build] exclude" in (caught.value.hint or "")
        assert names(project, "sub/out") == ["sub/x"]
        assert not (project.parent / "source.tar.gz.part").exists()

    def test_one_that_loops_is_refused_by_name(self, project: Path) -> None:
        (project / "self").symlink_to("self")
        with pytest.raises(InvalidSource, match="The link “self” loops"):
            packed(project)
        (project / "self").unlink()
        write(project, "a/b/x")
        (project / "a" / "b" / "up").symlink_to("../../a")
        with pytest.raises(InvalidSource, match="The link “a/b/up” loops"):
            packed(project)

    def test_two_that_lead_into_each_other_are_refused(self, project: Path) -> None:
        write(project, "a/x", "b/y")
        (project / "a" / "to_b").symlink_to("../b")
        (project / "b" / "to_a").symlink_to("../a")
        with pytest.raises(InvalidSource, match="The link “a/to_b/to_a” loops"):
            packed(project)

    def test_one_to_a_secret_is_refused(self, project: Path) -> None:
        write(project, ".env")
        (project / "settings.txt").symlink_to(".env")
        with pytest.raises(InvalidSource, match=r"leads to “\.env”, which is never uploaded"):
            packed(project)

    def test_one_to_nothing_is_a_warning(self, project: Path) -> None:
        (project / "gone").symlink_to("not-there")
        assert packed(project).warnings == ("The link “gone” leads to nothing and is left out.",)

    def test_an_ignored_one_does_not_matter(self, project: Path) -> None:
        write(project, ".gitignore", text="out\n")
        (project / "out").symlink_to("/etc")
        (project / ".venv").symlink_to("/opt/venv")
        assert names(project) == [".gitignore"]


class TestRefusals:
    def test_no_config(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfig) as caught:
            packed(tmp_path)
        assert "There is no crewship.toml" in caught.value.detail
        assert "crewship init" in (caught.value.hint or "")

    def test_too_large_when_packed_names_the_largest_files(self, project: Path) -> None:
        for number in range(12):
            (project / f"{number:02}.bin").write_bytes(os.urandom(10_000 * (number + 1)))
        with pytest.raises(TooLarge) as caught:
            packed(project, limits=Limits(packed_bytes=300_000))
        assert caught.value.code == "source_too_large"
        assert "larger than 293 KiB" in caught.value.detail
        lines = (caught.value.hint or "").splitlines()[1:]
        assert [line.split()[-1] for line in lines] == [f"{number:02}.bin" for number in range(11, 1, -1)]
        assert not (project.parent / "source.tar.gz").exists()

    def test_too_large_before_it_is_packed(self, project: Path) -> None:
        with (project / "huge").open("wb") as file:
            file.truncate(3 << 30)
        with pytest.raises(TooLarge, match=r"2 files of 3072 MiB"):
            packed(project)

    def test_too_many_files(self, project: Path) -> None:
        write(project, *map(str, range(5)))
        with pytest.raises(TooLarge, match="has 6 files"):
            packed(project, limits=Limits(files=5))

    def test_names_that_cannot_be_uploaded(self, project: Path) -> None:
        for name, detail in ((b"caf\xe9", "is not UTF-8"), (b"a\nb", "control characters")):
            path = os.fsencode(project) + b"/" + name
            with open(path, "wb"):
                pass
            with pytest.raises(InvalidSource, match=detail):
                packed(project)
            os.unlink(path)

    def test_a_file_that_shrinks_meanwhile(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(project, "a.bin")
        real = Path.open

        def shrinking(self: Path, *args: object, **options: object) -> object:
            if self.name == "a.bin":
                os.truncate(self, 1)
            return real(self, *args, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", shrinking)
        with pytest.raises(InvalidSource, match=r"“a\.bin” changed while it was packed"):
            packed(project)

    def test_a_disk_that_cannot_be_written_to(self, project: Path) -> None:
        with pytest.raises(CrewshipError, match="The archive cannot be written"):
            pack(project, (), target=project / "no" / "folder" / "x.tar.gz")

    def test_a_target_that_is_no_file_is_not_removed(self, project: Path) -> None:
        pipe = project.parent / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            with pytest.raises(TooLarge):
                pack(project, (), target=pipe, limits=Limits(packed_bytes=10))
        finally:
            os.close(reader)
        assert pipe.exists()

    def test_what_is_neither_file_nor_folder_is_a_warning(self, project: Path) -> None:
        os.mkfifo(project / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            folder = os.open(project, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{folder}/socket")
            os.close(folder)
            assert [warning.split("”")[0] for warning in packed(project).warnings] == ["“pipe", "“socket"]

    def test_names_that_differ_in_case_only_are_a_warning(self, project: Path) -> None:
        write(project, "Readme.md", "README.md")
        assert packed(project).warnings == ("“README.md” and “Readme.md” differ in case only.",)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with a fixed tree, whose .gitignore files change."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    write(folder, "crewship.toml", text=CONFIG)
    write(
        folder, *(f"{d}{f}" for d in ("", "a/", "a/b/", "c/", "c/a/") for f in ("x.py", "y.log", "b.txt", "!z", "#h"))
    )
    return folder


PATTERNS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "", "!", "\\!", "\\#"]),
    st.sampled_from(["", "", "/", "**/", "a/", "*/", "a/**/"]),
    st.sampled_from(
        ["a", "b", "c", "x.py", "y.log", "*.log", "*", "**", "b*", "?.py", "[xy].*", "z", "h", "a/b", "b.txt"]
    ),
    st.sampled_from(["", "", "/", "/*", "/**", " "]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PATTERNS, max_size=5), st.lists(PATTERNS, max_size=3))
def test_ignore_files_are_read_as_git_reads_them(repository: Path, root: list[str], nested: list[str]) -> None:
    (repository / ".gitignore").write_text("\n".join([*root, "!crewship.toml"]))
    (repository / "a" / ".gitignore").write_text("\n".join(nested))
    listed = subprocess.run(
        ["git", "-C", str(repository), "-c", "core.excludesFile=/dev/null", "ls-files", "-oz", "--exclude-standard"],
        check=True,
        capture_output=True,
        env={**os.environ, "HOME": str(repository), "GIT_CONFIG_NOSYSTEM": "1"},
    ).stdout
    expected = sorted(name.decode() for name in listed.split(b"\0") if name not in (b"", b"crewship.toml"))
    assert names(repository) == expected


def test_the_compressed_stream_is_one_gzip_member_without_time_or_name(project: Path) -> None:
    data = packed(project).path.read_bytes()
    assert data[:4] == b"\x1f\x8b\x08\x00"
    assert data[4:8] == bytes(4)
    assert gzip.decompress(data)[-1024:] == bytes(1024)
    assert tarfile.open(fileobj=io.BytesIO(data)).getnames() == ["crewship.toml"]
