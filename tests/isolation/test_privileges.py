"""Runs that try to be more than they are: other processes, the host's files, root's rights."""

import pytest

from tests.fixtures.platform import CrewshipDev, until
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
    from tests.faults.test_limits import _processes_of

    run_id = platform.start_run("hostile", {"do": "outlive"})
    container = until(lambda: next(iter(platform.containers(run_id.replace("_", "-"))), None))
    volume = container.attrs["Mounts"][0]["Name"]
    ended = platform.ended(run_id)
    assert (ended["status"], ended["output"]) == ("succeeded", "gone home")
    assert list(_processes_of(container.id)) == []
    assert not platform.is_left(run_id)
    assert not platform.has_volume(volume)
