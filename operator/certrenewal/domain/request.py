"""What is sent for a hook: one request, made of the hook and the facts of one certificate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from certrenewal.domain.hooks import Hook, KeyRef, Method, is_header_value
from certrenewal.domain.placeholders import IN_URL, each_string, substituted

IDEMPOTENCY_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a request can tell of a certificate. The key stays out of the repr."""

    mark: str  # the first digits of its fingerprint
    crt: str
    key: str = field(repr=False)
    ca: str
    serial: str
    not_after: str
    name: str
    namespace: str

    @property
    def texts(self) -> dict[str, str]:
        """Each by its placeholder."""
        return {
            "tls.crt": self.crt,
            "tls.key": self.key,
            "ca.crt": self.ca,
            "serial": self.serial,
            "notAfter": self.not_after,
            "name": self.name,
            "namespace": self.namespace,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent. Header values and body are secret, and so is the path of many a URL: none is in the repr."""

    method: Method
    host: str
    port: int
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes | None = field(repr=False)


def render(hook: Hook, facts: Facts, values: Mapping[KeyRef, str]) -> Request:
    """The request of a hook for one certificate; ``values`` are those of its headers that lie in Secrets.

    The idempotency key is the same for every attempt, so that a receiver can tell a repetition from news.
    """
    headers = [(header.name, values[header.secret] if header.secret else header.value) for header in hook.headers]
    if hook.body is not None and "content-type" not in {name.lower() for name, _ in headers}:
        headers.append(("Content-Type", "application/json"))
    texts = facts.texts
    return Request(
        method=hook.method,
        host=hook.host,
        port=hook.port,
        url=substituted(hook.url, {name: quote(texts[name], safe="") for name in IN_URL}),
        headers=(*headers, (IDEMPOTENCY_KEY, f"{facts.mark}/{hook.name}")),
        body=None if hook.body is None else _rendered(hook.body, texts),
    )


def _rendered(body: str, texts: Mapping[str, str]) -> bytes:
    return json.dumps(each_string(json.loads(body), lambda text: substituted(text, texts))).encode()


def header_value(raw: bytes) -> str | None:
    """A value from a Secret as a header can carry it, without a trailing newline; None where none can."""
    text = raw.rstrip(b"\r\n").decode("latin-1")
    return text if is_header_value(text) else None
