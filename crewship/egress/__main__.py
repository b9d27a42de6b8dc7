"""``python -m crewship.egress``: the proxy of this container host. Says ``egress ready`` in its log when it can be talked to."""

import asyncio
import logging
import signal
import sys

from crewship.egress.messages import EgressState
from crewship.egress.service import Egress
from crewship.errors import CrewshipError
from crewship.settings import Settings

logger = logging.getLogger("egress")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(_serve())
    except CrewshipError as error:
        logger.error("%s%s", error.detail, f" ({error.hint})" if error.hint else "")
        return error.exit_code
    return 0


async def _serve() -> None:
    egress = Egress(Settings().egress_options)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, egress.end)
    await egress.serve(_say)


def _say(state: EgressState) -> None:
    logger.info("egress ready: %s", state.problem or state.url)


if __name__ == "__main__":
    sys.exit(main())
