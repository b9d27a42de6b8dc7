"""Sees every few seconds whether the runs' network is as it should be, at once when its guard says something new.

In the worker and not in a workflow: what must not start when the rules are gone must not wait for anything to learn of it.
"""

import asyncio
import logging
from collections.abc import Callable

from activities.closed_network import ClosedNetwork
from activities.network import Network

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
"""How soon a network that was mended is noticed; a good one is probed once a minute."""


async def watch_network(
    network: Network, closed: ClosedNetwork, changed: asyncio.Event, on_admitted: Callable[[], None]
) -> None:
    """Until cancelled.

    Args:
        changed: Set when the guard said something new.
        on_admitted: Called in a thread each time when containers may be started again on one of the two, the first time too.
    """
    admitted = False, False
    while True:
        changed.clear()
        try:
            await asyncio.to_thread(network.look)
            if network.admits():
                await asyncio.to_thread(closed.look)
            before, admitted = admitted, (network.admits(), closed.admits())
            if any(now and not then for now, then in zip(admitted, before, strict=True)):
                await asyncio.to_thread(on_admitted)
        except Exception:
            logger.exception("the network could not be looked at")
        try:
            await asyncio.wait_for(changed.wait(), EVERY_SECONDS)
        except TimeoutError:
            continue
