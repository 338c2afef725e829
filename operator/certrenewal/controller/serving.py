"""Do the servers show the new certificate? They are asked beside all other work, which never waits for them.

What they answer is kept here and told by the next look at the certificate: a status has one writer at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from aiolimiter import AsyncLimiter

from certrenewal.controller.cache import Key
from certrenewal.domain.certificate import serial_of
from certrenewal.domain.serving import (
    MOST_ASKED,
    Answer,
    Endpoint,
    Question,
    Target,
    endpoints_of,
    judge,
    no_host,
    no_rights,
    no_service,
    objection,
    target_of,
)
from certrenewal.domain.status import Condition
from certrenewal.handshake import NoCertificate, served_leaf
from certrenewal.kube.errors import ClusterError, Forbidden
from certrenewal.kube.store import Store

log = logging.getLogger(__name__)

# EndpointSlices follow the pods within a second: asked at once, a pod that is about to end would answer.
FIRST = 1.0
AGAIN = (10.0, 30.0)
EVERY = 300.0
CERTIFICATES = 8  # asked about at once
ENDPOINTS = 10  # asked at once for one of them
RATE, PERIOD = 20, 0.2  # handshakes, and seconds: each takes about a millisecond of the loop that renews certificates


@dataclass(slots=True)
class _Inquiry:
    """One question, and the last answer to it."""

    question: Question
    verdict: Condition | None = None
    task: asyncio.Task[None] | None = None


class Inquiries:
    """Certificates that are to be seen at their servers, each asked about until it is seen everywhere."""

    def __init__(
        self, *, store: Store, leads: Callable[[], bool], poke: Callable[[Key], None], cluster_domain: str
    ) -> None:
        self._store = store
        self._leads = leads
        self._poke = poke
        self._cluster_domain = cluster_domain
        self._inquiries: dict[Key, _Inquiry] = {}
        self._slots = asyncio.Semaphore(CERTIFICATES)
        self._rate = AsyncLimiter(RATE, PERIOD)

    def want(self, key: Key, question: Question) -> Condition | None:
        """Ask this, unless it is being asked already; the answer so far."""
        known = self._inquiries.get(key)
        if known is not None and known.question == question:
            return known.verdict
        self.spare(key)
        inquiry = self._inquiries[key] = _Inquiry(question)
        inquiry.task = asyncio.create_task(self._pursue(key, inquiry), name=f"serving {key}")
        return None

    def spare(self, key: Key) -> None:
        """Nothing is to be asked about this certificate any more, or not now."""
        known = self._inquiries.pop(key, None)
        if known is not None and known.task is not None:
            known.task.cancel()

    async def close(self) -> None:
        """End all inquiries."""
        tasks = [inquiry.task for inquiry in self._inquiries.values() if inquiry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pursue(self, key: Key, inquiry: _Inquiry) -> None:
        for pause in _pauses():
            await asyncio.sleep(pause)
            if not self._leads():
                continue  # a look that tells of another certificate replaces this inquiry
            async with self._slots:
                verdict = await self._ask(key.namespace, inquiry.question)
            if verdict is None:
                continue
            news = verdict != inquiry.verdict
            inquiry.verdict = verdict
            if news:
                self._poke(key)
            if verdict.status == "True":
                return

    async def _ask(self, namespace: str, question: Question) -> Condition | None:
        """One round of all endpoints; None where the API server did not say which there are."""
        try:
            return await self._round(namespace, question)
        except Forbidden:
            return no_rights()
        except ClusterError as failure:
            log.warning("servers not asked", extra={"namespace": namespace, "error": str(failure)})
        except Exception:
            log.exception("servers not asked", extra={"namespace": namespace})
        return None

    async def _round(self, namespace: str, question: Question) -> Condition:
        target = target_of(question, namespace=namespace, cluster_domain=self._cluster_domain)
        if target is None:
            return no_host(namespace)
        service = await self._store.read_service(namespace, target.service)
        if service is None or service["spec"].get("type") == "ExternalName":
            return no_service(target, namespace)
        slices = await self._store.list_endpoint_slices(namespace, target.service)
        endpoints = endpoints_of(service, slices, question.verify.port)
        few = asyncio.Semaphore(ENDPOINTS)
        asked = (self._answer(endpoint, target, few) for endpoint in endpoints[:MOST_ASKED])
        return judge(question, target, await asyncio.gather(*asked), total=len(endpoints))

    async def _answer(self, endpoint: Endpoint, target: Target, few: asyncio.Semaphore) -> Answer:
        if refusal := objection(endpoint):
            return Answer(endpoint=endpoint, failure=refusal)
        async with few, self._rate:
            try:
                leaf = await served_leaf(endpoint.address, endpoint.port, target.server_name)
            except NoCertificate as failure:
                return Answer(endpoint=endpoint, failure=str(failure))
        return Answer(
            endpoint=endpoint, fingerprint=sha256(leaf).hexdigest(), serial=serial_of(leaf) or "that cannot be read"
        )


def _pauses() -> Iterator[float]:
    return itertools.chain((FIRST, *AGAIN), itertools.repeat(EVERY))
