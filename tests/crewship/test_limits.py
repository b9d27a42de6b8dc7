"""Limits: the project's, else the platform's default, and never more than the platform's cap."""

import pytest

from crewship.config import DeploymentConfig, load
from crewship.errors import InvalidConfig
from crewship.limits import check, limits_of
from crewship.settings import Settings

SETTINGS = Settings(
    memory="1g", max_memory="2g", cpus=1.0, max_cpus=1.5, pids=100, max_pids=200, disk="3g", max_disk="4g",
    log_limit_bytes=1 << 20, max_log="2m", default_timeout_seconds=60, max_timeout_seconds=120,
)  # fmt: skip


def config(run: str = "") -> DeploymentConfig:
    return load(f'[deployment]\nframework = "python"\nentrypoint = "crew:kickoff"\n[run]\n{run}\n')


def test_the_defaults_are_the_platforms() -> None:
    limits = limits_of(config(), SETTINGS)
    assert (limits.memory.value, limits.memory.most) == (1 << 30, 2 << 30)
    assert (limits.cpus, limits.pids.value, limits.disk.value, limits.log.value) == (1.0, 100, 3 << 30, 1 << 20)
    assert (limits.timeout.value, limits.timeout.most) == (60, 120)


def test_a_project_has_its_own_and_a_run_its_own_timeout() -> None:
    limits = limits_of(config('memory = "64m"\ncpus = 1.5\npids = 20\ndisk = "1g"\nlog = "1k"'), SETTINGS, 7)
    assert (limits.memory.value, limits.cpus, limits.pids.value) == (64 << 20, 1.5, 20)
    assert (limits.disk.value, limits.log.value, limits.timeout.value) == (1 << 30, 1024, 7)


def test_a_cap_that_was_lowered_holds_for_what_was_deployed_before() -> None:
    limits = limits_of(config('memory = "8g"\ncpus = 9\ntimeout_seconds = 9999'), SETTINGS)
    assert (limits.memory.value, limits.cpus, limits.timeout.value) == (2 << 30, 1.5, 120)


@pytest.mark.parametrize(
    ("line", "cap"),
    [
        ('memory = "2049m"', '"2g"'),
        ("cpus = 1.6", "1.5"),
        ("pids = 201", "200"),
        ('disk = "5g"', '"4g"'),
        ('log = "3m"', '"2m"'),
        ("timeout_seconds = 121", "120"),
    ],
)
def test_more_than_the_cap_is_refused_by_key_value_and_cap(line: str, cap: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        check(config(line), SETTINGS)
    assert caught.value.detail == f"[run] {line} is more than this platform allows, which is {cap}"
    key = line.partition(" ")[0]
    assert f"set {key} = {cap} or less" in (caught.value.hint or "")
    setting = f"max_{key}"
    assert setting in Settings.model_fields
    assert f"CREWSHIP_{setting.upper()}" in (caught.value.hint or "")


def test_the_cap_itself_is_allowed() -> None:
    check(config('memory = "2g"\ncpus = 1.5\npids = 200\ndisk = "4g"\nlog = "2m"\ntimeout_seconds = 120'), SETTINGS)


def test_a_setting_that_is_no_size_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="'lots' is not a size"):
        Settings(max_memory="lots")
