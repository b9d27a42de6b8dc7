"""``crewship.toml``: what a project asks for, checked before anything is built.

The CLI reads it before it packs and the API reads it again from the upload, by the same code, so both say the same. A mistake
is an ``InvalidConfig`` that names the table, the key and, where it can be found (``crewship.toml_text``), the line.

A file has one ``[deployment]`` or several ``[deployments.<name>]``; ``[build]``, ``[run]`` and ``[network]`` hold for all of
them, and a named deployment may have its own (``[deployments.<name>.run]``), which goes over the shared one key by key.
"""

import keyword
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from crewship import sizes
from crewship.config_file import FILE_NAME, OPTIONS, Chosen, choose, nearest, normalized_name
from crewship.errors import InvalidConfig
from crewship.toml_text import at, kind

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SIZE_DIGITS = 15
"""More than any machine has in bytes; hundreds of them would be an infinity."""
_SIZE_FACTOR = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MIN_BYTES = {
    "memory": 32 << 20,  # the runner and a bare interpreter take 20 MiB
    "disk": 16 << 20,  # the project's own files are in it
    "log": 1 << 10,
}

_DEPENDENCY_FILES = ("pyproject.toml", "uv.lock", "poetry.lock", "pylock.toml")

_SIZE_HINT = 'Write it as a string with a unit: {key} = "512m" or "2g".'
_ENTRYPOINT_HINT = 'Write it as "module.path:attribute", for example "src.my_crew.crew:MyCrew".'


