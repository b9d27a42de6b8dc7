"""``python -m crewship.netguard``: the guard of this container host. Says ``guard ready`` in its log when the rules are set.

``crewship netguard`` is the same for a terminal.
"""

import asyncio
import logging
import sys

from crewship.errors import CrewshipError
from crewship.netguard.messages import GuardState
from crewship.netguard.service import Guard
from crewship.settings import Settings

logger = logging.getLogger("netguard")


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        asyncio.run(Guard(Settings().guard_options).serve(_say))
    except CrewshipError as error:
        logger.error("%s%s", error.detail, f" ({error.hint})" if error.hint else "")
        return error.exit_code
    return 0


def _say(state: GuardState) -> None:
    logger.info("guard ready: %s", state.problem or f"rules of {state.bridge} set")


if __name__ == "__main__":
    sys.exit(main())
