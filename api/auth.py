"""Who calls, and whether they may: ``Authorization: Bearer <api key>``, and a scope that every route declares.

A key that is bound to a project sees nothing of others: what is not its project's is *not found*, as if it were not there.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import Session

from api.state import PlatformDep
from crewship.errors import Forbidden, Unauthorized
from crewship.keys import find_key, granted

_bearer = HTTPBearer(auto_error=False, description="An API key")


@dataclass(frozen=True, slots=True)
class Caller:
    """The key that a request came with."""

    key_id: str
    scopes: frozenset[str]
    project: str | None

    def sees(self, project: str) -> bool:
        """Whether things of that project exist for this caller."""
        return self.project is None or self.project == project

    def require_project(self, project: str) -> None:
        """Raise ``Forbidden`` when the key is bound to another project; for calls that may make the project."""
        if not self.sees(project):
            raise Forbidden(
                f"This key is for project {self.project}",
                hint=f"use a key of project {project}, or one for all projects",
            )


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def authenticate(platform: PlatformDep, credentials: Credentials) -> Caller:
    """The caller by the request's key.

    Raises:
        Unauthorized: no key, or not a valid one.
    """
    if credentials is None:
        raise Unauthorized(
            "This call needs an API key", hint="send the header Authorization: Bearer <key>, or crewship login"
        )
    secret = credentials.credentials

    def look_up(session: Session) -> Caller | None:
        row = find_key(session, secret)
        return None if row is None else Caller(row.id, granted(row.scopes), row.project)

    caller = await platform.transact(look_up)
    if caller is None:
        raise Unauthorized("The API key is not valid", hint="it may be mistyped, expired or revoked")
    return caller


class Require:
    """Dependency of a route: the caller, if their key has ``scope``."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    async def __call__(self, caller: Annotated[Caller, Depends(authenticate)]) -> Caller:
        return self.check(caller)

    def check(self, caller: Caller) -> Caller:
        if self.scope not in caller.scopes:
            raise Forbidden(
                f"This call needs a key with the scope {self.scope}",
                hint=f"this key has {', '.join(sorted(caller.scopes)) or 'no scope'}; use another one",
            )
        return caller


def require(scope: str) -> Any:
    """``Depends`` on a caller with that scope."""
    return Depends(Require(scope))


class RequireForStream(Require):
    """As :class:`Require`, but a stream token (``?token=``) for the run in the path will do."""

    async def __call__(  # type: ignore[override]
        self, request: Request, run_id: str, platform: PlatformDep, credentials: Credentials, token: str | None = None
    ) -> Caller:
        if credentials is None and token is not None:
            platform.tokens.check(token, run_id)
            return Caller("token", frozenset({"read"}), None)
        return self.check(await authenticate(platform, credentials))


ReadCaller = Annotated[Caller, require("read")]
InvokeCaller = Annotated[Caller, require("invoke")]
DeployCaller = Annotated[Caller, require("deploy")]
AdminCaller = Annotated[Caller, require("admin")]
StreamCaller = Annotated[Caller, Depends(RequireForStream("read"))]
