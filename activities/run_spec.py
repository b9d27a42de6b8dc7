"""What a run's container needs, resolved in the worker from ids: limits, env values, input."""

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine as Database
from sqlmodel import Session

from activities.spares import Warmth
from crewship.config import DeploymentConfig, memory_bytes
from crewship.db import env_values
from crewship.db import session as transaction
from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec, Limits
from crewship.models import Deployment, Run
from crewship.redaction import Redactor
from crewship.sealing import Sealer
from crewship.settings import Settings


@dataclass(frozen=True)
class RunSpec:
    """``env`` and ``input`` are secret or private: they go over the container's stdin and nowhere else."""

    run_id: str
    project: str
    deployment_id: str
    image: str
    config: DeploymentConfig
    limits: Limits
    memory: str
    network: str | None
    env: dict[str, str] = field(repr=False)
    input: dict[str, Any] = field(repr=False)
    launched: bool
    """Whether a container of this run was started before."""
    env_version: int

    def container(self, name: str) -> ContainerSpec:
        return ContainerSpec(
            name=name,
            image=self.image,
            limits=self.limits,
            kind="run",
            network=self.network,
            labels={LABEL_DEPLOYMENT: self.deployment_id},
        )

    def boot(self, nonce: str, settings: Settings) -> bytes:
        """The two commands of ``docs/reference/frames.md`` that start phase 1 and phase 2."""
        run = {"op": "run", "run_id": self.run_id, "input": self.input}
        return boot_command(self.config, self.env, nonce, settings) + json.dumps(run).encode() + b"\n"

    def warmth(self, settings: Settings) -> Warmth:
        return warmth_of(self.config, self.env, self.env_version, settings)


def boot_command(config: DeploymentConfig, env: dict[str, str], nonce: str, settings: Settings) -> bytes:
    """The command that starts phase 1: the same for every run of a deployment at one version of the env vars."""
    boot = {
        "op": "boot",
        "nonce": nonce,
        "env": env,
        "entrypoint": config.entrypoint,
        "framework": config.framework,
        "artifacts": list(config.run.artifacts),
        "check": False,
        "log_limit_bytes": settings.log_limit_bytes,
        "end_timeout_seconds": 600,
        "uncut": Redactor(env).forms,
    }
    return json.dumps(boot).encode() + b"\n"


def warmth_of(config: DeploymentConfig, env: dict[str, str], env_version: int, settings: Settings) -> Warmth:
    """What a deployment's spare containers have in them."""
    return Warmth(
        count=config.run.warm or 0,
        env_version=env_version,
        boot=lambda nonce: boot_command(config, env, nonce, settings),
        timeout_seconds=settings.import_timeout_seconds,
    )


def limits_of(config: DeploymentConfig, settings: Settings) -> tuple[Limits, str]:
    """The limits of a deployment's containers, and its memory as it was written (for hints)."""
    memory = config.run.memory or settings.memory
    return Limits(memory_bytes(memory), config.run.cpus or settings.cpus, config.run.pids or settings.pids), memory


def network_of(config: DeploymentConfig, settings: Settings) -> str | None:
    """The bridge that a deployment's containers are on; None for ``mode = "none"``."""
    return None if config.network.mode == "none" else settings.network


def open_env(session: Session, project: str, version: int, sealer: Sealer) -> dict[str, str]:
    """A project's env values at ``version``, in clear: for a container's stdin and the redactor only."""
    sealed = env_values(session, project, version)
    return {name: sealer.open(value, f"{project}/{name}") for name, value in sealed.items()}


def load_run(database: Database, run_id: str, sealer: Sealer, settings: Settings) -> RunSpec:
    """Resolve ``run_id``.

    Raises:
        LookupError: the run, or its deployment, is gone.
    """
    with transaction(database) as session:
        run = session.get(Run, run_id)
        deployment = session.get(Deployment, run.deployment_id) if run is not None else None
        if run is None or deployment is None:
            raise LookupError(run_id)
        config = DeploymentConfig.model_validate(deployment.config)
        limits, memory = limits_of(config, settings)
        return RunSpec(
            run_id=run.id,
            project=run.project,
            deployment_id=deployment.id,
            image=deployment.image or "",
            config=config,
            limits=limits,
            memory=memory,
            network=network_of(config, settings),
            env=open_env(session, run.project, run.env_version, sealer),
            input=run.input,
            launched=run.launched_at is not None,
            env_version=run.env_version,
        )
