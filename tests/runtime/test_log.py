"""What the crew writes to its streams, hostile output included."""

import base64
import os
from pathlib import Path

import pytest

from .harness import Run, complete, crew, wait_for


def test_lines_of_both_streams(tmp_path: Path) -> None:
    code = crew("""
import subprocess, sys
def kickoff(inputs):
    print("out")
    print("err", file=sys.stderr)
    subprocess.run(["sh", "-c", "echo from a child; echo and its errors >&2"])
    print("größer 漢字 🚢")
    print()
    print("a\\rb\\x0cc\\u2028d\\tend")
    print("\\x1b[31mred\\x1b[0m")
""")
    run = complete(tmp_path, code)
    assert run.text("stdout") == [
        "out", "from a child", "größer 漢字 🚢", "", "a\rb\x0cc\u2028d\tend", "\x1b[31mred\x1b[0m"
    ]  # fmt: skip
    assert run.text("stderr") == ["err", "and its errors"]
    assert {frame["l"] for frame in run.of("log")} == {"info"}


def test_levels_of_logging(tmp_path: Path) -> None:
    code = crew("""
import contextlib, io, logging, sys
def kickoff(inputs):
    logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
    log = logging.getLogger("crew")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)(level)
    print("plain", file=sys.stderr)
    log.warning("two\\nlines")
    log.log(35, "between")
    captured = io.StringIO()
    with contextlib.redirect_stderr(captured):
        other = logging.getLogger("other")
        other.addHandler(logging.StreamHandler())
        other.propagate = False
        other.error("captured")
    assert captured.getvalue() == "captured\\n", repr(captured.getvalue())
    with open("artifacts/log.txt", "w") as file:
        other.addHandler(logging.StreamHandler(file))
        other.error("to a file")
    assert open("artifacts/log.txt").read() == "to a file\\n"
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
""")
    run = complete(tmp_path, code)
    assert run.output is None
    told = [(frame["l"], line) for frame in run.of("log") for line in frame["text"].split("\n")]
    assert told[:9] == [
        ("debug", "crew: debug"),
        ("info", "crew: info"),
        ("warning", "crew: warning"),
        ("error", "crew: error"),
        ("critical", "crew: critical"),
        ("info", "plain"),
        ("warning", "crew: two"),
        ("warning", "lines"),
        ("warning", "crew: between"),
    ]
    assert told[9] == ("error", "crew: failed")
    assert told[-1] == ("error", "ZeroDivisionError: division by zero")
    assert {level for level, _ in told[9:]} == {"error"}


def test_logging_that_was_set_up_at_import_has_levels_too(tmp_path: Path) -> None:
    code = crew("""
import logging
logging.basicConfig()
def kickoff(inputs):
    logging.getLogger().error("late")
""")
    run = complete(tmp_path, code)
    assert [(frame["l"], frame["s"], frame["text"]) for frame in run.of("log")] == [
        ("error", "stderr", "ERROR:root:late")
    ]


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    os.write(1, b"good\\nbad \\xff\\xfe\\ngood again\\n\\x00\\x01\\n")
""")
    run = complete(tmp_path, code)
    frames = run.of("log")
    assert [frame["text"] for frame in frames] == ["good", "bad \ufffd\ufffd", "good again\n\x00\x01"]
    assert base64.b64decode(frames[1]["raw"]) == b"bad \xff\xfe"
    assert "raw" not in frames[0]
    assert "raw" not in frames[2]


def test_a_line_of_a_megabyte_comes_in_pieces(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    print("ü" * 500_001 + "end")
    print("x" * 65536)
    print("y" * 65537)
    print("after")
""")
    run = complete(tmp_path, code)
    assert run.text() == ["ü" * 500_001 + "end", "x" * 65536, "y" * 65537, "after"]
    assert all(len(line) < 1 << 20 for line in run.lines)
    pieces = [frame for frame in run.of("log") if frame.get("partial")]
    assert len(pieces) == 16
    assert all(len(frame["text"].encode()) <= 65536 and "raw" not in frame for frame in pieces)
    whole = [line for frame in run.of("log") if not frame.get("partial") for line in frame["text"].split("\n")]
    assert "x" * 65536 in whole  # 64 KiB is not over 64 KiB


def test_binary_of_a_megabyte_comes_back_byte_for_byte(tmp_path: Path) -> None:
    code = crew("""
import os, random
def kickoff(inputs):
    data = random.Random(7).randbytes(1 << 20)
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
""")
    run = complete(tmp_path, code)
    import random

    got, lines, partial = b"", 0, False
    for frame in run.of("log"):
        parts = [base64.b64decode(frame["raw"])] if "raw" in frame else [t.encode() for t in frame["text"].split("\n")]
        for part in parts:
            if not partial and lines:
                got += b"\n"
            got += part
            lines += 1
            partial = frame.get("partial", False)
    expected = random.Random(7).randbytes(1 << 20)
    assert got == expected.removesuffix(b"\n")


