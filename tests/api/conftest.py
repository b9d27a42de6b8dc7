"""The API over SQLite and a folder, with the workflow engine and the tail played by the test."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from api.app import create_app
from api.state import Platform
from crewship import db
from crewship.contracts import (
    DeployInput,
    EventsPage,
    EventsQuery,
    GarbageInput,
    GarbageResult,
    ProjectRef,
    RecognizeInput,
    RollbackInput,
    RollbackResult,
    RunInput,
)
from crewship.errors import NotFound, Unavailable
from crewship.folder_storage import FolderStore
from crewship.models import Deployment, Project, Run
from crewship.settings import Settings
from tests.api.logs import MemoryTail, ScriptedLog

ADMIN_KEY = "crewship_test-admin-key-of-this-installation"


class FakeDispatch:
    """The workflow engine: notes what it was asked, has the logs it is given, and is down when ``down`` says so."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.runs: list[RunInput] = []
        self.admitted: list[RunInput] = []
        self.deploys: list[DeployInput] = []
        self.deletions: list[str] = []
        self.cancels: list[tuple[str, bool]] = []
        self.recognized: list[tuple[RecognizeInput, str]] = []
        self.is_same = True
        self.canceled_builds: list[str] = []
        self.rollbacks: list[tuple[RollbackInput, str]] = []
        self.queries = 0
        self.logs: dict[str, ScriptedLog] = {}
        self.rollback_result = RollbackResult(deployment_id="dep_1", previous_deployment_id="dep_2", changed=True)
        self.garbage: list[GarbageInput] = []
        self.garbage_result = GarbageResult(removals=[], more=False)
        self.worker_count = 1
        self.on_cancel: Callable[[str], None] | None = None
        self.on_rollback: Callable[[RollbackInput], RollbackResult] | None = None

    def _up(self, call: str) -> None:
        if call in self.down or "all" in self.down:
            raise Unavailable("The workflow engine (Temporal) cannot be reached", hint="crewship doctor")

    async def check(self) -> None:
        self._up("check")

    async def start_run(self, run: RunInput) -> None:
        self._up("start_run")
        self.runs.append(run)

    async def admit_run(self, run: RunInput) -> None:
        self._up("admit_run")
        self.admitted.append(run)

    async def start_deploy(self, deploy: DeployInput) -> None:
        self._up("start_deploy")
        self.deploys.append(deploy)

    async def start_project_deletion(self, project: ProjectRef) -> None:
        self._up("start_project_deletion")
        self.deletions.append(project.project)

    async def cancel_run(self, run_id: str, force: bool) -> None:
        self._up("cancel_run")
        if run_id not in [run.run_id for run in self.runs]:
            raise NotFound("No such workflow")
        self.cancels.append((run_id, force))
        if self.on_cancel is not None:
            self.on_cancel(run_id)

    async def rollback(self, rollback: RollbackInput, queue: str) -> RollbackResult:
        self._up("rollback")
        self.rollbacks.append((rollback, queue))
        return self.on_rollback(rollback) if self.on_rollback is not None else self.rollback_result

    async def recognize(self, asked: RecognizeInput, queue: str) -> bool:
        self._up("recognize")
        self.recognized.append((asked, queue))
        return self.is_same

    async def cancel_deploy(self, deployment_id: str) -> None:
        self._up("cancel_deploy")
        if deployment_id not in [deploy.deployment_id for deploy in self.deploys]:
            raise NotFound("No such workflow")
        self.canceled_builds.append(deployment_id)

    async def collect_garbage(self, garbage: GarbageInput) -> GarbageResult:
        self._up("collect_garbage")
        self.garbage.append(garbage)
        return self.garbage_result

    async def query_events(self, workflow_id: str, query: EventsQuery) -> EventsPage:
        self.queries += 1
        self._up("query_events")
        if workflow_id not in self.logs:
            raise NotFound("No such workflow")
        return self.logs[workflow_id].log.read(query)

    async def workers(self) -> int:
        self._up("workers")
        return self.worker_count


