"""Settings of the platform's processes, from ``CREWSHIP_*`` environment variables.

Read once, in the composition roots (``api.__main__``, ``worker.__main__``, ``crewship.devserver``), and passed down:
no module reads the environment on its own. A blank variable counts as unset.
"""

import socket
from functools import cached_property
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_dir, user_data_dir
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from crewship.config import size_bytes
from crewship.egress.wiring import EgressOptions, closed_bridge
from crewship.netguard.rules import GuardOptions, parse_addresses, parse_reach


class Settings(BaseSettings):
    """Everything that may differ between two installations."""

    model_config = SettingsConfigDict(env_prefix="CREWSHIP_", env_ignore_empty=True, frozen=True, extra="ignore")

    data_dir: Path = Field(default_factory=lambda: Path(user_data_dir("crewship")))
    """Folder that holds all state of an embedded platform."""
    cache_dir: Path = Field(default_factory=lambda: Path(user_cache_dir("crewship")))
    """Folder for what can be made again: binaries, base images' parts."""
    database_url: str = ""
    """SQLAlchemy URL; empty: ``sqlite:///<data_dir>/crewship.db``."""
    object_store: str = ""
    """``file:///folder`` or ``s3+http(s)://key:secret@host:port/bucket``; empty: ``<data_dir>/objects``."""
    tail: str = ""
    """Hint bus for live events: ``unix:///path``, ``redis://host:port/0`` or ``off``; empty: ``<data_dir>/tail.sock``."""

    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    temporal_ui_url: str = ""
    """Shown to people only; empty: not known."""
    temporal_bin: Path | None = None
    """Temporal's CLI, which ``crewship dev`` starts as a server; None: found or made (``crewship.provision.temporal``)."""

    api_host: str = "127.0.0.1"
    api_port: int = 8700
    cors_origins: str = ""
    """Comma-separated list of origins whose pages may call the API."""
    metrics_open: bool = False
    """Whether ``GET /metrics`` may be read without a key."""
    bootstrap_admin_key: str = ""
    """Secret of the first admin key; stored hashed, and only when there is no key yet."""
    rate_limit_per_minute: int = Field(default=12_000, ge=0)
    """Requests that one key may make to one API process; 0: no limit."""
    failed_auth_per_minute: int = Field(default=30, ge=0)
    """Wrong keys that may come from one address to one API process; 0: no limit."""
    trusted_proxies: str = ""
    """Comma-separated addresses or networks of proxies whose ``X-Forwarded-For`` is believed."""
    secret_key: SecretStr = SecretStr("")
    """The keys that seal env values (64 hex digits each, the newest first, commas between); empty: they are in a file."""
    secret_key_file: Path | None = None
    """File with these keys, one a line; None: ``<data_dir>/secret.key``, which an embedded platform makes when it is missing."""

    instance: str = "default"
    """Name of this installation; label of all its containers, so that two installations share an engine safely."""
    host: str = Field(default_factory=socket.gethostname)
    """Name of this container host; part of its task queues' names."""
    host_lost_seconds: int = Field(default=300, ge=30)
    """After how long without a sign of a host's worker its runs are given up as ``host_lost``."""
    run_capacity: int = Field(default=4, ge=1)
    """Containers that may run at once on this host."""

    base_image: str = ""
    """Image that crews' images are built on (see ``crewship.provision.base_image``); empty: found or made on the spot."""
    build_ca_bundle: Path | None = None
    """PEM bundle that builds trust besides the image's own, for networks with a TLS-inspecting proxy."""
    build_index_url: str = ""
    """Package index for builds; empty: uv's default."""
    build_timeout_seconds: int = 1800
    import_timeout_seconds: int = 120
    """How long the smoke boot may take to import the entrypoint."""

    project_concurrency: int = Field(default=0, ge=0)
    """Runs of one project at once (``[run] concurrency`` overrides); 0: as many as there is room for."""
    queue_timeout_seconds: int = Field(default=86_400, ge=1)
    """How long a run may wait for its start (``[run] queue_timeout_seconds`` overrides)."""
    default_timeout_seconds: int = 3600
    max_timeout_seconds: int = 86_400
    grace_seconds: float = 5.0
    """Between SIGTERM and SIGKILL."""
    memory: str = "1g"
    """Default memory limit of a run (``[run] memory`` overrides)."""
    cpus: float = 1.0
    pids: int = 256
    disk: str = "4g"
    """Default of what a run may have in ``/app`` (``[run] disk`` overrides)."""
    log_limit_bytes: int = 1 << 30
    artifacts_limit_bytes: int = 1 << 30
    max_memory: str = "16g"
    """Most that ``[run] memory`` may ask for; the ones below likewise."""
    max_cpus: float = 16.0
    max_pids: int = 4096
    max_disk: str = "64g"
    max_log: str = "16g"
    log_retention_days: int = Field(default=0, ge=0)
    """After how many days a closed run's log is cut down to its terminal event; 0: kept for ever."""
    artifact_retention_days: int = Field(default=0, ge=0)
    """After how many days a closed run's artifacts are removed; 0: kept for ever."""
    run_retention_days: int = Field(default=0, ge=0)
    """After how many days a closed run is removed with all it has; 0: kept for ever."""
    audit_retention_days: int = Field(default=0, ge=0)
    """After how many days, of UTC, an entry of the audit log is removed; 0: kept for ever."""
    keep_deployments: int = Field(default=10, ge=1)
    """How many of a project's newest ready deployments keep image and source, besides those that are in use."""
    build_cache_days: int = Field(default=14, ge=0)
    """How long dependency images that no deployment needs, and packages of idle projects, wait for another build; 0: for ever."""
    max_source_bytes: int = 200 * 1024 * 1024
    """Largest upload, compressed; unpacked at most ten times that."""
    max_input_bytes: int = 1024 * 1024
    spare_containers: int = Field(default=1, ge=0)
    """Containers that are started ahead and wait, for each deployment in use; with any, one for its next build as well."""
    spare_seconds: int = Field(default=600, ge=1)
    """How long they stay after the deployment was last used."""
    network: str = Field(default="crewship0", max_length=15)
    """Bridge that runs are attached to; the name of its interface too, so the kernel's limit holds."""
    network_guard: Literal["required", "off"] = "required"
    """Whether containers are let onto the bridge only while a guard keeps them from the host and private networks."""
    network_guard_socket: Path | None = None
    """Where the guard tells how it is; None: ``<data_dir>/netguard.sock``."""
    network_proxy_socket: Path | None = None
    """Where the proxy of runs with ``[network] allow`` is told who may reach what; None: ``<data_dir>/egress.sock``."""
    network_reach: str = ""
    """Comma-separated private addresses and networks, each with an optional ``:port``, that runs and builds may reach."""
    network_dns: str = ""
    """Comma-separated addresses of the servers that runs and builds ask for names; empty: those of the host."""
    runtime: str = ""
    """The engine's runtime that runs are started by, such as ``runsc`` (gVisor); empty: its default."""

    @field_validator("network_reach")
    @classmethod
    def _reach(cls, value: str) -> str:
        parse_reach(value)
        return value

    @field_validator("network_dns")
    @classmethod
    def _addresses(cls, value: str) -> str:
        parse_addresses(value)
        return value

    @field_validator("memory", "disk", "max_memory", "max_disk", "max_log")
    @classmethod
    def _sizes(cls, value: str) -> str:
        size_bytes(value)
        return value

    @cached_property
    def database(self) -> str:
        """The database's URL with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir / 'crewship.db'}"

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a file of this machine; one on a server makes the installation a production one."""
        return self.database.startswith("sqlite")

    @cached_property
    def objects(self) -> str:
        """The object store's URL with the default filled in."""
        return self.object_store or f"file://{self.data_dir / 'objects'}"

    @cached_property
    def tail_url(self) -> str:
        """The tail's URL with the default filled in."""
        return self.tail or f"unix://{self.data_dir / 'tail.sock'}"

    @cached_property
    def secret_key_path(self) -> Path:
        """Where the keys that seal env values are, unless ``secret_key`` has them."""
        return self.secret_key_file or self.data_dir / "secret.key"

    @cached_property
    def guard_socket(self) -> Path:
        """Where the network guard is heard."""
        return self.network_guard_socket or self.data_dir / "netguard.sock"

    @cached_property
    def guard_options(self) -> GuardOptions:
        """What a network guard of this installation guards."""
        dns, reach = parse_addresses(self.network_dns), parse_reach(self.network_reach)
        return GuardOptions(self.network, self.guard_socket, dns, reach)

    @cached_property
    def egress_options(self) -> EgressOptions:
        """What an egress proxy of this installation is."""
        guard = self.guard_options
        return EgressOptions(self.network, self.egress_socket, guard.dns, guard.reach)

    @cached_property
    def egress_socket(self) -> Path:
        """Where the egress proxy listens to the worker."""
        return self.network_proxy_socket or self.data_dir / "egress.sock"

    @cached_property
    def closed_network(self) -> str:
        """The bridge of runs that may reach named hosts alone."""
        return closed_bridge(self.network)

    @cached_property
    def cors_origin_list(self) -> list[str]:
        """``cors_origins`` as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