class _Table(BaseModel):
    """A table of the file.

    Unknown keys are found before (:func:`_refuse_unknown`), so that stored configs may be newer than their reader.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class BuildConfig(_Table):
    """``[build]``."""

    exclude: list[str] = Field(default_factory=list)
    """Files that are not uploaded, in gitignore syntax."""
    smoke: bool = True
    """Whether the entrypoint is imported once before a deployment is ready."""
    apt: list[str] = Field(default_factory=list)
    """System packages to install into the image."""
    extras: list[str] = Field(default_factory=list)
    """Optional dependencies of pyproject.toml to install too."""
    requirements: str | None = None
    """The file with the dependencies, relative to the project's root; None: the first of those that are looked for there."""

    @field_validator("apt")
    @classmethod
    def _package_names(cls, value: list[str]) -> list[str]:
        for name in value:
            # Nothing but a name: it becomes an argument of a command that runs as root in the build.
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
                raise _mistake(
                    f"{name!r} is not the name of a Debian package", 'Name packages only, for example apt = ["libpq5"].'
                )
        return value

    @field_validator("requirements")
    @classmethod
    def _file_in_the_project(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = value.split("/")
        if not value.isprintable() or "\\" in value or any(part in ("", ".", "..") for part in parts):
            raise _mistake(
                f"{value!r} is not the path of a file in the project",
                'For example requirements = "writer/requirements.txt".',
            )
        if not parts[-1].endswith((".txt", ".in")) and parts[-1] not in _DEPENDENCY_FILES:
            raise _mistake(
                f"{value!r} is no file that says what to install",
                f"It is a requirements file (.txt) or one of {', '.join(_DEPENDENCY_FILES)}.",
            )
        return value

    @field_validator("extras")
    @classmethod
    def _extra_names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
                raise _mistake(
                    f"{name!r} is not the name of an extra", 'Name extras only, for example extras = ["web"].'
                )
        return value


class RunConfig(_Table):
    """``[run]``; None is the platform's default."""

    timeout_seconds: int | None = Field(default=None, ge=1)
    memory: str | None = None
    """As in the file; :func:`size_bytes` reads it, and ``disk`` and ``log``."""
    cpus: float | None = Field(default=None, gt=0, le=1024)
    pids: int | None = Field(default=None, ge=16)
    disk: str | None = None
    """What may be in ``/app``, the project's own files included."""
    log: str | None = None
    """What the crew may write to its standard streams."""
    retries: int | None = Field(default=None, ge=0, le=10)
    """How often a run is tried again that the crew itself made fail."""
    concurrency: int | None = Field(default=None, ge=1)
    """Runs of the project at once; further ones wait."""
    queue_timeout_seconds: int | None = Field(default=None, ge=1)
    """How long a run may wait for its start."""
    warm: int | None = Field(default=None, ge=0, le=64)
    """Containers to keep with the crew imported."""
    artifacts: list[str] = Field(default_factory=list)
    """Globs of files outside ``/app/artifacts`` that are collected too, relative to the project's root."""

    @field_validator("memory", "disk", "log", mode="before")
    @classmethod
    def _size(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            return None
        key = str(info.field_name)
        hint = _SIZE_HINT.format(key=key)
        if not isinstance(value, str):
            raise _mistake(f"{value!r} is not a size", hint)
        try:
            size = size_bytes(value)
        except ValueError as error:
            raise _mistake(str(error), hint) from None
        if size < _MIN_BYTES[key]:
            raise _mistake(f"{value!r} is less than {sizes.shown(_MIN_BYTES[key])}", hint)
        return value

    @field_validator("artifacts")
    @classmethod
    def _globs(cls, value: list[str]) -> list[str]:
        for glob in value:
            if not glob or glob.startswith(("/", "~")) or ".." in glob.split("/") or not glob.isprintable():
                hint = 'Globs are relative to the project\'s root, for example artifacts = ["report.md", "out/**"].'
                raise _mistake(f"{glob!r} is not a glob inside the project", hint)
        return value


def _not_a_host(entry: str) -> str | None:
    """Why an entry of ``[network] allow`` names no host; None when it does."""
    label = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
    name, colon, port = entry.partition(":")
    below = name.removeprefix("*.")
    if "://" in entry:
        return "it has a scheme"
    if "/" in entry:
        return "it has a path"
    if entry.count(":") > 1 or re.fullmatch(r"[0-9.]+", name):
        # An address has no name that TLS could be checked against, and whose it is tomorrow nobody knows.
        return "an address is no name"
    if below == "*":
        return "an open network needs no list"
    if "*" in below:
        return "the star stands before the first dot alone"
    if colon and not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 65536):
        return f"{port!r} is not a port"
    if len(below) > 253 or not re.fullmatch(rf"{label}(\.{label})*", below):
        return "letters, digits, hyphens and dots are in a name"
    return None


class NetworkConfig(_Table):
    """``[network]``: everything but the platform's own network (``open``), some hosts (``allow``) or nothing (``none``)."""

    mode: Literal["open", "allow", "none"] = "open"
    """Left out: ``allow`` when there is a list, ``open`` otherwise."""
    allow: list[str] = Field(default_factory=list)
    """Host names, ``*.example.com`` for all below one, each with an optional ``:port``."""

    @field_validator("allow")
    @classmethod
    def _hosts(cls, value: list[str]) -> list[str]:
        for host in value:
            if (reason := _not_a_host(host)) is not None:
                hint = (
                    'Name hosts without scheme and path, for example allow = ["api.openai.com", "*.example.com:8443"].'
                )
                raise _mistake(f"{host!r} is not a host: {reason}", hint)
        return value

    @model_validator(mode="before")
    @classmethod
    def _mode_by_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("mode") is None and value.get("allow"):
            return value | {"mode": "allow"}
        return value

    @model_validator(mode="after")
    def _list_by_mode(self) -> Self:
        if self.mode != "allow" and self.allow:
            raise _mistake(
                f'mode = "{self.mode}" does not go with a list of hosts', 'Leave mode out, or write mode = "allow".'
            )
        if self.mode == "allow" and not self.allow:
            raise _mistake('mode = "allow" needs the hosts', 'Add allow = ["api.openai.com"], or write mode = "none".')
        return self


class DeploymentConfig(_Table):
    """One deployment's part of the file. As JSON it is ``deployment.config``."""

    name: str | None = None
    """Project that the file itself names: by ``[deployments.<name>]`` or ``[project] name``."""
    framework: Literal["crewai", "langgraph", "python"]
    entrypoint: str
    """``module.path:attribute``."""
    python: str | None = None
    """``3.11``; None: by the project's other files, else the platform's default."""
    profile: str | None = None
    build: BuildConfig = Field(default_factory=BuildConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)

    @field_validator("entrypoint")
    @classmethod
    def _entrypoint_form(cls, value: str) -> str:
        module, colon, attribute = value.partition(":")
        names = [*module.split("."), *attribute.split(".")]
        if not colon or not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            raise _mistake(f"{value!r} is not an entrypoint", _entrypoint_hint(value))
        return value

    @field_validator("python", mode="before")
    @classmethod
    def _python_version(cls, value: object) -> object:
        if value is None or (isinstance(value, str) and re.fullmatch(r"3\.[0-9]{1,2}", value)):
            return value
        raise _mistake(
            f"{value!r} is not a Python version", 'Write major and minor version as a string: python = "3.11".'
        )

    @field_validator("profile")
    @classmethod
    def _profile_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", value):
            raise _mistake(f"{value!r} is not a profile's name", 'For example profile = "slim".')
        return value

    @property
    def module(self) -> str:
        """The entrypoint's module."""
        return self.entrypoint.partition(":")[0]


def load(text: str | bytes, name: str | None = None) -> DeploymentConfig:
    """The configuration of one deployment.

    Args:
        text: The file's content.
        name: Which ``[deployments.<name>]``; may be left out when there is only one, or a ``[deployment]``.

    Raises:
        InvalidConfig: anything is wrong with the file, or there is no such deployment.
    """
    chosen = choose(text, name)
    table = chosen.table
    for required, hint in (
        ("framework", 'For example framework = "crewai"; `crewship init` finds it.'),
        ("entrypoint", _ENTRYPOINT_HINT),
    ):
        if required not in table:
            raise InvalidConfig(f"{FILE_NAME}: [{'.'.join(chosen.path)}] has no {required}.", hint=hint)
    try:
        return DeploymentConfig(**table | {"name": None if chosen.project is None else normalized_name(chosen.project)})
    except ValidationError as error:
        raise _translated(error, chosen) from None


def size_bytes(size: str) -> int:
    """Bytes of ``"512m"``, ``"1g"``, ``"1.5GiB"``; units are powers of 1024, as container engines read them.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(size.strip())
    if match is None or len(match[1]) > _SIZE_DIGITS:
        raise ValueError(f"{size[:40]!r} is not a size")
    return int(float(match[1]) * _SIZE_FACTOR[match[2].lower()])


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _translated(error: ValidationError, chosen: Chosen) -> InvalidConfig:
    """pydantic's first finding in the file's words."""
    text, path = chosen.text, chosen.path
    first = error.errors(include_url=False)[0]
    location = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    if location and location[0] in OPTIONS:
        own: Any = chosen.document
        for key in (*path, *location):
            own = own.get(key) if isinstance(own, dict) else None
        # A named deployment's own table, when the value is from there; the shared one otherwise.
        location = location if own is None or len(path) == 1 else (*path, *location)
    else:
        location = (*path, *location)
    context = first.get("ctx", {})
    if first["type"] == "crewship":
        return InvalidConfig(at(FILE_NAME, text, location, context["mistake"]), hint=context["hint"])
    value = first["input"]
    match first["type"]:
        case "literal_error":
            allowed = re.findall(r"'([^']+)'", context["expected"])
            likely = nearest(str(value), allowed)
            hint = f'Did you mean "{likely}"?' if likely else f'Write it as {location[-1]} = "{allowed[0]}".'
            return InvalidConfig(
                at(FILE_NAME, text, location, f"{value!r} is not one of {context['expected']}"), hint=hint
            )
        case "string_type" | "int_type" | "float_type" | "bool_type" | "list_type":
            wanted, example = {
                "string_type": ("a string", '"text"'),
                "int_type": ("a whole number", "60"),
                "float_type": ("a number", "1.5"),
                "bool_type": ("true or false", "true"),
                "list_type": ("a list of strings", '["first", "second"]'),
            }[first["type"]]
            return InvalidConfig(
                at(FILE_NAME, text, location, f"{location[-1]} is {wanted}, not {kind(value)}"),
                hint=f"Write it as {location[-1]} = {example}.",
            )
        case _:
            return InvalidConfig(
                at(FILE_NAME, text, location, f"{value!r} will not do: {first['msg'][:1].lower()}{first['msg'][1:]}"),
                hint=f"Leave {location[-1]} out for the platform's default.",
            )


def _mistake(mistake: str, hint: str) -> PydanticCustomError:
    """A finding of a validator (a ValueError), with what the user can do."""
    return PydanticCustomError("crewship", "{mistake}", {"mistake": mistake, "hint": hint})


def _entrypoint_hint(value: str) -> str:
    """Propose what was probably meant: a path, or a dotted name without its colon."""
    module, colon, attribute = value.partition(":")
    if module.endswith(".py") or "/" in module:
        guess = f"{module.removesuffix('.py').strip('./').replace('/', '.')}:{attribute or 'kickoff'}"
    elif not colon and "." in module:
        guess = ":".join(module.rsplit(".", 1))
    else:
        return _ENTRYPOINT_HINT
    return f'Write it as "module.path:attribute", perhaps "{guess}".'