@dataclass
class Api:
    """A running API, and what is behind it."""

    http: httpx.AsyncClient
    platform: Platform
    dispatch: FakeDispatch
    store: FolderStore
    tail: MemoryTail
    settings: Settings

    def add(self, *rows: Any) -> None:
        """Store rows, in order."""
        with db.session(self.platform.database) as session:
            for row in rows:
                session.add(row)
                session.flush()

    def row(self, table: type[Any], key: Any) -> Any:
        with db.session(self.platform.database) as session:
            return session.get(table, key)

    def live_log(self, workflow_id: str) -> ScriptedLog:
        log = ScriptedLog(workflow_id, self.store, self.tail)
        self.dispatch.logs[workflow_id] = log
        return log

    def close_log(self, log: ScriptedLog, *, hint: bool = True, status: str = "succeeded") -> None:
        """As the platform ends a run: the archive, then the row, then the hint."""
        last_seq = log.archive()
        kind, _, resource = log.workflow_id.partition("-")
        with db.session(self.platform.database) as session:
            row = session.get_one(Run if kind == "run" else Deployment, resource)
            row.last_seq = last_seq
            row.status = status
            session.add(row)
        if hint:
            self.tail.send(log.workflow_id, b'{"closed":true}')


class QuietServer(uvicorn.Server):
    """Leaves the test process's signal handlers alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


_routes: list[Any] = []


def made(settings: Settings, **parts: Any) -> FastAPI:
    """An application with the routes of the first: they hold no state, and working them out takes longer than most tests."""
    app = create_app(settings, **parts)
    if not _routes:
        _routes.extend(app.router.routes)
    app.router.routes[:] = _routes
    return app


@contextlib.asynccontextmanager
async def serving(settings: Settings, **parts: Any) -> AsyncIterator[tuple[str, Platform]]:
    """Serve the API on a port of its own: its address and its platform."""
    started: list[Platform] = []
    app = made(settings, on_start=started.append, **parts)
    server = QuietServer(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", started[0]
    finally:
        for platform in started:
            platform.feeds.end_streams()
        server.should_exit = True
        await task


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database's file: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("database") / "crewship.db"
    engine = db.open_database(f"sqlite:///{file}")
    db.migrate(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return file


@pytest.fixture
def settings(tmp_path: Path, migrated_database: Path) -> Settings:
    shutil.copy(migrated_database, tmp_path / "crewship.db")
    return Settings(
        data_dir=tmp_path, bootstrap_admin_key=ADMIN_KEY, host="here", tail="off", cors_origins="https://app.example",
        max_input_bytes=100_000, max_source_bytes=1_000_000, run_capacity=2,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(settings: Settings, tmp_path: Path, *, served: bool) -> AsyncIterator[Api]:
    """The API with its fakes, on a port (``served``) or called directly, which is faster but cannot stream."""
    dispatch, store, tail = FakeDispatch(), FolderStore(tmp_path / "objects"), MemoryTail()
    async with contextlib.AsyncExitStack() as stack:
        url, transport = "http://crewship.example", None
        if served:
            url, platform = await stack.enter_async_context(
                serving(settings, dispatch=dispatch, store=store, tail=tail)
            )
        else:
            app = made(settings, dispatch=dispatch, store=store, tail=tail)
            state = await stack.enter_async_context(app.router.lifespan_context(app))
            assert state is not None
            platform = state["platform"]

            async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, "state": dict(state)}, receive, send)

            transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30, transport=transport
            )
        )
        yield Api(http, platform, dispatch, store, tail, settings)


@pytest.fixture
async def api(settings: Settings, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(settings, tmp_path, served=False) as api:
        yield api


@pytest.fixture
async def served(settings: Settings, tmp_path: Path) -> AsyncIterator[Api]:
    """On a real socket, with what ``ready`` has."""
    async with running(settings, tmp_path, served=True) as api:
        fill(api)
        yield api


@pytest.fixture
def ready(api: Api) -> Api:
    """With project ``crew`` and its two deployments, of which ``dep_1`` is current."""
    fill(api)
    return api


def fill(api: Api) -> None:
    config = {"framework": "python", "entrypoint": "main:kickoff"}
    api.add(
        Project(name="crew", current_deployment_id="dep_1"),
        *(
            Deployment(
                id=name, project="crew", status="ready", host="here", source_key="k", source_sha256="s", config=config
            )
            for name in ("dep_1", "dep_2")
        ),
    )


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The one shape of errors."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "instance", "code", "hint"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code), body
    assert body["instance"] == httpx.URL(str(response.request.url)).path
    assert body["detail"]
    return body
