"""Projects: make, list, delete."""

from fastapi import APIRouter, Response
from sqlmodel import Session, col, func, select, update

from api.auth import AdminCaller, DeployCaller, ReadCaller
from api.lookups import check_project_name, get_project
from api.pages import CursorQuery, LimitQuery, cut, decode_cursor, encode_cursor
from api.state import PlatformDep
from api.wire import Body, Read, Time
from crewship import audit
from crewship.contracts import ProjectRef
from crewship.errors import Conflict, Unavailable
from crewship.models import Project, Run

router = APIRouter(prefix="/projects", tags=["projects"])


class ProjectCreate(Body):
    name: str


class ProjectRead(Read):
    name: str
    current_deployment_id: str | None
    env_version: int
    status: str
    """``active``, or ``deleting`` while everything it has is being removed."""
    created_at: Time

    @classmethod
    def of(cls, row: Project) -> "ProjectRead":
        return cls(
            name=row.name,
            current_deployment_id=row.current_deployment_id,
            env_version=row.env_version,
            status="deleting" if row.deleting else "active",
            created_at=row.created_at,
        )


class ProjectPage(Read):
    projects: list[ProjectRead]
    next_cursor: str | None


@router.post("", status_code=201)
async def create_project(
    body: ProjectCreate, platform: PlatformDep, caller: DeployCaller, response: Response
) -> ProjectRead:
    """Create a project."""
    name = check_project_name(body.name)
    caller.require_project(name)

    def create(session: Session) -> Project:
        if session.get(Project, name) is not None:
            raise Conflict(
                f"There is a project {name!r} already",
                code="project_exists",
                hint="deploy to it as it is, or take another name",
            )
        row = Project(name=name)
        session.add(row)
        audit.record(session, caller.actor, "project.created", project=name, target=name)
        return row

    row = await platform.transact(create)
    response.headers["Location"] = f"/v1/projects/{name}"
    return ProjectRead.of(row)


@router.get("")
async def list_projects(
    platform: PlatformDep, caller: ReadCaller, cursor: CursorQuery = None, limit: LimitQuery = 50
) -> ProjectPage:
    """List projects by name."""
    query = select(Project).order_by(col(Project.name)).limit(limit + 1)
    if cursor is not None:
        query = query.where(col(Project.name) > decode_cursor(cursor, 1)[0])
    if caller.project is not None:
        query = query.where(Project.name == caller.project)
    rows, more = cut(await platform.transact(lambda session: session.exec(query).all()), limit)
    return ProjectPage(
        projects=[ProjectRead.of(row) for row in rows], next_cursor=encode_cursor(rows[-1].name) if more else None
    )


@router.get("/{project}")
async def get_project_by_name(project: str, platform: PlatformDep, caller: ReadCaller) -> ProjectRead:
    """Get a project."""
    return ProjectRead.of(await platform.transact(lambda session: get_project(session, caller, project)))


@router.delete("/{project}", status_code=202)
async def delete_project(project: str, platform: PlatformDep, caller: AdminCaller, force: bool = False) -> ProjectRead:
    """Delete a project and everything it has: deployments, runs, logs, artifacts, env vars.

    It is refused while runs are active, unless `force`: then they are ended.
    """
    await platform.transact(lambda session: get_project(session, caller, project))
    await platform.dispatch.check()

    def mark(session: Session) -> tuple[Project, bool]:
        # The write comes first, so that a run that is being made at this moment is either counted or refused.
        before = session.exec(
            update(Project).where(col(Project.name) == project, col(Project.deleting).is_(False)).values(deleting=True)
        )
        row = get_project(session, caller, project)
        active = session.exec(
            select(func.count()).where(Run.project == project, col(Run.status).in_(["pending", "running"]))
        ).one()
        if active and not force and before.rowcount:
            raise Conflict(
                f"Project {project!r} has {active} active run{'s' if active > 1 else ''}",
                code="project_has_active_runs",
                hint="cancel them, or delete with force=true, which ends them",
            )
        session.refresh(row)
        if before.rowcount == 1:
            audit.record(
                session,
                caller.actor,
                "project.deleted",
                project=project,
                target=project,
                before={"current_deployment_id": row.current_deployment_id, "active_runs": active},
            )
        return row, before.rowcount == 1

    def undo(session: Session) -> None:
        session.exec(update(Project).where(col(Project.name) == project).values(deleting=False))
        audit.record(session, caller.actor, "project.withdrawn", project=project, target=project)

    row, ours = await platform.transact(mark)
    try:
        await platform.dispatch.start_project_deletion(ProjectRef(project=project))
    except Unavailable:
        if ours:
            await platform.transact(undo)
        raise
    return ProjectRead.of(row)
