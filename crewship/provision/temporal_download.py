"""``python -m crewship.provision.temporal_download VERSION PATH``: Temporal's CLI by the SDK's own download.

The SDK downloads as a part of starting a development server, so one is started, in memory, and stopped again. A process of
its own: the download knows no time limit, and a process can be ended.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from temporalio.testing import WorkflowEnvironment


async def download(version: str, into: Path) -> None:
    """Put the CLI of ``version`` (``v1.5.1``) at ``into``, atomically."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".temporal-") as scratch:
        environment = await WorkflowEnvironment.start_local(
            download_dest_dir=scratch, dev_server_download_version=version
        )
        await environment.shutdown()
        binaries = [path for path in Path(scratch).rglob("*") if path.is_file() and os.access(path, os.X_OK)]
        binaries[0].replace(into)


def main() -> int:
    _, version, into = sys.argv
    try:
        asyncio.run(download(version, Path(into)))
    except RuntimeError as error:  # what the SDK raises when the download fails
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # the SDK's native threads may crash an interpreter that finalizes
