"""Which namespaces ask for an authority's roots, and does each have them in a ConfigMap?"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.controller.reporter import Reporter
from certrenewal.domain import annotation
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import dump_certificates
from certrenewal.domain.formats import is_trust_store, trust_store
from certrenewal.domain.reasons import Reason
from certrenewal.kube.errors import ClusterError, Conflict, NotFound
from certrenewal.kube.store import Store, Subject

log = logging.getLogger(__name__)

RETRY = 5.0
TAKEN_RETRY = 60.0
PREFIX = "certrenewal-roots-"
PEM, TRUST_STORE = "ca.crt", "truststore.p12"

_Target = tuple[str, str]  # a namespace, and the authority whose roots it asks for


@dataclass(frozen=True, slots=True)
class _Held:
    """A ConfigMap of ours as last seen or written."""

    uid: str
    pem: bytes
    trust_store: bytes


class Bundles:
    """Keeps the roots of authorities in the namespaces that ask for them."""

    def __init__(
        self,
        *,
        store: Store,
        reporter: Reporter,
        leads: Callable[[], bool],
        view: Callable[[str], AuthorityView | None],
        namespaces: tuple[str, ...],
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._leads = leads
        self._view = view
        self._namespaces = namespaces
        self._asked: dict[str, frozenset[str]] = {}
        self._held: dict[_Target, _Held] = {}
        self._todo: set[_Target] = set()
        self._told: dict[_Target, str] = {}
        self._news = asyncio.Event()

    def see_namespace(self, namespace: str, annotations: Mapping[str, str]) -> None:
        """What a namespace asks for."""
        if self._namespaces and namespace not in self._namespaces:
            return
        asked = frozenset(filter(None, (name.strip() for name in annotations.get(annotation.ROOTS, "").split(","))))
        before = self._asked.pop(namespace, frozenset())
        if asked:
            self._asked[namespace] = asked
        self._want((namespace, authority) for authority in asked ^ before)

    def lose_namespace(self, namespace: str) -> None:
        """A namespace is gone, and what was in it."""
        for authority in self._asked.pop(namespace, frozenset()):
            self._told.pop((namespace, authority), None)

    def see_config_map(self, body: Mapping[str, Any]) -> None:
        """A ConfigMap with our label; one that nobody asks for any more is removed."""
        target = _target(body)
        held = _held(body)
        if target is not None and self._held.get(target) != held:
            self._held[target] = held
            self._want([target])

    def lose_config_map(self, body: Mapping[str, Any]) -> None:
        """A ConfigMap is gone; another one may have its name by now."""
        target = _target(body)
        held = self._held.get(target) if target else None
        if target is not None and held is not None and held.uid == body["metadata"]["uid"]:
            del self._held[target]
            self._want([target])

    def authority_changed(self, name: str) -> None:
        """An authority may have other roots."""
        self._want((namespace, name) for namespace, asked in self._asked.items() if name in asked)

    def wake(self) -> None:
        """This replica leads now: what the one before left undone is found again."""
        self._want(
            {(namespace, name) for namespace, asked in self._asked.items() for name in asked} | self._held.keys()
        )

    def _want(self, targets: Any) -> None:
        self._todo.update(targets)
        self._news.set()

    async def run(self) -> None:
        """Bring one namespace after the other up to date, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._todo and self._leads():
                target = self._todo.pop()
                try:
                    await self._settle(*target)
                except ClusterError as failure:
                    log.warning("roots not written", extra={"namespace": target[0], "error": str(failure)})
                    self._again(target, RETRY)

    def _again(self, target: _Target, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._want, [target])

    async def _settle(self, namespace: str, authority: str) -> None:
        target, held = (namespace, authority), self._held.get((namespace, authority))
        if authority not in self._asked.get(namespace, ()):
            self._told.pop(target, None)
            if held is not None:
                await self._store.delete_config_map(namespace, PREFIX + authority, held.uid)
                self._held.pop(target, None)
            return
        view = self._view(authority)
        if view is None or not view.roots:
            if view is not None:
                await self._explain(target, Reason(view.reason), view.message)
            return
        if held and held.pem == view.bundle and is_trust_store(held.trust_store, view.roots):
            return
        try:
            written = _held(await self._write(namespace, authority, view, held))
            if target not in self._todo:  # else the watch has shown what came of it, or what somebody made of that
                self._held[target] = written
            self._told.pop(target, None)
        except NotFound:
            return  # the namespace is going, or news of the ConfigMap is on its way
        except Conflict:
            if held is None:
                message = f"ConfigMap {PREFIX}{authority} exists and was not made for this: remove it or rename it"
                await self._explain(target, Reason.CONFLICT, message)
            self._again(target, TAKEN_RETRY)

    async def _write(
        self, namespace: str, authority: str, view: AuthorityView, held: _Held | None
    ) -> Mapping[str, Any]:
        content = {
            "metadata": {"labels": {annotation.ROOTS: authority, "app.kubernetes.io/managed-by": "certrenewal"}},
            "data": {PEM: dump_certificates(view.roots).decode()},
            "binaryData": {TRUST_STORE: base64.b64encode(trust_store(view.roots)).decode()},
        }
        return await self._store.put_config_map(namespace, PREFIX + authority, content, uid=held.uid if held else None)

    async def _explain(self, target: _Target, reason: Reason, message: str) -> None:
        """One Event on the namespace that asks for what it cannot have."""
        if self._told.get(target) == message:
            return
        self._told[target] = message
        subject = Subject(api_version="v1", kind="Namespace", namespace="", name=target[0], uid="")
        await self._reporter.tell(subject, reason, f"annotation {annotation.ROOTS}: {message}", warning=True)


def _target(body: Mapping[str, Any]) -> _Target | None:
    metadata = body["metadata"]
    authority = (metadata.get("labels") or {}).get(annotation.ROOTS)
    if authority is None or metadata["name"] != PREFIX + authority:
        return None
    return metadata["namespace"], authority


def _held(body: Mapping[str, Any]) -> _Held:
    try:
        store = base64.b64decode((body.get("binaryData") or {}).get(TRUST_STORE, ""), validate=True)
    except binascii.Error:
        store = b""
    return _Held(
        uid=body["metadata"]["uid"], pem=str((body.get("data") or {}).get(PEM, "")).encode(), trust_store=store
    )
