"""The workflow sandbox that worker and replay tests share.

A first-party import that was not passed through on purpose is an error at once: it would load a second copy of a message's
class, and the workflow task would fail for ever.
"""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy


def sandbox_runner() -> SandboxedWorkflowRunner:
    """A runner with the policy above."""
    return SandboxedWorkflowRunner(
        restrictions=SandboxRestrictions.default.with_import_notification_policy(
            SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        )
    )
