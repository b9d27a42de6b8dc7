"""How a crew may end, and what the platform is told of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .harness import Run, complete, crew


@pytest.mark.parametrize(
    ("ending", "code", "result"),
    [
        ("return None", 0, {"ok": True, "output": None}),
        ("sys.exit()", 0, {"ok": True, "output": None}),
        ("sys.exit(0)", 0, {"ok": True, "output": None}),
        ("sys.exit(3)", 3, "exit_nonzero"),
        ("sys.exit('it is over')", 1, "exit_nonzero"),
        ("raise ValueError('bad topic')", 1, "user_error"),
        ("raise KeyboardInterrupt", 1, "user_error"),
        ("os._exit(0)", 0, None),
        ("os._exit(4)", 4, None),
    ],
)
def test_exit_codes(tmp_path: Path, ending: str, code: int, result: object) -> None:
    run = complete(tmp_path, crew(f"import os, sys\ndef kickoff(inputs):\n    print('last words')\n    {ending}\n"))
    end = run.of("end")[0]
    assert (end["exit_code"], end["signal"]) == (code, None)
    assert run.process.returncode == code
    if "_exit" not in ending:  # which leaves what is buffered behind, as everywhere; lines are not
        assert run.text() == ["last words"]
    if isinstance(result, str):
        assert run.error["code"] == result
    elif result is None:
        assert not run.of("result")
        assert end["result_at"] is None
    else:
        assert {key: run.result[key] for key in ("ok", "output")} == result
    if ending == "sys.exit('it is over')":
        assert run.text("stderr") == ["it is over"]


def test_killed_by_a_signal(tmp_path: Path) -> None:
    run = complete(tmp_path, crew("import os\ndef kickoff(inputs):\n    os.kill(os.getpid(), 9)\n"))
    end = run.of("end")[0]
    assert (end["exit_code"], end["signal"], end["sigterm_at"]) == (None, 9, None)
    assert not run.of("result")
    assert run.process.returncode == 128 + 9


WAITING = """
import time
def kickoff(inputs):
    try:
        print("working")
        time.sleep(600)
    finally:
        open("artifacts/partial.md", "w").write("what there was")
        print("cleaned up")
"""


def test_sigterm(tmp_path: Path) -> None:
    with Run(tmp_path, crew(WAITING)) as run:
        run.boot()
        run.run()
        run.until_line("working")
        run.terminate()
        end = run.finish()
    assert end["sigterm_at"] is not None
    assert end["exit_code"] == 143
    assert end["result_at"] is None or end["result_at"] >= end["sigterm_at"]
    assert run.text() == ["working", "cleaned up"]
    assert run.artifacts == {"partial.md": 14}


def test_sigterm_in_async_code(tmp_path: Path) -> None:
    code = crew("""
import asyncio
async def kickoff(inputs):
    try:
        print("working")
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0)
        print("cleaned up")
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run()
        run.until_line("working")
        run.terminate()
        end = run.finish()
    assert end["exit_code"] == 143
    assert run.text() == ["working", "cleaned up"]


