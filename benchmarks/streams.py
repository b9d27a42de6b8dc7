"""The baseline for one event's latency: ``temporalio.contrib.workflow_streams``, end to end, on the same server."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.worker import Worker

QUEUE = "workflow-streams-baseline"


@dataclass
class Emit:
    events: int
    interval_seconds: float


@workflow.defn
class StreamWorkflow:
    @workflow.init
    def __init__(self, emit: Emit) -> None:
        self.stream = WorkflowStream()
        self.read = False

    @workflow.signal
    def done(self) -> None:
        self.read = True

    @workflow.run
    async def run(self, emit: Emit) -> None:
        await workflow.execute_activity(publish, emit, start_to_close_timeout=timedelta(minutes=10))
        await workflow.wait_condition(lambda: self.read)


@activity.defn
async def publish(emit: Emit) -> None:
    """One event at a time, each flushed at once: what a single event takes at best."""
    async with WorkflowStreamClient.from_within_activity() as client:
        topic = client.topic("events")
        for _ in range(emit.events):
            topic.publish(time.time(), force_flush=True)
            await asyncio.sleep(emit.interval_seconds)


def latencies(address: str, events: int, interval_seconds: float, cooldown_seconds: float) -> list[float]:
    """Seconds from publish to the subscriber, event by event."""
    return asyncio.run(_latencies(address, Emit(events, interval_seconds), cooldown_seconds))


def cost(address: str, workflow_id: str) -> tuple[int, int]:
    """A workflow's signals, and the bytes of its history."""
    return asyncio.run(_cost(address, workflow_id))


async def _cost(address: str, workflow_id: str) -> tuple[int, int]:
    client = await Client.connect(address)
    handle = client.get_workflow_handle(workflow_id)
    described = await handle.describe()
    signaled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    signals = len([event async for event in handle.fetch_history_events() if event.event_type == signaled])
    return signals, described.raw_description.workflow_execution_info.history_size_bytes


async def _latencies(address: str, emit: Emit, cooldown_seconds: float) -> list[float]:
    client = await Client.connect(address)
    samples: list[float] = []
    async with Worker(client, task_queue=QUEUE, workflows=[StreamWorkflow], activities=[publish]):
        workflow_id = f"stream-{time.time_ns()}"
        handle = await client.start_workflow(StreamWorkflow.run, emit, id=workflow_id, task_queue=QUEUE)
        stream = WorkflowStreamClient.create(client, workflow_id)
        async for item in stream.subscribe(
            topics=["events"], result_type=float, poll_cooldown=timedelta(seconds=cooldown_seconds)
        ):
            samples.append(time.time() - item.data)
            if len(samples) == emit.events:
                break
        await handle.signal(StreamWorkflow.done)
        await handle.result()
    return samples
