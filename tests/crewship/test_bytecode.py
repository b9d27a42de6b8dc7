"""What compiles packages in a build, run here."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crewship.bytecode import KEEP_DAYS, SCRIPT


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    for name, source in {
        "a.py": "A = 1\n",
        "pkg/b.py": "B = 2\n",
        "pkg/broken.py": "def f(:\n",
        "pkg/data.txt": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


def compile_in(packages: Path, kept: Path) -> str:
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, str(packages), str(kept)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def header(path: Path) -> bytes:
    with open(importlib.util.cache_from_source(str(path)), "rb") as file:
        return file.read(16)


def forget(packages: Path) -> None:
    for path in packages.rglob("*.pyc"):
        path.unlink()


def stored(kept: Path) -> list[Path]:
    return [path for path in kept.rglob("*") if path.is_file()]


def test_what_was_compiled_is_not_compiled_again(packages: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "bytecode"
    assert compile_in(packages, kept) == "Bytecode of 2 files, of which 0 were compiled before\n"
    unchecked = (1).to_bytes(4, "little")
    for name in ("a.py", "pkg/b.py"):
        source = (packages / name).read_bytes()
        assert header(packages / name) == importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source)
    first = {path: path.read_bytes() for path in packages.rglob("*.pyc")}
    forget(packages)
    assert compile_in(packages, kept) == "Bytecode of 2 files, of which 2 were compiled before\n"
    assert {path: path.read_bytes() for path in packages.rglob("*.pyc")} == first
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(packages)!r}); import a; print(a.__cached__, a.A)"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert found == f"{importlib.util.cache_from_source(str(packages / 'a.py'))} 1\n"


def test_another_source_or_place_is_compiled(packages: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    compile_in(packages, kept)
    (packages / "a.py").write_text("A = 2\n")
    (packages / "pkg" / "b.py").rename(packages / "pkg" / "c.py")
    assert compile_in(packages, kept) == "Bytecode of 2 files, of which 0 were compiled before\n"
    assert header(packages / "a.py").endswith(importlib.util.source_hash(b"A = 2\n"))


def test_a_cut_or_a_lost_file_is_compiled_again(packages: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    compile_in(packages, kept)
    one, other = stored(kept)
    one.write_bytes(one.read_bytes()[:10])
    other.unlink()
    forget(packages)
    assert compile_in(packages, kept) == "Bytecode of 2 files, of which 0 were compiled before\n"
    assert len(list(packages.rglob("*.pyc"))) == 2


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(packages: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("no folder")
    assert compile_in(packages, kept) == "Bytecode of 2 files, of which 0 were compiled before\n"
    assert len(list(packages.rglob("*.pyc"))) == 2


def test_what_is_not_used_any_more_goes(packages: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    compile_in(packages, kept)
    long_ago = time.time() - (KEEP_DAYS + 1) * 86400
    for path in stored(kept):
        os.utime(path, (long_ago, long_ago))
    (packages / "pkg" / "b.py").unlink()
    (packages / "new.py").write_text("")
    compile_in(packages, kept)
    assert len(stored(kept)) == 2  # of a.py and new.py


def test_without_packages_nothing_is_said(tmp_path: Path) -> None:
    assert compile_in(tmp_path / "none", tmp_path / "kept") == ""
