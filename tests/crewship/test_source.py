"""Intake of uploads: what is accepted is unpacked exactly, what is refused is named, and nothing else happens."""

import gzip
import hashlib
import io
import os
import random
import stat
import subprocess
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crewship.errors import CrewshipError, InvalidConfig, InvalidSource, TooLarge
from crewship.source import Limits, SourceSummary, check, unpack, validated_name
from crewship.tar_stream import TarStream, mebibytes, shown

CONFIG = b'[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n'


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def packed(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT, config: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", format=format, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        if config:
            archive.addfile(member("crewship.toml", CONFIG)[0], io.BytesIO(CONFIG))
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def checked(upload: bytes, limits: Limits | None = None) -> SourceSummary:
    return check(io.BytesIO(upload), limits)


def refused(upload: bytes, limits: Limits | None = None) -> CrewshipError:
    with pytest.raises(CrewshipError) as caught:
        checked(upload, limits)
    return caught.value


def test_a_summary_says_what_is_in_the_upload() -> None:
    upload = packed(
        member("src", type=tarfile.DIRTYPE, mode=0o755),
        member("src/pkg/__init__.py"),
        member("src/pkg/crew.py", b"def kickoff(inputs): ...\n"),
        member("requirements.txt", b"crewai\n"),
        member("requirements/dev.txt", b"pytest\n"),
        member("pyproject.toml", b"[project]\n"),
        member(".python-version", b"3.12\n"),
        member("deep/requirements.txt", b"no\n"),
        member("data/README", b"x" * 2000),
    )
    summary = checked(upload)
    assert summary.sha256 == hashlib.sha256(upload).hexdigest()
    assert summary.size_bytes == len(upload)
    assert summary.unpacked_bytes == len(gzip.decompress(upload))
    assert summary.config == CONFIG
    assert summary.dependencies == {
        "requirements.txt": b"crewai\n",
        "requirements/dev.txt": b"pytest\n",
        "pyproject.toml": b"[project]\n",
        ".python-version": b"3.12\n",
    }
    assert "src/pkg/crew.py" in summary.names
    assert "src" not in summary.names
    assert summary.warnings == ()


@pytest.mark.parametrize(
    ("module", "found"),
    [
        *((module, True) for module in ("src.pkg.crew", "pkg.crew", "pkg", "main", "spaces.inner", "spaces")),
        *((module, False) for module in ("crew", "pkg.crews", "src.main", "data", "ma")),
    ],
)
def test_whether_a_module_is_there(module: str, found: bool) -> None:
    names = ["src/pkg/__init__.py", "src/pkg/crew.py", "main.py", "spaces/inner/mod.py", "data/x.csv"]
    assert checked(packed(*map(member, names))).has_module(module) is found


def test_what_tar_makes_of_a_folder_is_accepted(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "pkg" / ("d" * 90)).mkdir(parents=True)
    (project / "pkg" / ("d" * 90) / ("f" * 80 + ".py")).write_text("x = 1\n")
    (project / "pkg" / "ünïcode 名.txt").write_text("ü")
    (project / "crewship.toml").write_bytes(CONFIG)
    for form in ("gnu", "pax", "posix", "ustar"):
        upload = subprocess.run(
            ["tar", f"--format={form}", "-czf", "-", "-C", str(project), "."], check=True, capture_output=True
        ).stdout
        assert checked(upload).names == {
            "crewship.toml",
            f"pkg/{'d' * 90}/{'f' * 80}.py",
            "pkg/ünïcode 名.txt",
        }, form


def test_unpacked_files_are_those_that_were_packed(tmp_path: Path) -> None:
    upload = packed(
        member("./run.sh", b"#!/bin/sh\n", mode=0o4777),
        member("a/b/c.bin", os.urandom(200_000), mode=0o600),
        member("a/empty", mode=0o000),
        member("a/folder", type=tarfile.DIRTYPE),
    )
    unpack(io.BytesIO(upload), tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"crewship.toml", "run.sh", "a/b/c.bin", "a/empty"}
    with tarfile.open(fileobj=io.BytesIO(upload)) as archive:
        data = archive.extractfile("a/b/c.bin")
        assert data is not None
        assert (tmp_path / "a/b/c.bin").read_bytes() == data.read()
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in sorted(found)}
    assert modes == {"a/b/c.bin": 0o644, "a/empty": 0o644, "crewship.toml": 0o644, "run.sh": 0o755}
    assert len({(tmp_path / name).stat().st_mtime for name in found}) == 1


