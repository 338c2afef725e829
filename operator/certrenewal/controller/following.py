"""Which collections are followed beside kopf? Those of which a cluster may have tens of thousands of objects."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from certrenewal.domain.kinds import Resource
from certrenewal.kube.reflector import Reflector, See
from certrenewal.kube.watching import Watching


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """All objects of one kind: who is shown them, and which ones (namespace and name) count as there."""

    resource: Resource
    see: See
    known: Callable[[], Iterable[tuple[str, str]]]
    query: Mapping[str, str] = field(default_factory=dict)
    may_be_absent: bool = False


class Following:
    """Follows each collection in each namespace, the first one ahead: what the others show depends on it."""

    def __init__(self, watching: Watching, namespaces: Sequence[str], collections: Sequence[Collection]) -> None:
        """``namespaces``: none for all."""
        self._watching = watching
        self._namespaces = namespaces or ("",)
        self._collections = collections
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Follow them for ever."""
        async with self._watching.session() as session, asyncio.TaskGroup() as group:
            for together in (self._collections[:1], self._collections[1:]):
                reflectors = [
                    self._reflector(session, collection, namespace)
                    for collection in together
                    for namespace in self._namespaces
                ]
                for reflector in reflectors:
                    group.create_task(reflector.run(), name="follow")
                for reflector in reflectors:
                    await reflector.listed.wait()
            self._listed.set()

    def _reflector(self, session: aiohttp.ClientSession, collection: Collection, namespace: str) -> Reflector:
        return Reflector(
            session,
            self._watching.server + collection.resource.path(namespace),
            see=collection.see,
            known=functools.partial(_within, namespace, collection.known),
            query=collection.query,
            may_be_absent=collection.may_be_absent,
        )

    async def until_listed(self) -> None:
        """Wait until everything was shown that was there at the start."""
        await self._listed.wait()


def _within(namespace: str, known: Callable[[], Iterable[tuple[str, str]]]) -> list[tuple[str, str]]:
    return [place for place in known() if namespace in ("", place[0])]
