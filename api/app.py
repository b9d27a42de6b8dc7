"""The HTTP API: a factory that is given settings, and in tests the parts that can be faulty.

``api.routes`` has a file for each noun, ``api.state`` what they work with, ``api.feed`` the live logs, ``api.problems`` the one
shape of errors. Nothing is opened before the lifespan begins.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version

from anyio.to_thread import run_sync
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from sqlalchemy.engine import Engine
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from api import document, problems
from api.dispatch import Dispatch, TemporalDispatch
from api.feed import LogState
from api.feeds import Feeds
from api.headers import AnswerHeaders
from api.limits import BodyLimit
from api.metrics import Metrics, RequestMetrics
from api.quotas import GuessGuard, Rates, RequestQuotas
from api.routes import (
    activations,
    artifacts,
    audit,
    build_secrets,
    contents,
    deployments,
    env,
    events,
    gc,
    health,
    keys,
    projects,
    runs,
    samples,
    uploads,
)
from api.state import Platform, State, read_log_state
from api.tokens import StreamTokens
from crewship import db, temporal
from crewship.errors import Unavailable
from crewship.keyring import open_keyring
from crewship.keys import store_first_key
from crewship.settings import Settings
from crewship.storage import ObjectStore
from crewship.stores import open_store
from crewship.tail import TailSubscriber
from crewship.tails import open_subscriber

_ERRORS = {
    "4XX": {"model": problems.Problem, "description": "Refused", "content": {"application/problem+json": {}}},
    "422": {"model": problems.ValidationProblem, "description": "Invalid", "content": {"application/problem+json": {}}},
    "503": {"model": problems.Problem, "description": "Down", "content": {"application/problem+json": {}}},
}


def create_app(
    settings: Settings,
    *,
    dispatch: Dispatch | None = None,
    store: ObjectStore | None = None,
    tail: TailSubscriber | None = None,
    on_start: Callable[[Platform], None] | None = None,
) -> FastAPI:
    """The application.

    Args:
        settings: The process's settings.
        dispatch: Calls to the workflow engine; None: Temporal, by the settings.
        store: Object store; None: by the settings.
        tail: Hints about live logs; None: by the settings.
        on_start: Told the platform when the lifespan has begun, for a composition root that must end its streams.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            database = db.open_database(settings.database)
            stack.callback(database.dispose)
            await run_sync(_prepare, database, settings)
            objects = store or open_store(settings.objects)
            calls = dispatch or TemporalDispatch(await temporal.connect(settings))
            keyring = await run_sync(open_keyring, settings)

            async def read_state(workflow_id: str) -> LogState:
                return await platform.transact(lambda session: read_log_state(session, workflow_id))

            feeds = Feeds(
                query=calls.query_events, read_state=read_state, store=objects, tail=tail or open_subscriber(settings.tail_url)
            )  # fmt: skip
            platform = Platform(
                settings=settings, database=database, store=objects, dispatch=calls, feeds=feeds, sealer=keyring.sealer(),
                tokens=StreamTokens.derive(*keyring.secrets()), metrics=metrics,
                quotas=RequestQuotas(Rates(settings.rate_limit_per_minute)),
                guard=GuessGuard(Rates(settings.failed_auth_per_minute)),
            )  # fmt: skip
            with suppress(Unavailable):  # it may come later: readiness and uploads try again
                await platform.make_store()
            await feeds.start()
            stack.push_async_callback(feeds.stop)
            if on_start is not None:
                on_start(platform)
            yield State(platform=platform)

    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs/static",
        swagger_ui_parameters={"validatorUrl": None},  # or the page would have a badge made elsewhere of the document
        title="Crewship",
        version=version("crewship"),
        description="Deploys Python agent crews and runs each invocation in a container of its own.",
        lifespan=lifespan,
        redirect_slashes=False,  # the Location would be made of the Host header
        responses=_ERRORS,
        generate_unique_id_function=_operation_id,
        middleware=_middleware(settings, metrics),
    )
    # Around everything, so that answers to unforeseen errors have them too, which are made outside of all other middleware.
    build_stack = app.build_middleware_stack
    app.build_middleware_stack = lambda: AnswerHeaders(build_stack())  # type: ignore[method-assign]
    problems.install(app)
    document.install(app)
    app.include_router(health.router)
    for routes in (
        projects, env, build_secrets, uploads, deployments, contents, activations, runs, samples, events, artifacts, gc, keys,
        audit,
    ):  # fmt: skip
        app.include_router(routes.router, prefix="/v1")
    return app


def _prepare(database: Engine, settings: Settings) -> None:
    db.migrate(database)
    if settings.bootstrap_admin_key:
        with db.session(database) as session:
            store_first_key(session, settings.bootstrap_admin_key)


def _middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    stack = [
        Middleware(RequestMetrics, metrics=metrics),
        Middleware(BodyLimit, body_bytes=settings.max_input_bytes, upload_bytes=settings.max_source_bytes),
    ]
    if settings.cors_origin_list:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin_list,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Range"],
            expose_headers=[
                "Content-Disposition",
                "Content-Range",
                "ETag",
                "Idempotent-Replayed",
                "Location",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
            ],
            max_age=3600,
        )
        stack.insert(1, cors)
    return stack


def _operation_id(route: APIRoute) -> str:
    return route.name
