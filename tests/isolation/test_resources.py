"""Runs that take all they can: each meets a limit of its own, and says which."""

import pytest

from tests.fixtures.platform import CrewshipDev
from tests.isolation.conftest import run

pytestmark = pytest.mark.platform


@pytest.mark.parametrize(
    ("do", "code"),
    [
        ("grab_memory", "out_of_memory"),
        ("fork_bomb", "pids_limit"),
        ("fill_disk", "disk_limit"),
        ("name_flood", "disk_limit"),
    ],
)
def test_a_run_ends_at_its_limit_and_says_which(platform: CrewshipDev, do: str, code: str) -> None:
    ended, _ = run(platform, do, "small")
    assert (ended["status"], ended["error"]["code"]) == ("failed", code), ended
    assert "[run] in crewship.toml" in ended["error"]["hint"]


def test_descriptors_names_and_shared_memory_have_an_end(platform: CrewshipDev) -> None:
    ended, _ = run(platform, "files")
    output = ended["output"]
    count, why = output["descriptors"]
    assert (count < 1024, why) == (True, "EMFILE")
    count, why = output["names in /tmp"]
    assert (count < 11_000, why) == (True, "ENOSPC")
    for place in ("/tmp/1", "/dev/shm/fill"):
        size, why = output[f"bytes in {place}"]
        assert (size <= 64 << 20, why) == (True, "ENOSPC"), place