def test_unpack_refuses_what_check_refuses_and_follows_no_link(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    with pytest.raises(InvalidSource, match="leaves the project's folder"):
        unpack(io.BytesIO(packed(member("../out", b"x"))), inside)
    (inside / "link").symlink_to(outside)
    with pytest.raises(FileExistsError):
        unpack(io.BytesIO(packed(member("link", b"x"), config=False)), inside)
    assert not outside.exists()


BAD = {
    "dots": (packed(member("a/../../x")), "“a/../../x” leaves the project's folder"),
    "dots alone": (packed(member("..")), "“..” leaves the project's folder"),
    "absolute": (packed(member("/etc/passwd")), "“/etc/passwd” is an absolute path"),
    "inner dot": (packed(member("a/./b")), "“a/./b” is not a plain path"),
    "double slash": (packed(member("a//b")), "“a//b” is not a plain path"),
    "link": (packed(member("latest", type=tarfile.SYMTYPE, linkname="crewship.toml")), "“latest” is a link"),
    "hard link": (packed(member("hard", type=tarfile.LNKTYPE, linkname="crewship.toml")), "“hard” is a hard link"),
    "long link": (packed(member("x", type=tarfile.SYMTYPE, linkname="y" * 200), format=tarfile.GNU_FORMAT), "is a link"),
    "device": (packed(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "“null” is a device"),
    "block device": (packed(member("sda", type=tarfile.BLKTYPE)), "“sda” is a device"),
    "fifo": (packed(member("pipe", type=tarfile.FIFOTYPE)), "“pipe” is a pipe"),
    "sparse": (packed(member("big", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})), "a sparse file"),
    "odd type": (packed(member("odd", type=b"Z")), "“odd” is of a type"),
    "twice": (packed(member("crewship.toml", CONFIG)), "“crewship.toml” is in the archive twice"),
    "twice with dot": (packed(member("./crewship.toml", CONFIG)), "“crewship.toml” is in the archive twice"),
    "file as parent": (packed(member("a"), member("a/b")), "“a” is a file, and “a/b” is in it"),
    "parent as file": (packed(member("a/b/c"), member("a/b")), "“a/b” is in the archive twice"),
    "folder over file": (packed(member("a"), member("a", type=tarfile.DIRTYPE)), "“a” is in the archive twice"),
    "long part": (packed(member("x" * 256)), "has a part that is longer than 255 bytes"),
    "long part in bytes": (packed(member("ü" * 128)), "has a part that is longer than 255 bytes"),
    "long name": (packed(member("/".join(["x" * 200] * 21))), "is longer than 4096 bytes"),
    "not utf-8": (packed(member("caf\udce9"), format=tarfile.GNU_FORMAT), r"The name “caf\xe9” is not UTF-8"),
    "newline": (packed(member("a\nb")), r"“a\nb” has control characters"),
    "escape": (packed(member("\x1b[31m")), r"“\x1b[31m” has control characters"),
    "c1": (packed(member("a\x9bb")), r"“a\x9bb” has control characters"),
    "empty": (b"", "The upload is empty"),
    "not gzip": (b"PK\x03\x04 this is a zip", "is not a gzip file"),
    "plain tar": (gzip.decompress(packed()), "is not a gzip file"),
    "gzip of something": (gzip.compress(b"hello" * 300), "is not a tar archive"),
    "gzip of little": (gzip.compress(b"hello"), "is cut off"),
    "cut off": (packed(member("a", os.urandom(5000)))[:-2000], "is cut off"),
    "no end": (packed()[:-9], "is cut off"),
    "gzip twice": (packed() + packed(config=False), "data after the archive"),
    "garbage after": (packed() + b"garbage", "data after the archive"),
    "data after the end": (gzip.compress(gzip.decompress(packed()) + b"x" * 512), "data after its end"),
    "cut off inside": (gzip.compress(gzip.decompress(packed(member("a", b"x" * 2000)))[:2500]), "is cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_accepted_is_refused_and_named(case: str) -> None:
    upload, detail = BAD[case]
    error = refused(upload)
    assert isinstance(error, InvalidSource)
    assert detail in error.detail
    assert (error.status, error.code) == (400, "invalid_source")
    assert error.hint


def test_damage_in_the_middle_is_no_end() -> None:
    plain = bytearray(gzip.decompress(packed(member("a", b"x" * 512), member("b"))))
    plain[1024 + 1024 + 100] ^= 1  # the mode of the last member
    assert "damaged" in refused(gzip.compress(bytes(plain))).detail


def test_a_global_header_may_have_a_comment_but_not_rename() -> None:
    def with_global(headers: dict[str, str]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", pax_headers=headers) as archive:
            archive.addfile(member("crewship.toml", CONFIG)[0], io.BytesIO(CONFIG))
        return buffer.getvalue()

    assert checked(with_global({"comment": "c0ffee"})).config == CONFIG
    assert "global header" in refused(with_global({"path": "x"})).detail


def test_a_missing_config_says_where_it_is() -> None:
    error = refused(packed(member("project/crewship.toml", CONFIG), config=False))
    assert isinstance(error, InvalidConfig)
    assert "is in “project”, not at the archive's root" in error.detail
    assert "-C project ." in (error.hint or "")
    error = refused(packed(member("crew.py"), config=False))
    assert error.code == "invalid_config"
    assert "crewship init" in (error.hint or "")


def test_names_that_differ_in_case_only_are_a_warning() -> None:
    summary = checked(packed(member("a/README.md"), member("a/readme.md"), member("Src/x.py"), member("src/y.py")))
    assert summary.warnings == (
        "“a/README.md” and “a/readme.md” differ in case only.",
        "“Src” and “src” differ in case only.",
    )
    many = [member(f"{letter}{number}") for number in range(20) for letter in "aA"]
    assert len(checked(packed(*many)).warnings) == 11


class TestLimits:
    def test_packed_size(self) -> None:
        upload = packed(member("noise", random.Random(1).randbytes(300_000)))
        error = refused(upload, Limits(packed_bytes=100_000))
        assert isinstance(error, TooLarge)
        assert (error.code, error.detail) == ("source_too_large", "The upload is larger than 97.7 KiB.")
        assert checked(upload, Limits(packed_bytes=len(upload))).size_bytes == len(upload)

    def test_unpacked_size(self) -> None:
        error = refused(packed(member("zeros", bytes(2 << 20))), Limits(unpacked_bytes=1 << 20))
        assert (error.code, error.detail) == ("source_too_large", "The upload unpacks to more than 1 MiB.")

    def test_number_of_files(self) -> None:
        names = [member(f"{number}") for number in range(10)]
        assert len(checked(packed(*names), Limits(files=11)).names) == 11
        assert refused(packed(*names), Limits(files=10)).detail == "The upload has more than 10 files and folders."
        folders = [member("x", type=tarfile.DIRTYPE) for _ in range(10)]
        assert refused(packed(*folders), Limits(files=10)).code == "source_too_large"

    def test_a_bomb_is_stopped_by_its_ratio_and_is_never_in_memory(self) -> None:
        class Bomb(io.RawIOBase):
            """A terabyte of zeros; would take an hour."""

            given_bytes = 0

            def __init__(self) -> None:
                self._gzip = zlib.compressobj(9, wbits=31)
                header = member("zeros")[0]
                header.size = 1 << 40
                self._first = self._gzip.compress(header.tobuf(tarfile.GNU_FORMAT))

            def read(self, size: int = -1) -> bytes:
                piece, self._first = self._first, b""
                while len(piece) < 1000:
                    piece += self._gzip.compress(bytes(1 << 20))
                self.given_bytes += len(piece)
                return piece

        bomb = Bomb()
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge, match="unpacks to more than 100 times its size"):
                check(bomb)  # type: ignore[arg-type]
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert bomb.given_bytes < 1 << 20
        assert peak_bytes < 8 << 20

    @pytest.mark.parametrize("kind", [b"x", b"g", b"L"])
    def test_a_header_of_any_length_is_not_followed(self, kind: bytes) -> None:
        header = member("long", type=kind)[0]
        header.size = 100_000
        upload = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(200_000))
        assert "header that is too long" in refused(upload).detail

    def test_headers_without_end_are_not_followed(self) -> None:
        header = member("x", type=b"x")[0].tobuf(tarfile.USTAR_FORMAT)
        assert "too many headers" in refused(gzip.compress(header * 10)).detail

    def test_files_that_are_kept_have_a_size(self) -> None:
        error = refused(packed(member("crewship.toml", b"#" * 300_000), config=False))
        assert error.detail == "“crewship.toml” is larger than 256 KiB."

    def test_those_of_a_setting(self) -> None:
        assert Limits.of(1000) == Limits(packed_bytes=1000, unpacked_bytes=10_000)


@pytest.mark.parametrize("damage", [b"5 a=b", b"x a=b\n", b"99 a=b\n", b"6 ab\n\n", b"-5 a=b\n", b"1 \n", b"\n"])
def test_damaged_pax_records(damage: bytes) -> None:
    header = member("x", type=b"x")[0]
    header.size = len(damage)
    upload = gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + damage.ljust(512, b"\0"))
    assert "damaged header" in refused(upload).detail


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=60
).filter(lambda part: part not in (".", "..") and len(part.encode()) <= 255)  # fmt: skip


