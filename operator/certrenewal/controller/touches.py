"""How do pods that nobody restarts get new files soon: their kubelet is made to look, by an annotation on each.

By itself a kubelet looks about once a minute whether a mounted Secret has changed, and at once where the pod changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from certrenewal.domain.rollout import Workload, mark_key
from certrenewal.kube.errors import ClusterError
from certrenewal.kube.pods import Pod

log = logging.getLogger(__name__)

AT_ONCE = 4  # workloads


class Patches(Protocol):
    """Who lists and annotates pods."""

    async def running(self, workload: Workload, *, every: bool) -> list[Pod]:
        """The running pods of a workload, all of them or the first hundred."""

    async def touch(self, pod: Pod, marks: Mapping[str, str]) -> None:
        """Annotate one."""


class Touches:
    """Touches pods, once for each certificate. Nothing rests on it: without, the files come a minute later."""

    def __init__(self, pods: Patches, leads: Callable[[], bool]) -> None:
        self._pods = pods
        self._leads = leads
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def soon(self, workload: Workload, secret: str, mark: str) -> None:
        """Touch the pods of a workload in the background, where they have files of this Secret."""
        if not mark or not workload.consumption.mounts_of(secret):
            return
        task = asyncio.create_task(self._touch_all(workload, {mark_key(secret): mark}), name="touch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def touch(self, pods: list[Pod], marks: Mapping[str, str]) -> None:
        """Touch these pods; a failure is logged."""
        async with self._slots:
            await self._touch(pods, marks)

    async def close(self) -> None:
        """Leave what is still to be touched."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _touch_all(self, workload: Workload, marks: Mapping[str, str]) -> None:
        async with self._slots:
            try:
                pods = await self._pods.running(workload, every=False) if self._leads() else []
            except ClusterError as failure:
                _not_touched(workload.namespace, str(workload.ref), failure)
            else:
                await self._touch(pods, marks)

    async def _touch(self, pods: list[Pod], marks: Mapping[str, str]) -> None:
        for pod in pods:
            if not self._leads():
                return
            try:
                await self._pods.touch(pod, marks)
            except ClusterError as failure:
                _not_touched(pod.namespace, pod.name, failure)
                return  # the others would fare no better


def _not_touched(namespace: str, name: str, failure: ClusterError) -> None:
    log.warning("pods not touched", extra={"namespace": namespace, "object": name, "error": str(failure)})
