"""Errors on the wire: RFC 9457 ``application/problem+json``, one shape on every error path.

``code`` is what clients branch on and ``hint`` what the caller can do. The router's own 404
and 405, refused bodies and unforeseen exceptions take the same way out; of the last, nothing is told but that it happened.
"""

import logging
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from api.values import escaped
from crewship.errors import CrewshipError, TooManyRequests, Unauthorized, Unavailable, Unprocessable

log = logging.getLogger(__name__)

_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large", 416: "invalid_range"}
_PLAIN_TITLES = {400: "Invalid request", 404: "Not found", 405: "Method not allowed", 413: "Too large"}
_SEE_DOCS = "/docs describes every call and what it takes"


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


class HintedException(HTTPException):
    """For where FastAPI lets no other error through: while it reads a body."""

    def __init__(self, status: int, detail: str, hint: str) -> None:
        super().__init__(status, detail)
        self.hint = hint


async def _of_product(request: Request, error: Exception) -> Response:
    assert isinstance(error, CrewshipError)
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = "1"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_seconds)
        headers |= {name.decode(): value.decode() for name, value in error.quota}
    members = {"errors": error.errors} if isinstance(error, Unprocessable) else {}
    return problem(
        request, error.status, title=error.title, code=error.code, detail=error.detail, hint=error.hint,
        headers=headers, **members,
    )  # fmt: skip


async def _of_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, path = error.status_code, request.url.path
    detail, hint = str(error.detail), error.hint if isinstance(error, HintedException) else _SEE_DOCS
    headers = dict(error.headers or {})
    if status == 404:
        detail = f"There is nothing at {path}"
        if path.endswith("/"):
            hint = f"paths have no slash at their end: {path.rstrip('/')}"
    elif status == 405:
        headers["Allow"] = ", ".join(_allowed(request)) or headers.get("allow", "")
        detail, hint = f"{request.method} is not possible at {path}", f"possible are {headers['Allow']}"
    elif status == 400 and error.__cause__ is not None:  # FastAPI could not read the body
        detail, hint = _unreadable(error.__cause__)
    return problem(
        request, status, title=_PLAIN_TITLES.get(status, detail), code=_CODES.get(status, "http_error"), detail=detail,
        hint=hint, headers=headers,
    )  # fmt: skip


def _unreadable(cause: BaseException) -> tuple[str, str]:
    """Detail and hint for a body that Python's JSON parser gave up on."""
    match cause:
        case UnicodeDecodeError():
            return f"The body is not UTF-8: it goes wrong at byte {cause.start}", "encode JSON as UTF-8"
        case RecursionError():
            return "The body is nested too deeply", "make it flatter: an input may have 250 levels"
        case ValueError():  # what is no JSON has an error of its own
            return "The body has a number with too many digits", "send such a number as a string"
    return "The body cannot be read", "send JSON, with the header Content-Type: application/json"


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
            request, 400, title="Invalid request", code="invalid_request",
            detail=f"The body is not JSON: {reason} (at character {found[0]['loc'][-1]})",
            hint="names and texts are in double quotes, and no comma comes after the last item",
        )  # fmt: skip
    if any(item["loc"] == ("body",) and item["type"] in _NO_OBJECT for item in found) and not _is_json(request):
        return problem(
            request, 415, title="Unsupported media type", code="unsupported_media_type",
            detail="The body is not declared as JSON", hint="add the header Content-Type: application/json",
        )  # fmt: skip
    errors = [{"pointer": _pointer(item["loc"]), "detail": _sentence(item)} for item in found]
    first = errors[0]
    return problem(
        request, 422, title=Unprocessable.title, code=Unprocessable.default_code,
        detail=f"{first['pointer'] or 'body'}: {first['detail']}", hint=_hint(request, found[0]), errors=errors,
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
    return "".join("/" + escaped(part) for part in path)


_NO_OBJECT = ("dict_type", "model_attributes_type", "model_type")
_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    **dict.fromkeys(_NO_OBJECT, "must be an object"),
    "string_type": "must be a string",
    "list_type": "must be a list",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "float_parsing": "must be a number",
    "literal_error": "is not a known value",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
}
_HINTS = {
    **dict.fromkeys(_NO_OBJECT, 'an object is like {{"topic": "tides"}}'),
    "missing": "send the field; /docs says what it holds",
    "literal_error": "known values are {expected}",
    "greater_than_equal": "give {ge:g} or more",
    "less_than_equal": "give {le:g} or less",
    "string_type": 'a string is in double quotes: "42"',
    "int_type": "give a whole number, without quotes",
    "int_parsing": "give a whole number",
    "float_parsing": "give a number",
    "bool_parsing": "give true or false",
    "string_too_short": "give {min_length} characters or more",
    "string_too_long": "give {max_length} characters or less",
    "string_pattern_mismatch": "it must match {pattern}",
    "too_long": "give {max_length} or fewer",
    **dict.fromkeys(
        ("datetime_from_date_parsing", "datetime_parsing"), "give a time as in RFC 3339: 2026-01-31T09:05:00Z"
    ),
}


def _sentence(item: Mapping[str, Any]) -> str:
    message = _SENTENCES.get(item["type"])
    if message is None:
        message = str(item["msg"]).removeprefix("Value error, ")
    return message


def _hint(request: Request, item: Mapping[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        known = _known_fields(request)
        near = get_close_matches(str(item["loc"][-1]), known, 1)
        return f"do you mean {near[0]}?" if near else f"known fields are {', '.join(known)}"
    return _HINTS.get(item["type"], _SEE_DOCS).format_map(item.get("ctx", {}))


def _known_fields(request: Request) -> list[str]:
    """Of the body that the route takes; a body that may be left out is a union with None."""
    annotation = request.scope["route"].body_field.field_info.annotation
    models = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")]
    return [name for model in models for name in model.model_fields]


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type.startswith("application/") and media_type.endswith(("/json", "+json"))
