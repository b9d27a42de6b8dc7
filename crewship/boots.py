"""How a run's container is begun: what its supervisor is told first, and what holds it."""

import json
from collections.abc import Mapping

from crewship.config import DeploymentConfig
from crewship.contracts import RunLimits
from crewship.engine import Limits
from crewship.redaction import Redactor
from crewship.settings import Settings


def boot_command(
    config: DeploymentConfig,
    env: Mapping[str, str],
    nonce: str,
    limits: RunLimits,
    *,
    end_timeout_seconds: int = 600,
    proxy: Mapping[str, str] | None = None,
) -> bytes:
    """The command that starts phase 1: the same for every run of a deployment at one version of the env vars.

    Args:
        env: The project's; none of it may be shown.
        proxy: Variables that name the way out; they take the place of the project's.
        end_timeout_seconds: How long the container waits at its end for somebody who takes its last frame.
    """
    boot = {
        "op": "boot",
        "nonce": nonce,
        "env": {**env, **(proxy or {})},
        "entrypoint": config.entrypoint,
        "framework": config.framework,
        "artifacts": list(config.run.artifacts),
        "check": False,
        "log_limit_bytes": limits.log.value,
        "disk_limit_bytes": limits.disk.value,
        "end_timeout_seconds": end_timeout_seconds,
        "uncut": Redactor(env).forms,
    }
    return json.dumps(boot).encode() + b"\n"


def container_limits(limits: RunLimits) -> Limits:
    """Those that the engine holds."""
    return Limits(
        memory_bytes=limits.memory.value,
        cpus=limits.cpus,
        pids=limits.pids.value,
        disk_bytes=limits.disk.value,
    )


def network_of(config: DeploymentConfig, settings: Settings) -> str | None:
    """The bridge that a deployment's containers are on; None for ``mode = "none"``."""
    match config.network.mode:
        case "none":
            return None
        case "allow":
            return settings.closed_network
        case "open":
            return settings.network
