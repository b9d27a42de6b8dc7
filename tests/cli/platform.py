"""A platform in a thread that speaks the HTTP contract, for tests of the CLI over real connections.

Runs are scripted: a test says which events come, when the connection breaks, and what waits for whom. Nothing sleeps: what
has to wait is held by a ``threading.Event`` that the test or a request sets.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from crewship.events import GENESIS, TERMINAL, Draft, parse, render, seek
from crewship.redaction import is_redacted

KEY = "crewship_0123456789abcdefghijklmnop"
AT = "2026-01-31T09:05:00.000Z"


def at(milliseconds: int) -> str:
    """A time so long after the run's start."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"2026-01-31T09:{5 + seconds // 60:02d}:{seconds % 60:02d}.{milliseconds:03d}Z"


@dataclass
class Log:
    """Lines that a reader gets, in pieces: after each piece the connection is cut, but after the last."""

    lines: bytes = b""
    cuts: list[int] = field(default_factory=list)
    """Seqs after which the connection breaks, each once."""
    hold_after: int | None = None
    """Seq after which nothing more comes until ``released``."""
    released: threading.Event = field(default_factory=threading.Event)
    abandoned: bool = False
    """The test is over."""
    reads: list[int] = field(default_factory=list)
    """``after`` of each request."""

    def write(self, milliseconds: int, type_: str, **data: Any) -> None:
        events = list(parse(self.lines))
        seq, digest = (events[-1].seq, events[-1].hash) if events else (0, GENESIS)
        rendered, _, _ = render([Draft(at(milliseconds), type_, data)], seq + 1, digest)
        self.lines += rendered


