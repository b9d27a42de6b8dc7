"""An API that answers on a socket whatever is thrown at it: SQLite, a folder, and a workflow engine that ends all at once.

What is started has ended when its answer is sent, so that no stream and no ``wait`` holds a test, and every route has
something to find: a project, deployments, runs with logs, artifacts and samples.
"""

import asyncio
import contextlib
import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from crewship import contents, db
from crewship.clock import now
from crewship.contracts import DeployInput, ProjectRef, RunInput
from crewship.folder_storage import FolderStore
from crewship.models import Activation, ApiKey, Artifact, Deployment, Host, Project, Run, Upload
from crewship.objects import source_key
from crewship.settings import Settings
from crewship.source import SourceFile
from crewship.system_packages import SystemPackages
from tests.api.conftest import ADMIN_KEY, FakeDispatch, serving
from tests.api.logs import MemoryTail, ScriptedLog

RUNS = ("run_failed", "run_succeeded", "run_waiting")
DEPLOYMENTS = ("dep_current", "dep_failed", "dep_old")
KEYS = ("key_one", "key_two")
PROJECTS = ("crew", "empty")
UPLOADING = b"parts of this come in time"
UPLOADS = (hashlib.sha256(UPLOADING).hexdigest(), "0" * 64)
PARTS = ("0", "1")
ARTIFACTS = ("report.md", "folder/ünïcode 名 \n.bin")


class EndingDispatch(FakeDispatch):
    """Whatever is started ends at once."""

    def __init__(self, settings: Settings, store: FolderStore) -> None:
        super().__init__()
        self._settings, self._store = settings, store

    async def start_run(self, run: RunInput) -> None:
        await super().start_run(run)
        await asyncio.to_thread(self.close, "run", run.run_id, "succeeded")

    async def start_deploy(self, deploy: DeployInput) -> None:
        await super().start_deploy(deploy)
        await asyncio.to_thread(self.close, "deploy", deploy.deployment_id, "ready")

    async def start_project_deletion(self, project: ProjectRef) -> None:
        """A deletion that is over at once, and after which there is a project of that name again."""
        await super().start_project_deletion(project)

        def give_back() -> None:
            with self._session() as session:
                row = session.get_one(Project, project.project)
                row.deleting = False
                session.add(row)

        await asyncio.to_thread(give_back)

    async def cancel_run(self, run_id: str, force: bool) -> None:
        self.cancels.append((run_id, force))
        await asyncio.to_thread(self.close, "run", run_id, "canceled")

    def close(self, kind: str, name: str, status: str) -> None:
        """Write a short log of it, archived, and end it."""
        log = ScriptedLog(f"{kind}-{name}", self._store, MemoryTail())
        log.write("one", "two")
        log.write(status, type="run.completed" if kind == "run" else "deployment.ready")
        last_seq = log.archive()
        with self._session() as session:
            row = session.get_one(Run if kind == "run" else Deployment, name)
            row.last_seq, row.status = last_seq, status
            session.add(row)

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        engine = db.open_database(self._settings.database)
        try:
            with db.session(engine) as session:
                yield session
        finally:
            engine.dispose()


@dataclass(frozen=True)
class Target:
    """Where the API is, and who may call it."""

    url: str
    key: str


@contextlib.contextmanager
def target(folder: Path) -> Iterator[Target]:
    """The API in a thread of its own, with something of everything in it."""
    # Limits of requests would end the test: they are off where the platform has them.
    unlimited = {"rate_limit_per_minute": 0, "failed_auth_per_minute": 0}
    settings = Settings(
        **unlimited,
        data_dir=folder, bootstrap_admin_key=ADMIN_KEY, host="here", tail="off", cors_origins="",
        max_input_bytes=100_000, max_source_bytes=1_000_000, run_capacity=2,
    )  # fmt: skip
    store = FolderStore(folder / "objects")
    dispatch = EndingDispatch(settings, store)
    started, stop = threading.Event(), asyncio.Event()
    found: list[str] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with serving(settings, dispatch=dispatch, store=store, tail=MemoryTail()) as (url, _):
            await asyncio.to_thread(_fill, settings, store, dispatch)
            found.append(url)
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            started.set()

    thread = threading.Thread(target=run, name="api")
    thread.start()
    try:
        started.wait()
        assert found, "the API did not start"
        yield Target(found[0], ADMIN_KEY)
    finally:
        if found:
            loops[0].call_soon_threadsafe(stop.set)
        thread.join()


def _fill(settings: Settings, store: FolderStore, dispatch: EndingDispatch) -> None:
    config = {"framework": "python", "entrypoint": "main:kickoff"}
    store.create()
    engine = db.open_database(settings.database)
    try:
        with db.session(engine) as session:
            session.add(Host(name="here"))
            session.add_all(ApiKey(id=name, name=name, prefix=name, hash=name, scopes=["read"]) for name in KEYS)
            session.add(Project(name="crew", current_deployment_id="dep_current"))
            session.add(Project(name="empty"))
            session.add_all(
                Upload(project=name, source_sha256=UPLOADS[0], size_bytes=len(UPLOADING)) for name in PROJECTS
            )
            session.flush()
            for name in DEPLOYMENTS:
                session.add(
                    Deployment(
                        id=name,
                        project="crew",
                        status="ready",
                        host="here",
                        source_key=source_key("s"),
                        source_sha256="s",
                        config=config,
                    )
                )
            session.add(Activation(project="crew", deployment_id="dep_current", previous_deployment_id="dep_old"))
            session.flush()
            for name in RUNS:
                session.add(
                    Run(id=name, project="crew", deployment_id="dep_current", timeout_seconds=60, env_version=0)
                )
            session.flush()
            for number, name in enumerate(ARTIFACTS):
                data = f"content of {name!r}\n".encode() * 100
                store.put(f"artifacts/{number}", io.BytesIO(data))
                session.add_all(
                    Artifact(
                        run_id=run_id,
                        name=name,
                        size_bytes=len(data),
                        content_type="text/markdown",
                        sha256=hashlib.sha256(data).hexdigest(),
                        key=f"artifacts/{number}",
                    )
                    for run_id in RUNS
                )
        for name in DEPLOYMENTS:
            contents.keep_files(store, name, {f"{name}.py": SourceFile("1" * 64, 10, False)})
            contents.keep_build(store, name, _build(name))
        for name, status in zip(DEPLOYMENTS, ("ready", "failed", "ready"), strict=True):
            dispatch.close("deploy", name, status)
        for name, status in zip(RUNS, ("failed", "succeeded", "canceled"), strict=True):
            dispatch.close("run", name, status)
        with db.session(engine) as session:
            run = session.get_one(Run, "run_failed")
            run.error = {"code": "user_error", "message": "no", "hint": None, "traceback": "…"}
            run.started_at = run.completed_at = now()
            session.add(run)
    finally:
        engine.dispose()


def _build(name: str) -> contents.Build:
    lock = f"{name}==1.0\nhttpx==0.28.1\n"
    return contents.Build("crewship/base:py3.11", f"sha256:{'0' * 64}", "3.11.2", lock, SystemPackages.parse(b"", b""))
