"""``python -m worker``: one a container host. Says ``worker ready`` in its log when it takes work."""

import asyncio
import gc
import logging
import os
import sys

from crewship.errors import CrewshipError
from crewship.settings import Settings
from worker.main import run


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(run(Settings()))
    except CrewshipError as error:
        logging.getLogger("worker").error("%s%s", error.detail, f" ({error.hint})" if error.hint else "")
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    # A process that held a Temporal client may crash in native code while Python finalizes: end without that.
    gc.collect()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
