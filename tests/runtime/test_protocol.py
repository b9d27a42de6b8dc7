"""Frames, acknowledgement, replay, backpressure and the two phases."""

import os
import sys
import time
from pathlib import Path

from .harness import NONCE, Run, complete, crew, wait_for

HELLO = crew("""
def kickoff(inputs):
    print("hello")
    return {"topic": inputs["topic"]}
""")
FLOOD = crew("""
import os
def kickoff(inputs):
    for start in range(0, inputs["lines"], 1000):
        text = "".join(f"line {number:08d} " + "x" * 85 + "\\n" for number in range(start, start + 1000))
        os.write(1, text.encode())
    return "done"
""")


def test_a_run_from_boot_to_end(tmp_path: Path) -> None:
    run = complete(tmp_path, HELLO, {"topic": "ships"})
    assert [frame["t"] for frame in run.frames] == ["boot", "loaded", "started", "log", "result", "end"]
    assert run.output == {"topic": "ships"}
    assert run.text() == ["hello"]
    boot = run.frames[0]
    assert boot["runner"]
    assert boot["python"].count(".") == 2
    assert boot["isolation"]["uid"] == os.getuid()
    assert set(boot["isolation"]) == {
        "kernel", "uid", "gid", "cap_eff", "cap_bnd", "no_new_privs", "seccomp", "root_read_only", "pids_max",
        "memory_max_bytes",
    }  # fmt: skip
    assert boot["isolation"]["kernel"] == os.uname().release
    loaded = run.frames[1]
    assert loaded["kind"] == "function"
    assert loaded["memory_bytes"] > 1 << 20
    end = run.frames[-1]
    assert (end["exit_code"], end["signal"], end["sigterm_at"]) == (0, None, None)
    assert boot["at"] <= end["result_at"] <= end["at"]
    assert set(end["cgroup"]) == {"oom_kills", "pids_max_events", "memory_peak_bytes", "cpu_ms"}
    assert run.process.returncode == 0


def test_every_frame_begins_with_number_nonce_time_and_type(tmp_path: Path) -> None:
    run = complete(tmp_path, HELLO, {"topic": "ships"})
    for number, (line, frame) in enumerate(zip(run.lines, run.frames, strict=True), 1):
        assert line.startswith(f'{{"n":{number},"k":"{NONCE}","at":{frame["at"]},"t":"{frame["t"]}"'.encode())
        assert abs(frame["at"] - time.time() * 1000) < 600_000


