"""What does a pod ask for at the token endpoint, and who is it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from certrenewal.domain.names import Name
from certrenewal.domain.objects import object_name
from certrenewal.domain.spec import InvalidSpec, TokenWish, name_list, token_lifetime

_T = TypeVar("_T")
_ACCOUNT = "system:serviceaccount:"


class Refusal(StrEnum):
    """Why a caller gets no token, in the words of the Kubernetes API; a Reason is more precise where there is one."""

    BAD_REQUEST = "BadRequest"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    REQUEST_ENTITY_TOO_LARGE = "RequestEntityTooLarge"
    TOO_MANY_REQUESTS = "TooManyRequests"
    INTERNAL_ERROR = "InternalError"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"


@dataclass(frozen=True, slots=True)
class Caller:
    """A ServiceAccount that has proved to be it."""

    namespace: str
    account: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.account}"


def parse_caller(username: str) -> Caller | None:
    """Read the user name of a ServiceAccount; None where it is somebody else's."""
    namespace, colon, account = username.removeprefix(_ACCOUNT).partition(":")
    if not username.startswith(_ACCOUNT) or not colon or not namespace or not account or ":" in account:
        return None
    return Caller(namespace, account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request for a token."""

    names: tuple[Name, ...]
    authority: str = "default"
    lifetime: timedelta = TokenWish().lifetime


def parse_ask(body: object) -> Ask:
    """Read the JSON of a request; InvalidSpec names the field that cannot be read."""
    if not isinstance(body, dict):
        raise InvalidSpec("body", type(body).__name__, 'write a JSON object such as {"names": ["web.shop.svc"]}')
    if strange := body.keys() - {"names", "authority", "lifetime"}:
        raise InvalidSpec(
            min(strange), body[min(strange)], "there is no such field, there are authority, lifetime, names"
        )
    if not isinstance(body.get("names"), list) or not all(isinstance(name, str) for name in body["names"]):
        raise InvalidSpec("names", body.get("names"), "write a list of DNS names, IPs, e-mails or URIs")
    return Ask(
        names=_field(body, "names", (), name_list),
        authority=_text(body, "authority", "default", object_name),
        lifetime=_text(body, "lifetime", TokenWish().lifetime, token_lifetime),
    )


def _text(body: dict[str, Any], name: str, default: _T, parse: Callable[[str], _T]) -> _T:
    if name in body and not isinstance(body[name], str):
        raise InvalidSpec(name, body[name], "write a string")
    return _field(body, name, default, parse)


def _field(body: dict[str, Any], name: str, default: _T, parse: Callable[[Any], _T]) -> _T:
    if name not in body:
        return default
    try:
        return parse(body[name])
    except ValueError as refusal:
        raise InvalidSpec(name, body[name], str(refusal)) from None