def test_a_crew_with_its_own_handler_may_finish(tmp_path: Path) -> None:
    code = crew("""
import signal, threading
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
def kickoff(inputs):
    print("working")
    while not stop.wait(0.02):
        pass
    return "finished in order"
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run()
        run.until_line("working")
        run.terminate()
        end = run.finish()
    assert run.output == "finished in order"
    assert end["exit_code"] == 0
    assert end["result_at"] >= end["sigterm_at"]


def test_sigterm_reaches_the_crews_children(tmp_path: Path) -> None:
    code = crew("""
import subprocess
def kickoff(inputs):
    child = subprocess.Popen(["sh", "-c", "trap 'echo child is told; exit 0' TERM; echo ready; while :; do sleep 0.02; done"])
    child.wait()
""")
    with Run(tmp_path, code) as run:
        run.boot()
        run.run()
        run.until_line("ready")
        run.terminate()
        run.finish()
    assert "child is told" in run.text()


def test_sigterm_while_warm(tmp_path: Path) -> None:
    with Run(tmp_path, crew(WAITING)) as run:
        run.boot()
        run.until_type("loaded")
        run.terminate()
        end = run.finish()
    assert end["exit_code"] == 143
    assert not run.of("started")
    assert not run.of("result")


def test_a_crew_that_is_busy_during_its_import(tmp_path: Path) -> None:
    with Run(tmp_path, crew("import time\nprint('importing')\ntime.sleep(600)\n")) as run:
        run.boot()
        run.until_line("importing")
        run.terminate()
        end = run.finish()
    assert end["exit_code"] == 143
    assert end["sigterm_at"]


def test_a_forked_writer_that_outlives_the_crew(tmp_path: Path) -> None:
    """It keeps the pipes open and writes without an end; the run ends all the same, and whole."""
    code = crew("""
import os
def kickoff(inputs):
    print("parent")
    if os.fork() == 0:
        while True:
            os.write(1, b"child\\n")
    return "parent's"
""")
    run = complete(tmp_path, code)
    assert run.output == "parent's"
    assert run.text()[0] == "parent"
    assert run.of("end")[0]["exit_code"] == 0


def test_a_fork_that_returns_from_kickoff_gives_no_second_result(tmp_path: Path) -> None:
    code = crew("""
import os
def kickoff(inputs):
    child = os.fork()
    if child == 0:
        return "child's"
    os.waitpid(child, 0)
    return "parent's"
""")
    run = complete(tmp_path, code)
    assert run.output == "parent's"


def test_a_daemon_in_its_own_session_does_not_hold_the_end_up(tmp_path: Path) -> None:
    code = crew("""
import subprocess
def kickoff(inputs):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return child.pid
""")
    run = complete(tmp_path, code)
    end, result = run.of("end")[0], run.result
    assert end["at"] - result["at"] < 10_000
    os.kill(result["output"], 9)  # outside a container nobody else does


def test_as_pid_1_everything_ends_with_the_crew(tmp_path: Path) -> None:
    """In a pid namespace, as in a container: reaping, stragglers, daemons in sessions of their own."""
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make a pid namespace")
    code = crew("""
import os, subprocess
def kickoff(inputs):
    orphans = []
    for _ in range(5):
        subprocess.Popen(["sh", "-c", "sleep 600 & exit 0"], start_new_session=True).wait()
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP; while :; do echo noise; sleep 0.01; done"], start_new_session=True)
    subprocess.run(["sh", "-c", "(sleep 0 &) ; exit 0"])
    return {"parent": os.getppid(), "pid1": open("/proc/1/cmdline").read().split("\\0")[1:4]}
""")
    run = complete(tmp_path, code, command=(*inside, sys.executable, "-I", "-S"))
    assert run.output["parent"] == 1
    assert run.output["pid1"][:2] == ["-I", "-S"]
    assert run.of("end")[0]["exit_code"] == 0


def test_threads_and_atexit_after_the_result(tmp_path: Path) -> None:
    code = crew("""
import atexit, threading, time
@atexit.register
def last():
    print("atexit")
def kickoff(inputs):
    def work():
        time.sleep(0.05)
        open("artifacts/late.txt", "w").write("late")
        print("thread")
    threading.Thread(target=work).start()
    return 1
""")
    run = complete(tmp_path, code)
    assert run.text() == ["thread", "atexit"]
    assert run.artifacts == {"late.txt": 4}
    assert run.output == 1


def test_a_missing_interpreter(tmp_path: Path) -> None:
    run = complete(tmp_path, crew(""), python="/nonexistent/python")
    assert "could not be started" in run.of("notice")[0]["message"]
    assert run.of("end")[0]["exit_code"] == 127


def test_a_crew_killed_before_its_boot(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken venv >&2\nexit 5\n")
    broken.chmod(0o755)
    run = complete(tmp_path / "run", crew(""), python=broken)
    assert run.of("end")[0]["exit_code"] == 5
    assert run.text("stderr") == ["broken venv"]
