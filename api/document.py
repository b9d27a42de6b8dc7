"""The OpenAPI document, made to say what the API does: FastAPI by itself says that errors may be ``application/json`` too."""

from typing import Any

from fastapi import FastAPI

PROBLEM = "application/problem+json"

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, as server-sent events or (by `Accept`) one JSON object a line",
        "content": {"text/event-stream": {}, "application/x-ndjson": {}},
    },
    204: {"description": "Nothing comes after the position that was given: the log is closed"},
}
ARTIFACT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    206: {
        "description": "The bytes of the range",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "`If-None-Match` has its ETag"},
}
METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


def install(app: FastAPI) -> None:
    """Have ``app`` give this document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems_only(make())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change it


def _with_problems_only(document: dict[str, Any]) -> dict[str, Any]:
    """Every error has one media type, whose schema FastAPI gave to another."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if PROBLEM in content:
                    content[PROBLEM] = content.pop("application/json", content[PROBLEM])
    return document
