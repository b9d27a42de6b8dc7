"""Is it alive, is it ready, and how much is it doing."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from sqlmodel import func, select

from api.auth import RequireUnlessOpen
from api.document import METRICS
from api.problems import problem
from api.state import PlatformDep
from api.wire import Read
from crewship import db
from crewship.errors import CrewshipError, Unavailable
from crewship.hosts import require_any_engine, require_networks
from crewship.models import Run

router = APIRouter(tags=["health"])

_CHECK_SECONDS = 5.0


class Liveness(Read):
    status: str = "ok"


class Dependency(Read):
    """One thing the platform needs. Without a ``required`` one the API cannot do its work. One that is ``ok`` and has a
    ``detail`` is less strict than it would be by default, and the detail says by which setting."""

    name: str
    ok: bool
    required: bool
    detail: str | None
    hint: str | None
    latency_ms: int


class Readiness(Read):
    ready: bool
    dependencies: list[Dependency]


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def get_liveness() -> Liveness:
    """Say that the process answers."""
    return Liveness()


@router.head("/readyz", include_in_schema=False, response_model=None)
@router.get("/readyz", response_model=Readiness)
async def get_readiness(request: Request, platform: PlatformDep) -> Readiness | Response:
    """Check every dependency, each with a row; 503 when a required one is down."""

    async def check_worker() -> None:
        if await platform.dispatch.workers() == 0:
            raise Unavailable("No worker asks for work: runs and deployments wait", hint="start the worker process")

    async def check_store() -> None:
        await platform.make_store()
        await platform.with_store(lambda store: store.check())

    rows = await asyncio.gather(
        _check("database", platform.transact(lambda session: db.check(platform.database))),
        _check("object_store", check_store()),
        _check("temporal", platform.dispatch.check()),
        _check("container_engine", platform.transact(require_any_engine), required=False),
        _check("network", platform.transact(require_networks), required=False),
        _check("worker", check_worker(), required=False),
    )
    down = [row for row in rows if row.required and not row.ok]
    if not down:
        return Readiness(ready=True, dependencies=rows)
    return problem(
        request, 503, title=Unavailable.title, code=Unavailable.default_code,
        detail="; ".join(f"{row.name}: {row.detail}" for row in down), hint="crewship doctor", ready=False,
        dependencies=[row.model_dump() for row in rows],
    )  # fmt: skip


async def _check(name: str, call: Awaitable[str | None], *, required: bool = True) -> Dependency:
    """``call`` raises when it is down; what it gives is worth telling."""
    began = time.perf_counter()
    ok, detail, hint = False, None, None
    try:
        detail = await asyncio.wait_for(call, _CHECK_SECONDS)
        ok = True
    except CrewshipError as error:
        detail, hint = error.detail, error.hint
    except TimeoutError:
        detail, hint = f"no answer within {_CHECK_SECONDS:.0f} s", "crewship doctor"
    return Dependency(
        name=name, ok=ok, required=required, detail=detail, hint=hint,
        latency_ms=round((time.perf_counter() - began) * 1000),
    )  # fmt: skip


@router.get("/metrics", response_class=Response, responses=METRICS)
async def get_metrics(platform: PlatformDep, _: Annotated[None, Depends(RequireUnlessOpen("read"))]) -> Response:
    """Give the metrics in Prometheus' text format."""
    metrics = platform.metrics
    counts = await platform.transact(
        lambda session: session.exec(select(Run.status, func.count()).group_by(Run.status)).all()
    )
    for status in ("pending", "running", "succeeded", "failed", "canceled"):
        metrics.runs.labels(status).set(dict(counts).get(status, 0))
    metrics.feeds.set(len(platform.feeds))
    metrics.blocks.set(platform.feeds.blocks.size_bytes)
    return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
