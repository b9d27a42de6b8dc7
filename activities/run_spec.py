"""What a run's container needs, resolved in the worker from ids: limits, env values, input."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine as Database
from sqlmodel import Session, col, select

from activities.spares import Warmth
from crewship.boots import boot_command, container_limits, network_of
from crewship.config import DeploymentConfig
from crewship.contracts import RunLimits
from crewship.db import env_values
from crewship.db import session as transaction
from crewship.engine import LABEL_DEPLOYMENT, ContainerSpec
from crewship.limits import limits_of
from crewship.models import Deployment, Run
from crewship.sealing import Sealer
from crewship.settings import Settings


@dataclass(frozen=True)
class RunSpec:
    """``env`` and ``input`` are secret or private: they go over the container's stdin and nowhere else."""

    run_id: str
    attempt: int
    project: str
    deployment_id: str
    image: str
    config: DeploymentConfig
    limits: RunLimits
    network: str | None
    env: dict[str, str] = field(repr=False)
    input: dict[str, Any] = field(repr=False)
    launched: bool
    """Whether a container of this attempt was started before."""
    env_version: int

    def container(self, name: str) -> ContainerSpec:
        return ContainerSpec(
            name=name,
            image=self.image,
            limits=container_limits(self.limits),
            kind="run",
            network=self.network,
            allow=tuple(self.config.network.allow),
            labels={LABEL_DEPLOYMENT: self.deployment_id},
        )

    def boot(self, nonce: str, proxy: Mapping[str, str]) -> bytes:
        """The two commands of ``docs/reference/frames.md`` that start phase 1 and phase 2.

        Args:
            proxy: Variables that name the way out, for a run that has to take it.
        """
        run = {"op": "run", "run_id": self.run_id, "attempt": self.attempt, "input": self.input}
        return boot_command(self.config, self.env, nonce, self.limits, proxy=proxy) + json.dumps(run).encode() + b"\n"

    def warmth(self, settings: Settings, proxy: Callable[[], Mapping[str, str]]) -> Warmth:
        return warmth_of(self.config, self.env, self.env_version, settings, proxy)


def warmth_of(
    config: DeploymentConfig,
    env: dict[str, str],
    env_version: int,
    settings: Settings,
    proxy: Callable[[], Mapping[str, str]],
) -> Warmth:
    """What a deployment's spare containers have in them. ``proxy`` is asked for when one is made."""
    is_restricted = config.network.mode == "allow"
    limits = limits_of(config, settings)
    return Warmth(
        count=config.run.warm or 0,
        env_version=env_version,
        boot=lambda nonce: boot_command(config, env, nonce, limits, proxy=proxy() if is_restricted else None),
        timeout_seconds=settings.import_timeout_seconds,
    )


def open_env(session: Session, project: str, version: int, sealer: Sealer) -> dict[str, str]:
    """A project's env values at ``version``, in clear: for a container's stdin and the redactor only."""
    sealed = env_values(session, project, version)
    return {name: sealer.open(value, f"{project}/{name}") for name, value in sealed.items()}


def is_restricted(database: Database, run_id: str) -> bool:
    """Whether the run may reach named hosts alone; False when it is gone."""
    with transaction(database) as session:
        found = select(Deployment.config).join(Run, col(Run.deployment_id) == col(Deployment.id))
        config = session.exec(found.where(Run.id == run_id)).first()
    return config is not None and (config.get("network") or {}).get("mode") == "allow"


def load_run(database: Database, run_id: str, attempt: int, sealer: Sealer, settings: Settings) -> RunSpec:
    """Resolve an attempt of ``run_id``.

    Raises:
        LookupError: the run, or its deployment, is gone.
    """
    with transaction(database) as session:
        run = session.get(Run, run_id)
        deployment = session.get(Deployment, run.deployment_id) if run is not None else None
        if run is None or deployment is None:
            raise LookupError(run_id)
        config = DeploymentConfig.model_validate(deployment.config)
        return RunSpec(
            run_id=run.id,
            attempt=attempt,
            project=run.project,
            deployment_id=deployment.id,
            image=deployment.image or "",
            config=config,
            limits=limits_of(config, settings, run.timeout_seconds),
            network=network_of(config, settings),
            env=open_env(session, run.project, run.env_version, sealer),
            input=run.input,
            launched=run.launched_at is not None and run.attempt >= attempt,
            env_version=run.env_version,
        )
