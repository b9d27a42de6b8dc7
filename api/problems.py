"""Errors on the wire: RFC 9457 ``application/problem+json``, one shape on every error path.

``code`` is what clients branch on and ``hint`` what the caller can do (null when there is nothing). The router's own 404
and 405, refused bodies and unforeseen exceptions take the same way out; of the last, nothing is told but that it happened.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from crewship.errors import CrewshipError, Unauthorized, Unavailable, Unprocessable

log = logging.getLogger(__name__)

_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 416: "invalid_range"}
_PLAIN_TITLES = {400: "Invalid request", 404: "Not found", 405: "Method not allowed", 413: "Too large"}


class ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


class Problem(BaseModel):
    """The body of every error."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str | None


class FieldError(BaseModel):
    """One place of a 422: a JSON pointer into the body, or ``query/<name>``, ``path/<name>``, ``header/<name>``."""

    pointer: str
    detail: str


class ValidationProblem(Problem):
    errors: list[FieldError]


def problem(
    request: Request,
    status: int,
    *,
    title: str,
    code: str,
    detail: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> ProblemResponse:
    """A problem as a response; ``members`` are added to the usual ones."""
    body = {
        "type": f"urn:crewship:error:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "hint": hint,
        **members,
    }
    return ProblemResponse(body, status, headers=dict(headers) if headers else None)


def install(app: FastAPI) -> None:
    """Have every error of ``app`` answered in this shape."""
    app.add_exception_handler(CrewshipError, _of_product)
    app.add_exception_handler(HTTPException, _of_router)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(Exception, _of_defect)


async def _of_product(request: Request, error: Exception) -> Response:
    assert isinstance(error, CrewshipError)
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    members = {"errors": error.errors} if isinstance(error, Unprocessable) else {}
    return problem(
        request, error.status, title=error.title, code=error.code, detail=error.detail, hint=error.hint,
        headers=headers, **members,
    )  # fmt: skip


async def _of_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail = str(error.detail)
    if status == 404:
        detail = f"There is nothing at {request.url.path}"
    headers = dict(error.headers or {})
    if status == 405:
        headers["Allow"] = ", ".join(_allowed(request)) or headers.get("allow", "")
        detail = f"{request.method} is not possible at {request.url.path}"
    return problem(
        request, status, title=_PLAIN_TITLES.get(status, detail), code=_CODES.get(status, "http_error"), detail=detail,
        headers=headers,
    )  # fmt: skip


def _allowed(request: Request) -> list[str]:
    """All methods of the path; the router by itself names those of the first route only."""
    methods = set()
    for template, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), request.url.path):
            methods |= {method.upper() for method in operations}
    return sorted(methods)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        reason = found[0].get("ctx", {}).get("error", "it cannot be read")
        return problem(
            request, 400, title="Invalid request", code="invalid_request", detail=f"The body is not JSON: {reason}"
        )
    errors = [{"pointer": _pointer(item["loc"]), "detail": _sentence(item)} for item in found]
    first = errors[0]
    return problem(
        request, 422, title=Unprocessable.title, code=Unprocessable.default_code,
        detail=f"{first['pointer'] or 'body'}: {first['detail']}", errors=errors,
    )  # fmt: skip


async def _of_defect(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(
        request, 500, title="Internal error", code="internal_error", detail="Something went wrong inside the platform",
        hint="the API's log says more",
    )  # fmt: skip


def _pointer(location: tuple[int | str, ...]) -> str:
    """``("body", "a", 0)`` → ``/a/0``; ``("query", "limit")`` → ``query/limit``."""
    where, *path = (str(part) for part in location)
    if where != "body":
        return "/".join([where, *path])
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
}


def _sentence(item: Mapping[str, Any]) -> str:
    message = _SENTENCES.get(item["type"])
    if message is None:
        message = str(item["msg"]).removeprefix("Value error, ")
    return message
