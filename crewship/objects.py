"""Keys in the object store: where what is kept."""

import hashlib


def source_key(sha256: str) -> str:
    """A project's upload, by content: the same upload is stored once."""
    return f"sources/{sha256}.tar.gz"


UPLOADS = "uploads/"


def upload_prefix(project: str, sha256: str) -> str:
    """Of the parts of a source that is not whole yet; a project's own, for a digest is no right to another one's."""
    return f"{UPLOADS}{project}/{sha256}/"


def part_key(project: str, sha256: str, number: int) -> str:
    return f"{upload_prefix(project, sha256)}{number:06d}"


def run_prefix(run_id: str) -> str:
    return f"runs/{run_id}/"


def deployment_prefix(deployment_id: str) -> str:
    return f"deployments/{deployment_id}/"


def files_key(deployment_id: str) -> str:
    """Which files it was deployed with (``crewship.contents``)."""
    return f"{deployment_prefix(deployment_id)}files.json"


def build_key(deployment_id: str) -> str:
    """What it was built from."""
    return f"{deployment_prefix(deployment_id)}build.json"


def log_prefix(workflow_id: str) -> str:
    """Of a run's or deployment's log, by its workflow's id (``run-<id>``, ``deploy-<id>``)."""
    kind, _, resource = workflow_id.partition("-")
    return f"{'runs' if kind == 'run' else 'deployments'}/{resource}/log/"


def segment_key(workflow_id: str, first: int, epoch: int) -> str:
    """A live segment; with its writer's epoch, so that a replaced writer cannot overwrite its successor's."""
    return f"{log_prefix(workflow_id)}segments/{first:012d}-{epoch}.ndjson.zst"


def archive_key(workflow_id: str) -> str:
    return f"{log_prefix(workflow_id)}events.ndjson.zst"


def archive_index_key(workflow_id: str) -> str:
    return f"{log_prefix(workflow_id)}index.json"


def trimmed_key(workflow_id: str) -> str:
    """What retention leaves of an archive."""
    return f"{log_prefix(workflow_id)}terminal.ndjson.zst"


def samples_key(run_id: str) -> str:
    """What the run used over its life (``crewship.recording``)."""
    return f"{run_prefix(run_id)}samples.json"


def artifact_key(run_id: str, name: str) -> str:
    """By a digest of the name: any name can be stored, and a second collection writes the same object."""
    return f"{run_prefix(run_id)}artifacts/{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