def test_a_warm_container_waits_between_import_and_input(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        run.boot()
        run.until_type("loaded")
        assert not run.of("started")
        run.run({"topic": "later"})
        run.finish()
    assert run.output == {"topic": "later"}


def test_a_smoke_boot_ends_after_the_import(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        run.boot(check=True)
        end = run.finish()
    assert [frame["t"] for frame in run.frames] == ["boot", "loaded", "end"]
    assert end["exit_code"] == 0


def test_a_container_that_is_thrown_away_before_it_was_used(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        wait_for((run.app / "artifacts").exists)
        run.terminate()
        run.process.wait(30)
    assert run.process.returncode == 128 + 15


def test_garbage_on_stdin_is_ignored(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        os.write(run.stdin, b'not json\n[1]\n{"op":"dance"}\n{"op":"ack"}\n\xff\xfe\n{"op":"run"}\n')
        run.boot()
        run.send("ack", n="many")
        run.send("ack", n=10**9)
        run.send("replay", n=-5)
        run.run({"topic": "ships"})
        run.finish()
    assert run.output == {"topic": "ships"}


def test_a_replay_repeats_the_same_bytes(tmp_path: Path) -> None:
    with Run(tmp_path, FLOOD) as run:
        run.acknowledge = False
        run.boot()
        run.run({"lines": 30_000})
        end = run.until_type("end")
        first = list(run.lines)
        for after in (0, 1, end["n"] // 2, end["n"] - 1):
            run.lines.clear()
            run.send("replay", n=after)
            while len(run.lines) < end["n"] - after:
                run.read()
            assert run.lines == first[after:]
        run.send("ack", n=5)
        run.lines.clear()
        run.send("replay", n=0)
        while len(run.lines) < end["n"] - 5:
            run.read()
        assert run.lines == first[5:]  # what is acknowledged is forgotten
        run.send("ack", n=end["n"])
        run.process.wait(30)


def test_what_an_earlier_reader_takes_for_durable_does_not_count(tmp_path: Path) -> None:
    with Run(tmp_path, FLOOD) as run:
        run.acknowledge = False
        run.boot()
        run.run({"lines": 1_000})
        end = run.until_type("end")
        first = list(run.lines)
        run.lines.clear()
        run.send("replay", n=0, epoch=2)
        while len(run.lines) < end["n"]:
            run.read()
        run.lines.clear()
        run.send("ack", n=end["n"], epoch=1)
        run.send("replay", n=0, epoch=2)
        while len(run.lines) < end["n"]:
            run.read()
        assert run.lines == first
        run.send("ack", n=end["n"], epoch=2)
        run.process.wait(30)


def test_run_and_boot_are_taken_once(tmp_path: Path) -> None:
    with Run(tmp_path, {"main.py": "def kickoff(inputs):\n    return inputs\n"}) as run:
        run.boot()
        run.run({"topic": "ships"})
        run.boot()
        run.run({"topic": "planes"})
        run.finish()
    assert run.output == {"topic": "ships"}
    assert sum(frame["t"] == "boot" for frame in run.frames) == 1


def test_a_replay_in_the_middle_of_a_frame_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with Run(tmp_path, FLOOD) as run:
        run.acknowledge = False
        run.boot()
        run.run({"lines": 20_000})
        run.until_type("started")
        # Let the pipe run full, so that a frame is surely cut in two, and ask again from the second frame.
        while run.process.poll() is None and not _is_full(run.stdout):
            os.sched_yield()
        run.send("replay", n=1)
        numbers: list[int] = []
        while not numbers or run.frames[-1]["t"] != "end":
            numbers += [frame["n"] for frame in run.read()]
        replayed = numbers[numbers.index(2) :] if 2 in numbers else numbers
        assert replayed == list(range(2, run.frames[-1]["n"] + 1))


def _is_full(fd: int) -> bool:
    import fcntl
    import termios

    held = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"), sys.byteorder)
    return held >= 60_000


def test_without_acknowledgement_the_crew_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    """120 MB of log against 72 MiB of room: the crew has to wait, then goes on."""
    lines = 1_200_000
    with Run(tmp_path, FLOOD) as run:
        run.acknowledge = False
        run.boot()
        run.run({"lines": lines})
        count = 0
        try:
            while True:
                count += sum(frame["text"].count("\n") + 1 for frame in run.read(3.0) if frame["t"] == "log")
        except TimeoutError:
            pass  # full, and silent
        assert not run.of("end")
        assert 64 << 20 < count * 100 < 80 << 20
        assert _memory_bytes(run.process.pid) < 64 << 20
        run.frames.clear()
        run.lines.clear()
        run.send("replay", n=0)
        run.acknowledge = True
        expected, following = 0, 0
        while not run.of("end"):
            for frame in run.read():
                assert frame["n"] == following + 1
                following = frame["n"]
                if frame["t"] == "log":
                    for line in frame["text"].split("\n"):
                        assert line.startswith(f"line {expected:08d} ")
                        expected += 1
            run.frames[:-1] = []
        assert expected == lines
        run.process.wait(30)


def _memory_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_a_reader_that_is_gone_does_not_keep_commands_from_being_taken(tmp_path: Path) -> None:
    with Run(tmp_path, FLOOD) as run:
        run.acknowledge = False
        run.boot()
        run.run({"lines": 100_000})
        while not _is_full(run.stdout):
            os.sched_yield()
        run.terminate()  # nothing is read, and still the crew is told
        while (run.app / "artifacts").exists() and run.process.poll() is None:
            frames = run.read()
            if frames and frames[-1]["t"] == "end":
                break
        assert run.frames[-1]["sigterm_at"]
        run.send("ack", n=run.frames[-1]["n"])
        run.process.wait(30)


def test_it_leaves_when_nobody_acknowledges_the_end(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        run.acknowledge = False
        run.boot(end_timeout_seconds=0.2)
        run.run({"topic": "ships"})
        run.until_type("end")
        run.process.wait(30)
    assert run.process.returncode == 0


def test_end_of_stdin_means_nothing(tmp_path: Path) -> None:
    with Run(tmp_path, HELLO) as run:
        run.acknowledge = False
        run.boot(end_timeout_seconds=0.2)
        run.run({"topic": "ships"})
        assert run.process.stdin is not None
        run.process.stdin.close()
        run.until_type("end")
        run.process.wait(30)
    assert run.output == {"topic": "ships"}


def test_the_nonce_and_the_frames_are_out_of_the_crews_reach(tmp_path: Path) -> None:
    """The crew has the supervisor's uid and still cannot open its memory or its fds."""
    code = crew("""
import os
def kickoff(inputs):
    parent = os.getppid()
    refused = []
    for name in ("mem", "environ", "fd/1", "maps"):
        try:
            open(f"/proc/{parent}/{name}", "rb").close()
        except PermissionError:
            refused.append(name)
    own = " ".join(os.environ) + open("/proc/self/environ").read() + open("/proc/self/cmdline").read()
    return {"refused": refused, "nonce_seen": inputs["nonce"] in own}
""")
    command: tuple[str, ...] = (sys.executable, "-I", "-S")
    if os.getuid() == 0:  # root may look into everything by its capabilities, which a crew has none of
        command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", *command)
    run = complete(tmp_path, code, {"nonce": NONCE}, command=command)
    assert run.output == {"refused": ["mem", "environ", "fd/1", "maps"], "nonce_seen": False}
