"""Runs that try to be more than they are: other processes, the host's files, root's rights."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.platform import CrewshipDev, processes_of, until
from tests.isolation.conftest import run

pytestmark = pytest.mark.platform


@pytest.mark.parametrize("do", ["spy", "write_outside", "look_for_the_host", "escalate"])
@pytest.mark.parametrize("project", ["hostile", "closed"])
def test_nothing_is_got(platform: CrewshipDev, do: str, project: str) -> None:
    ended, _ = run(platform, do, project)
    assert ended["status"] == "succeeded", ended
    output = ended["output"]
    assert [what for what, came in output.items() if came == "got in"] == [], output
    if do == "spy":
        assert output["/proc/1/environ"] in ("EACCES", "EPERM")
        assert len(output["processes"].split()) <= 3, "its own, the supervisor, and nobody else's"
    if do == "look_for_the_host":
        assert output["unix sockets"] == ""
        assert output["mounts from outside"] == ""


def test_the_kernel_says_so_too(platform: CrewshipDev) -> None:
    ended, _ = run(platform, "names", hosts=[])
    isolation = ended["isolation"]
    assert (int(isolation["cap_eff"], 16), int(isolation["cap_bnd"], 16)) == (0, 0)
    assert isolation["no_new_privs"] is True
    assert isolation["seccomp"] == 2
    assert isolation["root_read_only"] is True
    assert isolation["uid"] == isolation["gid"] == 10001


def test_nothing_of_a_run_outlives_it(platform: CrewshipDev) -> None:
    run_id = platform.start_run("hostile", {"do": "outlive"})
    container = until(lambda: next(iter(platform.containers(run_id.replace("_", "-"))), None))
    volume = container.attrs["Mounts"][0]["Name"]
    ended = platform.ended(run_id)
    assert (ended["status"], ended["output"]) == ("succeeded", "gone home")
    # The supervisor alone may be there until the run's row is closed, and the container goes with it.
    assert [pid for pid in processes_of(container.id) if not _is_supervisor(pid)] == []
    until(lambda: not list(processes_of(container.id)))
    assert not platform.is_left(run_id)
    assert not platform.has_volume(volume)


def _is_supervisor(pid: int) -> bool:
    """Whether it is the container's PID 1, or has ended."""
    with suppress(OSError):
        pids = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
        return pids.split()[-1] == "1"
    return True