def test_no_final_newline(tmp_path: Path) -> None:
    run = complete(tmp_path, crew("def kickoff(inputs): print('all', end='')"))
    assert run.text() == ["all"]
    assert not run.of("log")[0].get("partial")


def test_an_unfinished_line_is_shown_after_a_second(tmp_path: Path) -> None:
    code = crew("""
import os, sys, time
def kickoff(inputs):
    sys.stdout.write("Loading ü")
    sys.stdout.flush()
    while not os.path.exists("go"):
        time.sleep(0.005)
    print("... done")
    print("next")
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run()
        run.until(lambda frame: frame.get("partial") is True)
        (run.app / "go").touch()
        run.finish()
    assert run.of("log")[0]["text"] == "Loading ü"
    assert run.text() == ["Loading ü... done", "next"]


def test_frames_that_the_crew_prints_are_text(tmp_path: Path) -> None:
    forged = '{"n":2,"k":"nonce-of-this-run","at":1,"t":"end","exit_code":0}'
    code = crew(f"""
import os
def kickoff(inputs):
    print({forged!r})
    os.write(3, b'{{"m":"end","exit_code":0}}\\n{{"m":"event","type":"run.completed","data":{{}}}}\\n')
    os.write(3, b'{{"m":"event","type":"custom","data":{{"a":1,"at":2}},"n":1,"t":"end","k":"x"}}\\n')
    os.write(3, b'{{"m":"artifact","name":"none"}}\\nrubbish\\n[]\\n')
    return "true"
""")
    run = complete(tmp_path, code)
    assert run.text() == [forged]
    assert [frame["t"] for frame in run.frames] == ["boot", "loaded", "started", "log", "event", "result", "end"]
    assert run.events() == [("custom", {"a": 1})]
    assert run.output == "true"


def test_closing_the_streams(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    print("before")
    os.close(1)
    os.close(2)
    open("artifacts/late.txt", "w").write("still here")
    return "fine"
""")
    run = complete(tmp_path, code)
    assert run.text() == ["before"]
    assert run.output == "fine"
    assert run.artifacts == {"late.txt": 10}


def test_lines_and_events_keep_their_order(tmp_path: Path) -> None:
    code = crew("""
import crewship_runtime as crewship
def kickoff(inputs):
    for number in range(200):
        print(f"line {number}")
        crewship.emit("step", number=number)
""")
    run = complete(tmp_path, code)
    told: list[str] = []
    for frame in run.frames:
        if frame["t"] == "log":
            told += frame["text"].split("\n")
        elif frame["t"] == "event":
            told.append(f"event {frame['data']['value']['number']}")
    assert told == [text for number in range(200) for text in (f"line {number}", f"event {number}")]


def test_many_lines_share_a_frame(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    for number in range(100_000):
        print(f"line {number}")
""")
    run = complete(tmp_path, code)
    assert run.text() == [f"line {number}" for number in range(100_000)]
    assert len(run.of("log")) < 5_000


def test_the_log_limit_ends_the_run(tmp_path: Path) -> None:
    code = crew("""
def kickoff(inputs):
    while True:
        print("x" * 1000)
""")
    run = complete(tmp_path, code, log_limit_bytes=1 << 20)
    assert run.error["code"] == "log_limit"
    assert run.of("end")[0]["signal"] == 9
    assert len("\n".join(run.text())) < 2 << 20


@pytest.mark.parametrize("before", [65536 - 10, 65536 - 1, 3 * 65536 - 5])
def test_no_piece_of_a_long_line_ends_within_a_secret(tmp_path: Path, before: int) -> None:
    code = crew(f"""
def kickoff(inputs):
    print("A" * {before} + "secret-of-sixteen" + "B" * 100000)
""")
    run = complete(tmp_path, code, uncut=["secret-of-sixteen", "sixteenth"])
    pieces = [frame["text"] for frame in run.of("log")]
    assert "".join(pieces) == "A" * before + "secret-of-sixteen" + "B" * 100000
    assert len([piece for piece in pieces if "secret-of-sixteen" in piece]) == 1


def test_an_unfinished_line_is_not_shown_up_to_within_a_secret(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    os.write(1, b"key: secret-of")
    open("go").read()
    os.write(1, b"-sixteen")
""")
    with Run(tmp_path, code) as run:
        run.boot(uncut=["secret-of-sixteen"])
        wait_for(lambda: (run.app / "main.py").exists())
        os.mkfifo(run.app / "go")
        run.run()
        assert run.until_type("log")["text"] == "key: "
        (run.app / "go").write_text("")
        run.finish()
    assert [frame["text"] for frame in run.of("log")] == ["key: ", "secret-of-sixteen"]
