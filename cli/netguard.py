"""``crewship netguard``: the firewall of a container host's runs."""

from pathlib import Path
from typing import Annotated

import typer


def netguard(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data folder of the crewship dev that it is for; default: as crewship dev."),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the rules away and end.")] = False,
) -> None:
    """Keep runs from this host and private networks; needs root. `crewship dev` does this itself when it runs as root.

    With it runs the proxy of runs that may reach named hosts alone (`[network] allow`).
    """
    import asyncio
    import logging
    import sys

    from cli.output import say_done
    from crewship.egress.service import Egress
    from crewship.netguard.firewall import Firewall
    from crewship.netguard.messages import GuardState
    from crewship.netguard.service import Guard
    from crewship.settings import Settings

    settings = Settings()
    if data is not None:
        settings = settings.model_copy(update={"data_dir": data.expanduser().absolute()})
    if remove:
        Firewall().remove(settings.network)
        say_done(f"the rules of {settings.network} are gone")
        return
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s: %(message)s", stream=sys.stderr)

    def ready(state: GuardState) -> None:
        if state.problem is None:
            say_done(f"runs on {state.bridge} are kept from this host and private networks; Ctrl-C ends the guard")

    async def serve() -> None:
        egress = Egress(settings.egress_options)
        proxy = asyncio.create_task(egress.serve())
        try:
            await Guard(settings.guard_options).serve(ready)
        finally:
            egress.end()
            await proxy

    asyncio.run(serve())
