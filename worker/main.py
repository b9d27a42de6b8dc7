"""The worker: binds adapters to activities and serves five task queues until it is told to stop.

* ``crewship``: workflows, and activities that touch records only;
* ``crewship-host-<host>``: what must happen on this container host and is short: stop, finish, sweep, switch;
* ``crewship-builds-<host>``: builds and smoke boots. Thirty of them keep no run from being stopped;
* ``crewship-runs-<host>``: ``run_container`` alone. Its slots are the host's capacity; what is too much waits in Temporal,
  where priority and fairness can order it;
* ``crewship-adopt-<host>``: ``run_container`` for containers that go on without a follower. They wait behind nobody.

On SIGTERM it takes no new work and lets go of the containers it follows: they go on, and the next worker adopts them.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.abandoned import AbandonedActivities
from activities.bridge import TemporalBridge
from activities.closed_network import ClosedNetwork
from activities.containers import ContainerActivities
from activities.denials import Denials
from activities.deployments import DeploymentActivities
from activities.garbage import GarbageActivities
from activities.maintenance import MaintenanceActivities
from activities.network import Network
from activities.open_logs import still_open
from activities.projects import ProjectActivities
from activities.removals import LARGE_SECONDS, Removals
from activities.runs import RunActivities
from activities.slots import Slots
from activities.spares import SETTLE_SECONDS, Spares
from crewship import contracts, temporal
from crewship.db import migrate, open_database
from crewship.docker_engine import DockerEngine
from crewship.egress.client import EgressClient
from crewship.errors import CrewshipError, Unavailable
from crewship.image_builder import ImageBuilder
from crewship.keyring import open_keyring
from crewship.netguard.client import GuardClient
from crewship.settings import Settings
from crewship.stores import open_store
from crewship.tails import open_publisher
from worker.engine_watch import record_host, watch_engine
from worker.network_watch import watch_network
from worker.reaper import reap
from worker.schedule import ensure_schedules
from workflows.deploy import DeployWorkflow
from workflows.garbage import GarbageWorkflow
from workflows.maintenance import MaintenanceWorkflow
from workflows.project import DeleteProjectWorkflow
from workflows.recognition import RecognizeWorkflow
from workflows.rollback import RollbackWorkflow
from workflows.run import RunWorkflow

logger = logging.getLogger(__name__)

_GRACEFUL = timedelta(seconds=5)
_RECORD_SLOTS = 16
_CONTROL_SLOTS = 32
"""Stops must never wait for a slot."""
_BUILD_SLOTS = 16
"""Builds wait for the engine most of their time."""
_ADOPTED = 256
"""Containers that may be adopted at once: more than a host runs, so that none waits. A thread each, made when it is needed."""


async def connect(settings: Settings, patience_seconds: float = 60) -> Client:
    """Connect to Temporal, waiting for one that is being started."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience_seconds
    while True:
        try:
            return await temporal.connect(settings, lazy=False)
        except Unavailable:
            if loop.time() > give_up:
                raise
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def workers(settings: Settings, client: Client) -> AsyncIterator[list[Worker]]:
    """The four workers, bound to this host's engine; adapters are closed at the end."""
    database = open_database(settings.database)
    migrate(database)
    store = open_store(settings.objects)
    tail = open_publisher(settings.tail_url)
    dns = [str(server) for server in settings.guard_options.dns]
    engine = DockerEngine(settings.instance, runtime=settings.runtime, dns=dns)
    loop = asyncio.get_running_loop()
    bridge = TemporalBridge(client, loop)
    denials = Denials()
    network_changed = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(network_changed.set)

    def guard_told() -> None:
        network.changed()
        wake()

    guard = None
    if settings.network_guard == "required":
        guard = GuardClient(settings.guard_socket, settings.network, denials.hear, guard_told)
    egress = None
    if guard is not None:
        egress = EgressClient(settings.egress_socket, denials.hear, wake)
    network = Network(engine, settings, guard)
    closed = ClosedNetwork(engine, settings, network, guard, egress, wake)
    removals = Removals(engine, settings.run_capacity, lambda runs: still_open(database, runs))
    slots = Slots(engine, settings.run_capacity, network.admits)
    builder = ImageBuilder(
        engine,
        settings,
        admit=network.require,
        remove=lambda container: removals.remove(container, after_seconds=SETTLE_SECONDS),
        remove_large=lambda container: removals.remove(container, after_seconds=LARGE_SECONDS),
        ahead_seconds=settings.spare_seconds if settings.spare_containers else 0.0,
        is_busy=slots.is_full,
    )
    sealer = open_keyring(settings).sealer()
    spares = Spares(
        engine,
        settings.spare_containers,
        settings.spare_seconds,
        lambda container: sealer.nonces(container)[0],
        lambda spec: closed.admits_now() if spec.allow else network.admits(),
        closed.permit,
        closed.forget,
        slots.is_full,
    )
    containers = ContainerActivities(
        engine=engine,
        store=store,
        database=database,
        tail=tail,
        bridge=bridge,
        sealer=sealer,
        spares=spares,
        slots=slots,
        removals=removals,
        network=network,
        closed=closed,
        denials=denials,
        settings=settings,
    )
    runs = RunActivities(store=store, database=database, tail=tail, bridge=bridge, settings=settings)
    abandoned = AbandonedActivities(store=store, database=database, tail=tail, bridge=bridge, settings=settings)
    deployments = DeploymentActivities(
        engine=engine,
        builder=builder,
        store=store,
        database=database,
        tail=tail,
        bridge=bridge,
        sealer=sealer,
        spares=spares,
        closed=closed,
        settings=settings,
    )
    maintenance = MaintenanceActivities(
        engine=engine,
        database=database,
        in_hand=lambda: spares.names() | builder.benches.names(),
        forget_ended=closed.sweep,
    )
    garbage = GarbageActivities(
        engine=engine,
        store=store,
        database=database,
        spares=spares,
        settings=settings,
        discard_bench=builder.benches.discard,
    )
    projects = ProjectActivities(
        store=store, database=database, bridge=bridge, engine=engine, spares=spares, instance=settings.instance
    )
    await asyncio.to_thread(record_host, engine, database, settings.host)
    await asyncio.to_thread(slots.find_orphans)
    if guard is not None and egress is not None:
        guard.start()
        egress.start()

    def admitted() -> None:
        slots.look()
        with contextlib.suppress(CrewshipError):
            deployments.warm_up()

    watches = [
        asyncio.create_task(watch_engine(engine, database, settings.host, network, closed)),
        asyncio.create_task(watch_network(network, closed, network_changed, admitted)),
        asyncio.create_task(reap(maintenance.sweep_containers)),
    ]
    executors = [
        ThreadPoolExecutor(count)
        for count in (2 * _RECORD_SLOTS, _CONTROL_SLOTS, settings.run_capacity, _ADOPTED, _BUILD_SLOTS)
    ]
    try:
        yield [
            Worker(
                client,
                task_queue=contracts.WORKFLOW_QUEUE,
                workflows=[
                    RunWorkflow,
                    DeployWorkflow,
                    MaintenanceWorkflow,
                    GarbageWorkflow,
                    DeleteProjectWorkflow,
                ],
                activities=[
                    runs.close_run,
                    runs.reconcile,
                    garbage.collect_records,
                    abandoned.end_abandoned,
                    deployments.close_deployment,
                    projects.stop_work,
                    projects.hosts,
                    projects.remove_records,
                ],
                activity_executor=executors[0],
                max_concurrent_activities=_RECORD_SLOTS,
                max_concurrent_local_activities=_RECORD_SLOTS,
                workflow_runner=UnsandboxedWorkflowRunner(),  # ADR 0009
                graceful_shutdown_timeout=_GRACEFUL,
                max_heartbeat_throttle_interval=timedelta(seconds=1),
                # How long a workflow waits for the worker that had it before another takes it over: after a kill that is
                # what a log stands still. The default is 10 s.
                sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
            ),
            Worker(
                client,
                task_queue=contracts.host_queue(settings.host),
                workflows=[RollbackWorkflow, RecognizeWorkflow],  # do their work in their one workflow task
                activities=[
                    containers.stop_container,
                    containers.finish_container,
                    deployments.build_image,  # of deployments from before builds had a queue; and the next
                    deployments.smoke_boot,
                    deployments.mark_ready,
                    deployments.switch_current,
                    deployments.recognize,
                    maintenance.sweep_containers,
                    garbage.collect_on_host,
                    projects.remove_images,
                ],
                activity_executor=executors[1],
                max_concurrent_activities=_CONTROL_SLOTS,
                workflow_runner=UnsandboxedWorkflowRunner(),
                graceful_shutdown_timeout=_GRACEFUL,
                max_heartbeat_throttle_interval=timedelta(seconds=1),
            ),
            Worker(
                client,
                task_queue=contracts.builds_queue(settings.host),
                activities=[deployments.build_image, deployments.smoke_boot],
                activity_executor=executors[4],
                max_concurrent_activities=_BUILD_SLOTS,
                graceful_shutdown_timeout=_GRACEFUL,
                max_heartbeat_throttle_interval=timedelta(seconds=1),
            ),
            Worker(
                client,
                task_queue=contracts.runs_queue(settings.host),
                activities=[containers.run_container],
                activity_executor=executors[2],
                max_concurrent_activities=settings.run_capacity,
                graceful_shutdown_timeout=_GRACEFUL,
                max_heartbeat_throttle_interval=timedelta(seconds=1),
            ),
            Worker(
                client,
                task_queue=contracts.adoption_queue(settings.host),
                activities=[containers.run_container],
                activity_executor=executors[3],
                max_concurrent_activities=_ADOPTED,
                graceful_shutdown_timeout=_GRACEFUL,
                max_heartbeat_throttle_interval=timedelta(seconds=1),
            ),
        ]
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.to_thread(network.close)
        await asyncio.to_thread(closed.close)
        await asyncio.to_thread(spares.close)
        await asyncio.to_thread(builder.benches.close)
        await asyncio.to_thread(removals.close)
        try:  # what an outage of the engine has left must not wait for a start
            await asyncio.to_thread(maintenance.sweep_containers)
        except Exception as error:  # and nothing that is closed below may wait for it
            logger.warning("containers could not be swept: %s", error)
        if guard is not None and egress is not None:
            await asyncio.to_thread(guard.close)
            await asyncio.to_thread(egress.close)
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        tail.close()
        builder.close()
        engine.close()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    client = await connect(settings)
    async with workers(settings, client) as all_workers, contextlib.AsyncExitStack() as stack:
        for worker in all_workers:
            await stack.enter_async_context(worker)
        await ensure_schedules(client, settings.host)
        logger.info("worker ready: host %s, capacity %d", settings.host, settings.run_capacity)
        await stop.wait()
        logger.info("worker stops")
    await asyncio.sleep(0.05)  # the SDK's native threads let go of Python
