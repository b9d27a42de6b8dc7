"""pydantic-ai's OpenTelemetry spans as our events, through a tracer of our own.

pydantic-ai takes a tracer for itself, so neither the SDK is needed nor the process's global provider touched. Where the user
instruments agents too (Logfire, Phoenix), theirs go on beside ours. ``otel.py`` reads the ``gen_ai.*`` names.
"""

from importlib import import_module

from .otel import provider, tee

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def tap(module: "ModuleType", emit: "Callable[[str, dict[str, Any]], None]") -> None:
    """Instrument every agent, also those that the user instruments."""
    settings = import_module("pydantic_ai.models.instrumented").InstrumentationSettings
    ours = settings(tracer_provider=provider(emit))
    original = settings.__init__

    def made(self: "Any", *args: "Any", **options: "Any") -> None:
        original(self, *args, **options)
        self.tracer = tee(self.tracer, emit)

    settings.__init__ = made
    module.Agent.instrument_all(ours)
