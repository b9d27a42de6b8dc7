"""pydantic-ai's OpenTelemetry spans as our events, through a tracer provider of our own.

pydantic-ai takes a provider for itself, so neither the SDK is needed nor the process's global provider touched: the
user's Logfire or Phoenix goes on as before (a user's own ``instrument`` replaces ours). ``otel.py`` reads the ``gen_ai.*`` names.
"""

from importlib import import_module

from .otel import provider

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def tap(module: "ModuleType", emit: "Callable[[str, dict[str, Any]], None]") -> None:
    """Instrument every agent that does not say otherwise."""
    settings = import_module("pydantic_ai.models.instrumented").InstrumentationSettings
    module.Agent.instrument_all(settings(tracer_provider=provider(emit)))
