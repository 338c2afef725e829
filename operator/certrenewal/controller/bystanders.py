"""Which bare Pods use a certificate? They are too many to be watched: listed in the background, where that is wanted.

The Pods of a namespace are listed when one of its certificates became another, and again from time to time while there
are some to be named.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from certrenewal.controller.cache import Cache, Key
from certrenewal.domain.kinds import POD
from certrenewal.domain.rollout import parse_workload
from certrenewal.domain.spec import WorkloadRef
from certrenewal.kube.errors import ClusterError

log = logging.getLogger(__name__)

AGAIN = 600.0  # seconds


class Lists(Protocol):
    """Who lists Pods."""

    async def bare(self, namespace: str) -> list[Mapping[str, Any]]:
        """The Pods of a namespace that no controller has made."""


class Bystanders:
    """Puts bare Pods into the cache, one namespace at a time."""

    def __init__(self, *, cache: Cache, pods: Lists, leads: Callable[[], bool], poke: Callable[[Key], None]) -> None:
        self._cache = cache
        self._pods = pods
        self._leads = leads
        self._poke = poke
        self._told: dict[Key, str] = {}
        self._named: dict[str, set[WorkloadRef]] = {}
        self._due: dict[str, float] = {}
        self._news = asyncio.Event()

    def see(self, key: Key) -> None:
        """A certificate was looked at: where it is another one now, so may be what uses it."""
        renewal = self._cache.renewals.get(key)
        fingerprint = (renewal.status.get("certificate") or {}).get("fingerprint", "") if renewal else ""
        if not fingerprint:
            self._told.pop(key, None)
        elif self._told.get(key) != fingerprint:
            self._told[key] = fingerprint
            self._due[key.namespace] = time.monotonic()
            self._news.set()

    async def run(self) -> None:
        """List one namespace after the other, for ever."""
        while True:
            namespace = await self._next()
            if not self._leads():
                self._told.clear()  # should we lead again, much may have changed
                continue
            try:
                await self._look(namespace)
            except ClusterError as failure:
                log.warning("Pods not listed", extra={"namespace": namespace, "error": str(failure)})
                self._due.setdefault(namespace, time.monotonic() + AGAIN)

    async def _next(self) -> str:
        while True:
            self._news.clear()
            namespace = min(self._due, key=self._due.__getitem__, default=None)
            left = self._due[namespace] - time.monotonic() if namespace is not None else None
            if namespace is not None and left is not None and left <= 0:
                del self._due[namespace]
                return namespace
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    async def _look(self, namespace: str) -> None:
        pods = [parse_workload(POD, body) for body in await self._pods.bare(namespace)]
        named = {pod.ref for pod in pods if pod.secrets}
        keys: set[Key] = set()
        for ref in self._named.pop(namespace, set()) - named:
            keys |= self._cache.lose_workload(namespace, ref)
        for pod in pods:
            keys |= self._cache.see_workload(pod)
        if named:
            self._named[namespace] = named
            self._due.setdefault(namespace, time.monotonic() + AGAIN)
        for key in keys:
            self._poke(key)