class Platform:
    """State of the fake platform and its server."""

    def __init__(self) -> None:
        self.url = ""
        self.clear()

    def clear(self) -> None:
        """Forget everything; streams that are still open end."""
        for log in getattr(self, "logs", {}).values():
            log.abandoned = True
        self.projects: dict[str, dict[str, Any]] = {}
        self.env: dict[str, dict[str, str]] = {}
        self.build_secrets: dict[str, str] = {}
        self.deployments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, Log] = {}
        self.artifacts: dict[str, dict[str, bytes]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        """Method, path with query, and JSON body of each call."""
        self.uploads: list[tuple[str, bytes, str | None]] = []
        self.cancels: list[bool] = []
        """``force`` of each cancel."""
        self.sources: dict[str, bytes] = {}
        """Digest → archive that was sent before."""
        self.parts: dict[str, dict[int, bytes]] = {}
        """Digest → parts of an upload that was begun."""
        self.part_bytes = 1_000_000
        self.puts: list[int] = []
        """Number of each part that came."""
        self.unchanged: str | None = None
        """The deployment that any source is recognized as."""
        self.build_cancels: list[str] = []
        self.on_build_cancel: Any = None
        self.documents: dict[str, str] = {}
        """Path below a deployment → text."""
        self.diff: dict[str, Any] = {}
        self.next_cancels: list[list[str]] = []
        """Run ids that each bulk cancel answers with."""
        self.canceled = threading.Event()
        self.on_cancel: Any = None
        self.next_build: Log = built()
        self.next_deployment: dict[str, Any] = {"status": "ready", "error": None}
        self.next_run: dict[str, Any] = {}
        self.next_log: Log = Log()
        self.fail_next: list[Response] = []
        self.rollback_changed = True
        self.env_changes: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
        self.activations: list[dict[str, Any]] = []
        self.garbage: list[dict[str, Any]] = []
        """What retention does not keep; one goes with each call."""
        self.samples: list[dict[str, Any]] = []
        self.keys: list[dict[str, Any]] = []
        self.audit: list[dict[str, Any]] = []

    # --- what tests put in --------------------------------------------------------------------------------------------

    def add_project(self, name: str, current: str | None = None) -> None:
        self.projects[name] = {"name": name, "current_deployment_id": current, "created_at": AT}

    def add_run(self, run_id: str, log: Log | None = None, **fields: Any) -> dict[str, Any]:
        run = {
            "id": run_id, "project": "research-crew", "deployment_id": "dep_one", "status": "succeeded",
            "input": {}, "output": None, "error": None, "labels": {}, "created_at": AT, "started_at": AT,
            "completed_at": AT, "duration_ms": 4400, "waiting_for": None, "cancel": None, "usage": {}, "isolation": {},
            "events": {"last_seq": None}, "artifact_count": 0,
        } | fields  # fmt: skip
        self.runs[run_id] = run
        self.logs[run_id] = log or Log()
        return run

    def add_key(self, key_id: str, **fields: Any) -> dict[str, Any]:
        key = {
            "id": key_id, "prefix": "crewship_Jb3kTz9", "project": None, "created_at": AT, "expires_at": None,
            "last_used_at": None, "revoked_at": None, "status": "active",
        } | fields  # fmt: skip
        self.keys.append(key)
        return key

    def _switched(self, project: str, dep_id: str, with_env: bool) -> dict[str, Any]:
        env = {"version": 4, "deployment_version": 2, "restored": with_env, "changes": self.env_changes}
        return {
            "project": project, "deployment_id": dep_id, "previous_deployment_id": "dep_two", "duration_ms": 43,
            "changed": self.rollback_changed, "env": env if self.rollback_changed else None,
        }  # fmt: skip

    # --- server -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        config = uvicorn.Config(self.app(), host="127.0.0.1", port=0, log_level="critical", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        original = self._server.startup

        async def startup(*args: Any, **kwargs: Any) -> None:
            await original(*args, **kwargs)
            ready.set()

        self._server.startup = startup  # type: ignore[method-assign]
        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(20)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.clear()
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Any:
            try:
                body = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            is_json = "json" in request.headers.get("content-type", "")
            query = f"?{request.url.query}" if request.url.query else ""
            self.requests.append((request.method, request.url.path + query, json.loads(body) if is_json else None))
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return problem(401, "unauthorized", "the API key is not known")
            if self.fail_next:
                return self.fail_next.pop(0)
            return await call_next(request)

        @app.get("/v1/projects")
        def projects() -> Any:
            return {"projects": list(self.projects.values()), "next_cursor": None}

        @app.get("/v1/projects/{name}")
        def project(name: str) -> Any:
            return self.projects.get(name) or problem(404, "project_not_found", f"there is no project {name}")

        @app.delete("/v1/projects/{name}")
        def delete(name: str) -> Any:
            del self.projects[name]
            return Response(status_code=202)

        @app.get("/v1/projects/{name}/env")
        def env(name: str, version: int | None = None) -> Any:
            if name not in self.projects:
                return problem(404, "project_not_found", f"there is no project {name}")
            rows = [
                {
                    "name": key,
                    "updated_at": AT,
                    "secret": True,
                    "preview": f"{value[:2]}…",
                    "redacted": is_redacted(key, value),
                }
                for key, value in sorted(self.env.get(name, {}).items())
            ]
            return {"version": version if version is not None else 2, "current_version": 2, "env": rows}

        @app.patch("/v1/projects/{name}/env")
        async def patch_env(name: str, request: Request) -> Any:
            body = await request.json()
            self.add_project(name)
            values = self.env.setdefault(name, {})
            values |= body["set"]
            for key in body["unset"]:
                values.pop(key, None)
            shown = [key for key, value in sorted(body["set"].items()) if value and not is_redacted(key, value)]
            return {"version": 2, "shown": shown}

        @app.get("/v1/projects/{name}/build-secrets")
        def build_secrets(name: str) -> Any:
            return {"build_secrets": [{"name": key, "updated_at": AT} for key in sorted(self.build_secrets)]}

        @app.patch("/v1/projects/{name}/build-secrets")
        async def patch_build_secrets(name: str, request: Request) -> Any:
            body = await request.json()
            self.build_secrets |= body["set"]
            for key in body["unset"]:
                self.build_secrets.pop(key, None)
            return build_secrets(name)

        @app.post("/v1/projects/{name}/deployments", status_code=202)
        async def deploy(name: str, request: Request) -> Any:
            async with request.form() as form:
                table = str(form["name"]) if "name" in form else None
                source: Any = form.get("source")
                digest = str(form.get("source_sha256"))
                content = self.sources.get(digest) if source is None else await source.read()
            if source is None and content is None and digest in self.parts:
                there = b"".join(part for _, part in sorted(self.parts[digest].items()))
                if hashlib.sha256(there).hexdigest() != digest:
                    return problem(409, "upload_incomplete", "parts are missing")
                content = there
            if content is None:
                return problem(404, "source_unknown", "the project has no such source")
            if source is None and self.unchanged is not None and "force" not in request.query_params:
                return JSONResponse(self.deployments[self.unchanged] | {"unchanged": True})
            self.uploads.append((name, content, table))
            dep_id = f"dep_new{len(self.uploads)}"
            activate = request.query_params.get("activate") != "false"
            final = {
                "id": dep_id, "project": name, "config": {"entrypoint": "main:kickoff", "framework": "python"},
                "image": "sha256:1", "source_sha256": "0" * 64, "created_at": AT, "ready_at": at(3200),
                "current": activate, **self.next_deployment,
            }  # fmt: skip
            self.deployments[dep_id] = final
            self.logs[dep_id] = self.next_build
            return final | {"status": "pending", "ready_at": None, "current": False, "error": None}

        @app.post("/v1/projects/{name}/uploads")
        async def begin(name: str, request: Request) -> Any:
            body = await request.json()
            there = self.parts.setdefault(body["source_sha256"], {})
            count = -(-body["size_bytes"] // self.part_bytes)
            return body | {
                "part_bytes": self.part_bytes,
                "missing": [number for number in range(count) if number not in there],
            }

        @app.put("/v1/projects/{name}/uploads/{digest}/parts/{number}")
        async def put(name: str, digest: str, number: int, request: Request) -> Any:
            if digest not in self.parts:
                return problem(404, "upload_not_found", "there is no such upload")
            self.parts[digest][number] = await request.body()
            self.puts.append(number)
            return Response(status_code=204)

        @app.get("/v1/projects/{name}/deployments")
        def deployments(name: str) -> Any:
            rows = [each for each in self.deployments.values() if each["project"] == name]
            if not rows and name not in self.projects:
                return problem(404, "project_not_found", f"there is no project {name}")
            return {"deployments": rows, "next_cursor": None}

        @app.get("/v1/deployments/{dep_id}")
        def deployment(dep_id: str) -> Any:
            return self.deployments.get(dep_id) or problem(404, "deployment_not_found", f"there is no {dep_id}")

        @app.get("/v1/deployments/{dep_id}/diff/{other}")
        def diff(dep_id: str, other: str) -> Any:
            return {"before": dep_id, "after": other} | self.diff

        @app.get("/v1/deployments/{dep_id}/lock")
        def lock(dep_id: str) -> Any:
            return Response(self.documents["lock"], media_type="text/plain")

        @app.get("/v1/deployments/{dep_id}/sbom")
        def sbom(dep_id: str) -> Any:
            return Response(self.documents["sbom"], media_type="application/vnd.cyclonedx+json")

        @app.post("/v1/deployments/{dep_id}/cancel", status_code=202)
        def cancel_build(dep_id: str) -> Any:
            self.build_cancels.append(dep_id)
            if self.on_build_cancel is not None:
                self.on_build_cancel(dep_id)
            return self.deployments[dep_id]

        @app.get("/v1/deployments/{dep_id}/events")
        def build_events(dep_id: str, after: int = 0) -> Any:
            return self._stream(self.logs[dep_id], after, None)

        @app.post("/v1/projects/{name}/rollback")
        async def rollback(name: str, request: Request) -> Any:
            body = await request.json()
            return self._switched(name, body.get("deployment_id") or "dep_one", bool(body.get("with_env")))

        @app.post("/v1/deployments/{dep_id}/promote")
        async def promote(dep_id: str, request: Request) -> Any:
            return self._switched("research-crew", dep_id, bool((await request.json()).get("with_env")))

        @app.get("/v1/projects/{name}/activations")
        def activations(name: str) -> Any:
            if name not in self.projects:
                return problem(404, "project_not_found", f"there is no project {name}")
            return {"activations": self.activations, "next_cursor": None}

        @app.post("/v1/runs", status_code=202)
        async def invoke(request: Request) -> Any:
            body = await request.json()
            name = body.get("project")
            if name is not None and name not in self.projects:
                return problem(404, "project_not_found", f"there is no project {name}")
            run_id = f"run_new{len(self.runs)}"
            fields = {"project": name or "research-crew", "input": body["input"]} | self.next_run
            run = self.add_run(run_id, self.next_log, **fields)
            return run | {"status": "pending", "output": None, "error": None, "duration_ms": None}

        @app.get("/v1/runs")
        def runs(project: str | None = None) -> Any:
            if project is not None and project not in self.projects:
                return problem(404, "project_not_found", f"there is no project {project}")
            return {"runs": list(self.runs.values()), "next_cursor": None}

        @app.get("/v1/runs/{run_id}")
        def run(run_id: str) -> Any:
            return self.runs.get(run_id) or problem(404, "run_not_found", f"there is no run {run_id}")

        @app.post("/v1/runs/cancel", status_code=202)
        async def cancel_many() -> Any:
            run_ids = self.next_cancels.pop(0)
            return {"requested": len(run_ids), "run_ids": run_ids, "more": bool(self.next_cancels)}

        @app.post("/v1/runs/{run_id}/cancel", status_code=202)
        async def cancel(run_id: str, request: Request) -> Any:
            force = bool((await request.json()).get("force"))
            self.cancels.append(force)
            if self.on_cancel is not None:
                self.on_cancel(run_id, force)
            return self.runs[run_id]

        @app.get("/v1/runs/{run_id}/events")
        def events(run_id: str, after: int = 0, types: str | None = None) -> Any:
            if run_id not in self.runs:
                return problem(404, "run_not_found", f"there is no run {run_id}")
            return self._stream(self.logs[run_id], after, types)

        @app.get("/v1/runs/{run_id}/artifacts")
        def artifacts(run_id: str) -> Any:
            rows = [
                {"name": name, "size": len(content), "content_type": "text/plain", "created_at": AT,
                 "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in self.artifacts.get(run_id, {}).items()
            ]  # fmt: skip
            return {"artifacts": rows}

        @app.get("/v1/runs/{run_id}/artifacts/{name:path}")
        def artifact(run_id: str, name: str) -> Any:
            return Response(self.artifacts[run_id][name], media_type="text/plain")

        @app.get("/v1/runs/{run_id}/samples")
        def samples(run_id: str) -> Any:
            return {"interval_ms": 500, "samples": self.samples}

        @app.get("/v1/keys")
        def keys(include_revoked: bool = False) -> Any:
            return {"keys": [k for k in self.keys if include_revoked or not k["revoked_at"]], "next_cursor": None}

        @app.post("/v1/keys", status_code=201)
        async def create_key(request: Request) -> Any:
            made = await request.json()
            return self.add_key(f"key_{len(self.keys)}", **made) | {"key": "crewship_the-secret-of-the-new-one"}

        @app.get("/v1/keys/{key_id}")
        def key(key_id: str) -> Any:
            if key_id == "current":
                return self.add_key("key_own", name="laptop", scopes=["admin"])
            found = [item for item in self.keys if item["id"] == key_id]
            return found[0] if found else problem(404, "key_not_found", f"there is no key {key_id}")

        @app.delete("/v1/keys/{key_id}", status_code=204)
        def revoke(key_id: str) -> None:
            for item in self.keys:
                if item["id"] == key_id:
                    item |= {"revoked_at": AT, "status": "revoked"}

        @app.get("/v1/audit")
        def audit() -> Any:
            return {"audit": self.audit, "next_cursor": None}

        @app.post("/v1/gc")
        def gc(dry_run: bool = False) -> Any:
            shown = self.garbage if dry_run else self.garbage[:1]
            self.garbage = self.garbage if dry_run else self.garbage[1:]
            return {
                "dry_run": dry_run, "removals": shown, "bytes": sum(item["bytes"] or 0 for item in shown),
                "more": bool(self.garbage) and not dry_run, "unreachable_hosts": ["there"],
            }  # fmt: skip

        return app

    def _stream(self, log: Log, after: int, types: str | None) -> Any:
        log.reads.append(after)
        last = list(parse(log.lines))[-1] if log.lines else None
        if last is not None and last.seq == after and last.type in TERMINAL:
            return Response(status_code=204)

        async def body() -> AsyncIterator[bytes]:
            seen = after
            yield b"\n"  # a heartbeat
            while not log.abandoned:
                wanted = frozenset(types.split(",")) if types else None
                for event, line in zip(parse(log.lines), log.lines.splitlines(keepends=True), strict=True):
                    if event.seq <= seen:
                        continue
                    if log.hold_after is not None and event.seq > log.hold_after and not log.released.is_set():
                        break
                    seen = event.seq
                    if seek(line, after, wanted):
                        yield line
                    if event.seq in log.cuts:
                        log.cuts.remove(event.seq)
                        raise ConnectionResetError("cut by the test")
                    if event.type in TERMINAL:
                        return
                await asyncio.sleep(0.02)

        return StreamingResponse(body(), media_type="application/x-ndjson")


def problem(status: int, code: str, detail: str, **more: Any) -> JSONResponse:
    body = {"type": f"about:{code}", "title": code, "status": status, "detail": detail, "code": code, "hint": None}
    return JSONResponse(body | more, status, media_type="application/problem+json")


def built() -> Log:
    """A build that works."""
    log = Log()
    log.write(0, "build.started", deployment_id="dep_new1")
    step(log, 100, "dependencies", "started")
    log.write(900, "log", message="resolved 3 packages", level="info", stream="stderr")
    step(log, 2000, "dependencies", "completed", duration_ms=1900, cached=False)
    step(log, 2000, "image", "started")
    step(log, 2100, "image", "completed", duration_ms=100, cached=True)
    log.write(3000, "build.completed", duration_ms=3000)
    log.write(3000, "deployment.activated", deployment_id="dep_new1")
    log.write(3000, "deployment.ready", deployment_id="dep_new1")
    return log


def step(log: Log, milliseconds: int, name: str, status: str, **data: Any) -> None:
    log.write(milliseconds, "log", message=name, level="info", stream="stdout", step=name, status=status, **data)


def crew_log() -> Log:
    """A run with one of everything."""
    log = Log()
    log.write(0, "run.started", deployment_id="dep_one")
    log.write(100, "task.started", task="Research quantum computing")
    log.write(110, "agent.started", agent="Researcher", task="Research quantum computing")
    log.write(200, "llm.called", agent="Researcher", model="gpt-4o-mini")
    log.write(
        2100, "llm.completed", agent="Researcher", model="gpt-4o-mini", input_tokens=812, output_tokens=214, ms=1900
    )
    log.write(2200, "tool.called", agent="Researcher", tool="web_search", input={"query": "qubits"})
    log.write(2300, "log", message="\x1b[2J\x1b[31mred\x1b[0m line", level="info", stream="stdout")
    log.write(3400, "tool.result", agent="Researcher", tool="web_search", output="3 pages", ms=1200)
    log.write(3500, "log", message="careful", level="warning", stream="stderr")
    log.write(3600, "artifact", name="notes.md", size=1234, content_type="text/markdown")
    log.write(3700, "agent.completed", agent="Researcher", task="Research quantum computing", output="done")
    log.write(3710, "task.completed", task="Research quantum computing", ms=3610)
    log.write(3800, "artifact", name="notes.md", size=1234, content_type="text/markdown")
    log.write(4400, "run.completed", duration_ms=4400)
    return log
