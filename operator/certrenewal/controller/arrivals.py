"""Which of the administrator's kinds of workloads are installed, and which of them come and go?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from certrenewal.domain.kinds import Resource
from certrenewal.kube.errors import ClusterError, Unavailable
from certrenewal.kube.store import Store

log = logging.getLogger(__name__)

PAUSE = 15.0  # seconds between two looks
RETRY = 1.0  # seconds, where there was no answer to the first


class Arrivals:
    """Looks for the kinds that are absent, for as long as they are."""

    def __init__(self, store: Store, resources: Iterable[Resource], namespace: str) -> None:
        """``namespace``: one that the account may list them in, empty for all."""
        self._resources = sorted(resources)
        self.absent = set(self._resources)
        self._store = store
        self._namespace = namespace
        self._told: dict[Resource, str] = {}
        self._changed: asyncio.Queue[Resource] = asyncio.Queue()

    async def look(self) -> None:
        """The first look, which ends when there is an answer for each kind."""
        for resource in self._resources:
            while True:
                if await self._is_answered(resource):
                    break
                await asyncio.sleep(RETRY)

    async def run(self) -> None:
        """Look for ever, where there is something to look for."""
        while self._resources:
            await asyncio.sleep(PAUSE)
            for resource in sorted(self.absent):
                await self._is_answered(resource)
                if resource not in self.absent:
                    log.info("a kind of extraWorkloads is there now", extra={"resource": str(resource)})
                    self._changed.put_nowait(resource)

    def lose(self, resource: Resource) -> None:
        """A kind is not installed any more, says its watch."""
        if resource not in self.absent:
            log.warning("a kind of extraWorkloads was uninstalled", extra={"resource": str(resource)})
            self.absent.add(resource)
            self._changed.put_nowait(resource)

    async def changed(self) -> Resource:
        """Wait for one that came or went after the first look."""
        return await self._changed.get()

    async def _is_answered(self, resource: Resource) -> bool:
        """Ask for one kind, and whether the answer can be built on."""
        try:
            await self._store.probe(resource, self._namespace)
        except Unavailable as failure:
            log.warning("the API server does not answer", extra={"error": str(failure)})
            return False
        except ClusterError as failure:
            self._warn(resource, failure)
        else:
            self.absent.discard(resource)
            self._told.pop(resource, None)
        return True

    def _warn(self, resource: Resource, failure: ClusterError) -> None:
        """Once for each cause, not with each look."""
        if self._told.get(resource) != str(failure):
            self._told[resource] = str(failure)
            log.warning(
                "a kind of extraWorkloads cannot be watched, and is asked for again",
                extra={"resource": str(resource), "error": str(failure), "retry_in": PAUSE},
            )
