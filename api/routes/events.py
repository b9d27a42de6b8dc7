"""Event streams of runs and deployments, and tokens for browsers to open them."""

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from api.auth import ReadCaller, StreamCaller
from api.document import EVENT_STREAM
from api.lookups import get_deployment, get_run
from api.state import PlatformDep
from api.streaming import StreamRequestDep, stream_log
from api.wire import Read, Time
from crewship.contracts import deploy_workflow_id, run_workflow_id

router = APIRouter(tags=["events"])


class StreamToken(Read):
    token: str
    expires_at: Time


@router.get("/runs/{run_id}/events", response_class=StreamingResponse, responses=EVENT_STREAM)
async def stream_run_events(
    run_id: str, wanted: StreamRequestDep, platform: PlatformDep, caller: StreamCaller
) -> Response:
    """Stream a run's events, as SSE or (by `Accept`) NDJSON; ends after the terminal event."""
    await platform.transact(lambda session: get_run(session, caller, run_id))
    return await stream_log(platform, run_workflow_id(run_id), wanted)


@router.get("/deployments/{deployment_id}/events", response_class=StreamingResponse, responses=EVENT_STREAM)
async def stream_deployment_events(
    deployment_id: str, wanted: StreamRequestDep, platform: PlatformDep, caller: ReadCaller
) -> Response:
    """Stream a deployment's build events; ends after `deployment.ready` or `deployment.failed`."""
    await platform.transact(lambda session: get_deployment(session, caller, deployment_id))
    return await stream_log(platform, deploy_workflow_id(deployment_id), wanted)


@router.post("/runs/{run_id}/stream-token", status_code=201)
async def create_stream_token(run_id: str, platform: PlatformDep, caller: ReadCaller) -> StreamToken:
    """Create a token for a browser's EventSource (`?token=`): this run's events only, for ten minutes."""
    await platform.transact(lambda session: get_run(session, caller, run_id))
    token, expires_at = platform.tokens.issue(run_id)
    return StreamToken(token=token, expires_at=expires_at)
