"""Env vars of a project: set and unset, never read back. Each change makes a version, and a run keeps the one it began with."""

import re
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlmodel import Session, col, update

from api.auth import EnvCaller, ReadCaller
from api.lookups import check_project_name, get_project, require_live
from api.state import Platform, PlatformDep
from api.values import escaped
from api.wire import Body, Read, Time
from crewship import audit
from crewship.clock import now
from crewship.db import ensure_project, env_rows
from crewship.environment import next_version
from crewship.errors import NotFound, Unavailable, Unprocessable
from crewship.models import EnvVar, Project
from crewship.redaction import is_redacted

router = APIRouter(prefix="/projects/{project}/env", tags=["env"])

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_MAX_VALUE_BYTES = 64 * 1024
_MAX_VARS = 500
_NAMES = "names are letters, digits and underscores, and do not begin with a digit"


class EnvUpdate(Body):
    set: dict[str, str] = Field(default_factory=dict)
    unset: list[str] = Field(default_factory=list)


class EnvVersion(Read):
    """``shown`` names those of the variables just set that logs show as they are: what is short, common or no secret by its
    name is not redacted, for every line would be full of marks."""

    version: int
    shown: list[str]


class EnvVarRead(Read):
    """An env var without its value."""

    name: str
    updated_at: Time
    secret: bool = True
    preview: str
    redacted: bool | None
    """Whether logs, events and errors have a mark in its place; None: the value cannot be opened."""


class EnvPage(Read):
    version: int
    """Of these variables."""
    current_version: int
    """Of those that runs use that begin now."""
    env: list[EnvVarRead]


@router.get("")
async def list_env(
    project: str,
    platform: PlatformDep,
    caller: ReadCaller,
    version: Annotated[int | None, Query(ge=0, description="An earlier version; left out: the one in force")] = None,
) -> EnvPage:
    """List the env vars' names, as they are or as they were at a version.

    A key with the scope `env` sees how their values end.
    """

    may_see = "env" in caller.scopes

    def read(session: Session) -> EnvPage:
        current = get_project(session, caller, project).env_version
        wanted = current if version is None else version
        if wanted > current:
            raise NotFound(
                f"Project {project!r} has no version {wanted} of its env vars",
                code="env_version_not_found",
                hint=f"the one in force is {current}",
            )
        rows = sorted(env_rows(session, project, wanted).values(), key=lambda row: row.name)
        return EnvPage(
            version=wanted,
            current_version=current,
            env=[_shown(row, platform, may_see) for row in rows],
        )

    return await platform.transact(read)


@router.patch("")
async def update_env(project: str, body: EnvUpdate, platform: PlatformDep, caller: EnvCaller) -> EnvVersion:
    """Set and unset env vars, all or nothing; creates the project when it is missing."""
    check_project_name(project)
    caller.require_project(project)
    validate_update(body)
    sealed = {name: platform.sealer.seal(value, f"{project}/{name}") for name, value in body.set.items()}

    def apply(session: Session) -> int:
        require_live(ensure_project(session, project, caller.actor))
        if not sealed and not body.unset:
            return session.get_one(Project, project).env_version
        version = next_version(session, project)
        replaced = session.exec(
            update(EnvVar)
            .where(
                col(EnvVar.project) == project,
                col(EnvVar.until_version).is_(None),
                col(EnvVar.name).in_([*sealed, *body.unset]),
            )
            .values(until_version=version)
            .returning(col(EnvVar.name))
        ).scalars()
        audit.record(
            session,
            caller.actor,
            "env.changed",
            project=project,
            target=project,
            before={"version": int(version) - 1, "names": sorted(replaced)},
            after={"version": int(version), "set": sorted(sealed), "unset": sorted(set(body.unset))},
        )
        session.add_all(
            EnvVar(
                project=project,
                name=name,
                sealed=value,
                preview=preview(body.set[name]),
                since_version=version,
                updated_at=now(),
            )
            for name, value in sealed.items()
        )
        return version

    shown = [name for name, value in sorted(body.set.items()) if value and not is_redacted(name, value)]
    return EnvVersion(version=await platform.transact(apply), shown=shown)


def preview(value: str) -> str:
    """What a person may see of a value to tell it from another: its last four characters, if that is little of it."""
    return f"…{value[-4:]}" if len(value) >= 20 and value[-4:].isprintable() else "…"


def _shown(row: EnvVar, platform: Platform, may_see: bool) -> EnvVarRead:
    try:
        redacted = is_redacted(row.name, platform.sealer.open(row.sealed, f"{row.project}/{row.name}"))
    except Unavailable:
        redacted = None
    shown = row.preview if may_see else "…"
    return EnvVarRead(name=row.name, updated_at=row.updated_at, preview=shown, redacted=redacted)


def validate_update(body: EnvUpdate) -> None:
    """Raise ``Unprocessable`` when a name or a value will not do; points at each."""
    errors = []
    for name in [*body.set, *body.unset]:
        if not _NAME.fullmatch(name):
            errors.append(
                (f"/set/{escaped(name)}" if name in body.set else "/unset", f"{name!r} is not a name", _NAMES)
            )
    for name, value in body.set.items():
        if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > _MAX_VALUE_BYTES or not _is_text(value):
            detail = f"must be text of at most {_MAX_VALUE_BYTES // 1024} KiB without NUL"
            errors.append((f"/set/{escaped(name)}", detail, "encode other bytes, in base64 for example"))
        if name in body.unset:
            errors.append((f"/set/{escaped(name)}", "is set and unset at once", "leave it out of set or of unset"))
    if len(body.set) > _MAX_VARS:
        errors.append(("/set", f"has more than {_MAX_VARS} variables", "set them by several calls"))
    if errors:
        pointer, detail, hint = errors[0]
        raise Unprocessable(
            f"{pointer}: {detail}",
            errors=[{"pointer": place, "detail": text} for place, text, _ in errors],
            hint=hint,
        )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
