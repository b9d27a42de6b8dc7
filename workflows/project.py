"""Deleting a project: stop its runs, then remove everything it has, logs too; its row goes last."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from activities.projects import ProjectActivities
    from crewship.contracts import ProjectRef, host_queue

_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=30))


@workflow.defn(name="DeleteProject")
class DeleteProjectWorkflow:
    @workflow.run
    async def run(self, project: ProjectRef) -> None:
        while await workflow.execute_activity_method(
            ProjectActivities.stop_work,
            project,
            start_to_close_timeout=timedelta(minutes=2),
            retry_policy=_RETRY,
            summary="cancel the project's runs and builds",
        ):
            await workflow.sleep(timedelta(seconds=1))
        hosts = await workflow.execute_activity_method(
            ProjectActivities.hosts,
            project,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=_RETRY,
            summary="find the hosts that have its images",
        )
        for host in hosts:
            await workflow.execute_activity_method(
                ProjectActivities.remove_images,
                project,
                task_queue=host_queue(host),
                start_to_close_timeout=timedelta(minutes=10),
                retry_policy=_RETRY,
                summary=f"remove its images on {host}",
            )
        await workflow.execute_activity_method(
            ProjectActivities.remove_records,
            project,
            start_to_close_timeout=timedelta(minutes=10),
            retry_policy=_RETRY,
            summary="remove its objects and rows",
        )
