"""The limits of a deployment's runs: what ``[run]`` asks for, else the platform's default, within the platform's cap.

A deploy that asks for more than the cap is refused (:func:`check`). A cap that was lowered since holds for older deployments
too (:func:`limits_of`), and so it does for a default above it.
"""

from collections.abc import Iterator

from crewship import sizes
from crewship.config import DeploymentConfig, size_bytes
from crewship.contracts import Limit, RunLimits
from crewship.errors import InvalidConfig
from crewship.settings import Settings


def limits_of(config: DeploymentConfig, settings: Settings, timeout_seconds: int | None = None) -> RunLimits:
    """What holds for each run of a deployment with ``config``.

    Args:
        timeout_seconds: What the run itself asked for.
    """
    run = config.run
    timeout_seconds = timeout_seconds or run.timeout_seconds or settings.default_timeout_seconds
    return RunLimits(
        memory=_within(size_bytes(run.memory or settings.memory), size_bytes(settings.max_memory)),
        cpus=min(run.cpus or settings.cpus, settings.max_cpus),
        pids=_within(run.pids or settings.pids, settings.max_pids),
        disk=_within(size_bytes(run.disk or settings.disk), size_bytes(settings.max_disk)),
        log=_within(size_bytes(run.log) if run.log else settings.log_limit_bytes, size_bytes(settings.max_log)),
        artifacts=_within(settings.artifacts_limit_bytes, settings.artifacts_limit_bytes),
        timeout=_within(timeout_seconds, settings.max_timeout_seconds),
    )


def check(config: DeploymentConfig, settings: Settings) -> None:
    """Raise ``InvalidConfig`` when ``config`` asks for more than the platform allows; it names key, value and cap."""
    for key, asked, amount, most in _asked(config, settings):
        if amount > most:
            cap = f'"{sizes.written(int(most))}"' if isinstance(asked, str) else f"{most:g}"
            value = f'"{asked}"' if isinstance(asked, str) else f"{asked:g}"
            raise InvalidConfig(
                f"[run] {key} = {value} is more than this platform allows, which is {cap}",
                hint=f"set {key} = {cap} or less; whoever runs the platform can raise CREWSHIP_MAX_{key.upper()}",
            )


def _asked(config: DeploymentConfig, settings: Settings) -> Iterator[tuple[str, str | float, float, float]]:
    """Key, value as written, the amount it means, and the most that is allowed."""
    run = config.run
    for key, size, most in (
        ("memory", run.memory, settings.max_memory),
        ("disk", run.disk, settings.max_disk),
        ("log", run.log, settings.max_log),
    ):
        if size is not None:
            yield key, size, size_bytes(size), size_bytes(most)
    for key, number, limit in (
        ("timeout_seconds", run.timeout_seconds, settings.max_timeout_seconds),
        ("cpus", run.cpus, settings.max_cpus),
        ("pids", run.pids, settings.max_pids),
    ):
        if number is not None:
            yield key, number, number, limit


def _within(value: int, most: int) -> Limit:
    return Limit(value=min(value, most), most=most)