@given(
    st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=1500), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_any_proper_archive_is_read_as_it_was_written(files: dict[str, bytes], format: int) -> None:
    upload = packed(*(member(name, data) for name, data in files.items()), format=format, config=False)
    archive = TarStream(io.BytesIO(upload), Limits())
    found = {found.name.decode(): b"".join(archive.data()) for found in archive.members()}
    assert found == files
    assert archive.sha256 == hashlib.sha256(upload).hexdigest()


@given(st.binary(max_size=300))
@example(b"a/" * 3000)
@example(b"./")
@example(b".//x")
def test_any_name_is_inside_or_refused(raw: bytes) -> None:
    try:
        name = validated_name(raw)
    except InvalidSource as error:
        assert error.detail.isprintable()  # noqa: PT017
        return
    assert name == "" or os.path.normpath(f"/base/{name}") == f"/base/{name}"
    assert name.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name)


BASE = gzip.decompress(
    packed(
        member("a/b.py", b"x = 1\n"),
        member("n" * 150, b"y" * 700),
        member("ü", b"", mode=0o755),
        member("d", type=tarfile.DIRTYPE),
    )
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, len(BASE)),
)
def test_a_damaged_archive_is_read_safely_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], mend: bool, cut: int
) -> None:
    damaged = bytearray(BASE)
    for position, value in changes:
        damaged[position] = value
    if mend:  # with right checksums the fields themselves are what is tried
        for start in range(0, len(damaged), 512):
            if bytes(damaged[start + 257 : start + 262]) == b"ustar":
                total = sum(damaged[start : start + 148]) + 256 + sum(damaged[start + 156 : start + 512])
                damaged[start + 148 : start + 156] = b"%06o\0 " % total
    else:
        del damaged[cut:]
    upload = gzip.compress(bytes(damaged), 1)
    root = tmp_path_factory.mktemp("root", numbered=True)
    inside = root / "inside"
    inside.mkdir()
    outcomes: list[object] = []
    tries: list[Callable[[], object]] = [
        lambda: check(io.BytesIO(upload)).names,
        lambda: unpack(io.BytesIO(upload), inside),
    ]
    for attempt in tries:
        try:
            outcomes.append(attempt())
        except CrewshipError as error:
            outcomes.append(type(error))
    assert [path.name for path in root.iterdir()] == ["inside"]
    found = [path for path in inside.rglob("*") if not path.is_dir()]
    assert all(path.is_file() and not path.is_symlink() for path in found)
    if isinstance(outcomes[0], frozenset):
        assert {path.relative_to(inside).as_posix() for path in found} == outcomes[0]


@settings(max_examples=200)
@given(st.binary(max_size=2000), st.booleans())
def test_any_bytes_are_refused(data: bytes, compressed: bool) -> None:
    error = refused(gzip.compress(data, 1) if compressed else data)
    assert error.detail


def test_sizes_and_names_in_messages() -> None:
    assert [mebibytes(size) for size in (200 << 20, 3 << 19, 100)] == ["200 MiB", "1.5 MiB", "0.1 KiB"]
    assert shown("x" * 500) == f"“{'x' * 120}…{'x' * 60}”"
