"""Artifacts: announced when closed, complete at the end, whatever their names; and the files beside them."""

import os
from pathlib import Path

import pytest

from .harness import Run, complete, crew


def test_an_artifact_is_announced_while_the_run_goes_on(tmp_path: Path) -> None:
    code = crew("""
import os, time
def kickoff(inputs):
    with open("artifacts/report.md", "w") as file:
        file.write("# Report")
        file.flush()
        print("still open")
    while not os.path.exists("go"):
        time.sleep(0.005)
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run()
        frame = run.until_type("artifact")
        (run.app / "go").touch()
        run.finish()
    assert {key: frame[key] for key in ("name", "size", "content_type")} == {
        "name": "report.md",
        "size": 8,
        "content_type": "text/markdown",
    }
    assert run.of("artifact") == [frame]
    assert frame["n"] > run.until_line("still open")["n"]


@pytest.mark.parametrize("moved", [False, True])
def test_new_folders_at_once(tmp_path: Path, moved: bool) -> None:
    """Files in folders that were made a moment before, and in folders that were moved in as a whole."""
    code = crew("""
import os, time
def kickoff(inputs):
    base = "elsewhere" if inputs["moved"] else "artifacts"
    for name in ("a/b/c/deep.txt", "a/one.json", "x/two.csv"):
        os.makedirs(os.path.dirname(f"{base}/{name}"), exist_ok=True)
        with open(f"{base}/{name}", "w") as file:
            file.write(name)
    if inputs["moved"]:
        os.rename("elsewhere/a", "artifacts/a")
        os.rename("elsewhere/x", "artifacts/x")
    while not os.path.exists("go"):
        time.sleep(0.005)
    with open("artifacts/a/b/c/later.txt", "w") as file:
        file.write("later")
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run({"moved": moved})
        wanted = {"a/b/c/deep.txt": 14, "a/one.json": 10, "x/two.csv": 9}
        run.until(lambda _: run.artifacts == wanted)
        assert not run.of("result")
        (run.app / "go").touch()
        run.finish()
    assert run.artifacts == {**wanted, "a/b/c/later.txt": 5}
    assert len(run.of("artifact")) == 4


def test_a_file_that_is_rewritten_often_is_announced_seldom(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    for number in range(1000):
        with open("artifacts/progress.txt", "w") as file:
            file.write("x" * (number + 1))
""")
    run = complete(tmp_path, code)
    assert run.artifacts == {"progress.txt": 1000}
    assert len(run.of("artifact")) < 10


def test_a_temporary_name_is_not_announced(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    for number in range(50):
        with open(f"artifacts/.r{number}.tmp", "w") as file:
            file.write("done")
        os.replace(f"artifacts/.r{number}.tmp", f"artifacts/r{number}.txt")
""")
    run = complete(tmp_path, code)
    assert run.artifacts == {f"r{number}.txt": 4 for number in range(50)}
    assert len(run.of("artifact")) == 50


def test_names(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    for name in (b"with space.txt", b"new\\nline", b"\\xff\\xfe.bin", "größe 漢字.md".encode(), b".hidden", b"empty",
                 b"-rf", b'quote".json', b"back\\\\slash"):
        with open(b"artifacts/" + name, "wb") as file:
            file.write(b"" if name == b"empty" else b"x")
""")
    run = complete(tmp_path, code)
    assert run.artifacts == {
        "with space.txt": 1, "new\nline": 1, "\\xff\\xfe.bin": 1, "größe 漢字.md": 1, ".hidden": 1, "empty": 0,
        "-rf": 1, 'quote".json': 1, "back\\slash": 1,
    }  # fmt: skip


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    os.symlink("/etc/passwd", "artifacts/passwd")
    os.symlink("/etc", "artifacts/etc")
    os.symlink(".", "artifacts/loop")
    os.mkfifo("artifacts/fifo")
    open("artifacts/real.txt", "w").write("real")
    os.link("artifacts/real.txt", "artifacts/same.txt")
""")
    run = complete(tmp_path, code)
    assert run.artifacts == {"real.txt": 4, "same.txt": 4}


def test_large_and_slow_files_are_announced_whole(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    with open("artifacts/large.bin", "wb") as file:
        for _ in range(64):
            file.write(b"x" * (1 << 20))
    held = open("artifacts/never closed.txt", "w")
    held.write("text")
    held.flush()
    import os
    os._exit(0)
""")
    run = complete(tmp_path, code)
    assert run.artifacts == {"large.bin": 64 << 20, "never closed.txt": 4}
    assert len(run.of("artifact")) == 2


def test_artifacts_of_a_failed_run(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    open("artifacts/half.md", "w").write("half")
    raise RuntimeError("no more")
""")
    run = complete(tmp_path, code)
    assert run.error["code"] == "user_error"
    assert run.artifacts == {"half.md": 4}


OUTSIDE = crew("""
import os
def kickoff(inputs):
    import helper
    for name in ("report.md", "out/a.csv", "out/deep/b.csv", "notes.txt", ".cache/x", "data/__pycache__/c.pyc"):
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        open(name, "w").write("new")
    open("config.yaml", "a").write("changed")
    os.symlink("report.md", "link.md")
""") | {"config.yaml": "a: 1\n", "helper.py": "", "data/given.csv": "1,2", "artifacts/stale.md": "of another run"}


def test_other_files_are_named_once(tmp_path: Path) -> None:
    run = complete(tmp_path, OUTSIDE)
    (notice,) = run.of("notice")
    assert notice["level"] == "warning"
    assert "config.yaml, notes.txt, out/a.csv, out/deep/b.csv, report.md." in notice["message"]
    assert "[run] artifacts = [" in notice["message"]
    assert run.artifacts == {}


def test_globs_collect_them(tmp_path: Path) -> None:
    run = complete(tmp_path, OUTSIDE, artifacts=["report.md", "out/**", "nothing/*.md"])
    assert run.artifacts == {"report.md": 3, "out/a.csv": 3, "out/deep/b.csv": 3}
    assert (run.app / "artifacts/out/deep/b.csv").read_text() == "new"
    (notice,) = run.of("notice")
    assert "config.yaml, notes.txt." in notice["message"]


def test_at_most_ten_are_named(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    for number in range(25):
        open(f"file{number:02d}.txt", "w").write("x")
""")
    run = complete(tmp_path, code)
    (notice,) = run.of("notice")
    assert "file09.txt and 15 more" in notice["message"]
    assert "file10.txt" not in notice["message"]


def test_the_helper(tmp_path: Path) -> None:
    code = crew("""
import crewship_runtime as crewship
def kickoff(inputs):
    crewship.emit("chapter", number=3, title="The sea")
    crewship.progress(1, 4)
    open("/tmp/outside.txt", "w").write("kept") if False else None
    open("page.html", "w").write("<html>")
    crewship.artifact("page.html", "site/index.html")
    crewship.artifact("artifacts/../page.html")
    for name in ("../x", "/etc/x", "."):
        try:
            crewship.artifact("page.html", name)
        except ValueError as error:
            print(error)
""")
    run = complete(tmp_path, code)
    assert run.events() == [
        ("custom", {"name": "chapter", "value": {"number": 3, "title": "The sea"}}),
        ("custom", {"name": "progress", "value": {"done": 1, "total": 4}}),
    ]
    assert run.artifacts == {"site/index.html": 6, "page.html": 6}
    assert len(run.text()) == 3
    assert not run.of("notice")


def test_the_helper_does_nothing_outside_a_run(tmp_path: Path) -> None:
    from runtime import crewship_runtime

    crewship_runtime.emit("anything", value=object())
    crewship_runtime.progress(1)
    crewship_runtime.artifact(tmp_path / "missing")


def test_the_project_is_put_into_the_working_folder(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    open("data/given.csv", "a").write("more")
    return {"mode": os.stat("run.sh").st_mode & 0o777, "large": os.path.getsize("model.bin"),
            "files": sorted(os.path.join(d, f) for d, _, fs in os.walk("data") for f in fs), "empty": os.listdir("void")}
""")
    files = {**code, "data/given.csv": "1\n", "data/deep/x.txt": "x", "run.sh": "#!/bin/sh\n", "model.bin": ""}
    with Run(tmp_path, {}) as waiting:  # the folders exist; fill the source by hand, then start anew
        source = waiting.source
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(content if isinstance(content, str) else "")
    (source / "run.sh").chmod(0o755)
    (source / "void").mkdir()
    with open(source / "model.bin", "r+b") as model:
        model.truncate(40 << 20)
    run = complete(tmp_path / "again", {}, environment={"CREWSHIP_SOURCE_DIR": str(source)})
    assert run.output == {
        "mode": 0o755, "large": 40 << 20, "files": ["data/deep/x.txt", "data/given.csv"], "empty": [],
    }  # fmt: skip
    assert (source / "data/given.csv").read_text() == "1\n"
    assert os.path.islink(run.app / "model.bin")
    assert "data/given.csv." in run.of("notice")[0]["message"]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("pass", 0),
        ("os.symlink('/etc/passwd', 'artifacts/link')", 0),
        ("os.makedirs('artifacts/a/b'); open('artifacts/a/b/c', 'w').close()", 1),
        ("os.mkdir('artifacts/shut', 0); os.chmod('artifacts/shut', 0)", None),
    ],
    ids=["nothing", "no file", "one", "cannot look"],
)
def test_the_end_says_how_many_files_there_are(tmp_path: Path, code: str, found: int | None) -> None:
    if found is None and os.getuid() == 0:
        code = "os.rmdir('artifacts'); open('artifacts', 'w').close()"  # what root cannot list either
    with Run(tmp_path, crew(f"import os\ndef kickoff(inputs):\n    {code}\n")) as run:
        run.boot()
        run.run()
        run.finish()
    assert run.of("end")[0]["artifacts"] == found
