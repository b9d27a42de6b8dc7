"""Who calls, and whether they may: ``Authorization: Bearer <api key>``, and a scope that every route declares.

A key that is bound to a project sees nothing of others: what is not its project's is *not found*, as if it were not there.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlmodel import Session

from api.quotas import QUOTA
from api.state import Platform, PlatformDep
from crewship.contracts import Actor
from crewship.errors import Forbidden, Unauthorized
from crewship.keys import find_key, granted

_bearer = HTTPBearer(auto_error=False, description="An API key")


@dataclass(frozen=True, slots=True)
class Caller:
    """The key that a request came with, and from where."""

    key_id: str
    scopes: frozenset[str]
    project: str | None
    name: str = ""
    address: str | None = None

    @property
    def actor(self) -> Actor:
        """For the audit log."""
        return Actor(key_id=self.key_id, name=self.name, address=self.address)

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


async def authenticate(request: Request, platform: PlatformDep, credentials: Credentials) -> Caller:
    """The caller by the request's key.

    Raises:
        Unauthorized: no key, or not a valid one.
        TooManyRequests: too many wrong keys came from this address, or too many requests with this key.
    """
    if credentials is None:
        raise Unauthorized(
            "This call needs an API key", hint="send the header Authorization: Bearer <key>, or crewship login"
        )
    secret, address = credentials.credentials, address_of(request)
    platform.guard.admit(address, secret)

    def look_up(session: Session) -> Caller | None:
        row = find_key(session, secret)
        return None if row is None else Caller(row.id, granted(row.scopes), row.project, row.name, address)

    caller = await platform.transact(look_up)
    if caller is None:
        platform.guard.failed(address)
        raise Unauthorized("The API key is not valid", hint="it may be mistyped, expired or revoked")
    platform.guard.succeeded(secret)
    request.scope[QUOTA] = platform.quotas.take(caller.key_id)
    return caller


def address_of(request: Request) -> str | None:
    """Where the request came from; behind a proxy that is trusted (``CREWSHIP_TRUSTED_PROXIES``), what that one says."""
    return request.client.host if request.client is not None else None


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
            return self._by_token(request, run_id, platform, token)
        return self.check(await authenticate(request, platform, credentials))

    def _by_token(self, request: Request, run_id: str, platform: Platform, token: str) -> Caller:
        address = address_of(request)
        try:
            platform.tokens.check(token, run_id)
        except Unauthorized as error:
            if error.code == "invalid_token":  # one that has expired was ours: nobody guesses
                platform.guard.admit(address, token)
                platform.guard.failed(address)
            raise
        request.scope[QUOTA] = platform.quotas.take(f"token:{run_id}")
        return Caller("token", frozenset({"read"}), None, "stream token", address)


class RequireUnlessOpen(Require):
    """As :class:`Require`, unless ``CREWSHIP_METRICS_OPEN`` says that no key is needed."""

    async def __call__(  # type: ignore[override]
        self, request: Request, platform: PlatformDep, credentials: Credentials
    ) -> None:
        if not platform.settings.metrics_open:
            self.check(await authenticate(request, platform, credentials))


ReadCaller = Annotated[Caller, require("read")]
InvokeCaller = Annotated[Caller, require("invoke")]
DeployCaller = Annotated[Caller, require("deploy")]
EnvCaller = Annotated[Caller, require("env")]
AdminCaller = Annotated[Caller, require("admin")]
StreamCaller = Annotated[Caller, Depends(RequireForStream("read"))]
