"""Who acts: one replica holds the Lease, the others watch.

Written here because neither kopf's peering (which does not elect) nor the election of the client library (which has
no request timeouts and does not release) keeps two from acting at once. The holder believes in its lease for less
time than others wait before they take it, counted from before its own request and on the monotonic clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from certrenewal import metrics
from certrenewal.kube.client import Client, Object
from certrenewal.kube.errors import ClusterError, Conflict, NotFound

log = logging.getLogger(__name__)


class NotLeading(Exception):
    """Another replica acts now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Seconds: how long a lease lasts for others, how long its holder trusts it, how often it is renewed."""

    duration: float = 15.0
    trust: float = 10.0
    retry: float = 2.0

    @classmethod
    def lasting(cls, duration: timedelta) -> LeaseTimes:
        """The usual proportions for a lease of this length."""
        seconds = duration.total_seconds()
        return cls(duration=seconds, trust=seconds * 2 / 3, retry=min(2.0, seconds / 7))


class Elector:
    """Keeps the Lease, and tells whether this process holds it."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._clock = clock
        self._valid_until = 0.0
        self._ours: Object | None = None
        self._seen: tuple[str, float] = ("", 0.0)  # another's resourceVersion, and since when we see it
        self._changed = asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether this process may act right now. Asked before each effect."""
        return self._clock() < self._valid_until

    def require(self) -> None:
        """NotLeading unless this process may act right now."""
        if not self.leads:
            raise NotLeading

    async def until_leading(self) -> None:
        """Return once this process leads."""
        while not self.leads:
            self._changed.clear()
            await self._changed.wait()

    async def until_not_leading(self) -> None:
        """Return once this process does not lead."""
        while self.leads:
            self._changed.clear()
            await self._changed.wait()

    async def run(self) -> None:
        """Acquire, renew, and try again, for ever; release when cancelled."""
        try:
            while True:
                led = self.leads
                await self._attempt()
                if led != self.leads:
                    log.info("leadership changed", extra={"leads": self.leads, "identity": self._identity})
                metrics.LEADER.set(self.leads)
                self._changed.set()
                await asyncio.sleep(self._times.retry if self.leads else self._times.retry / 4)
        finally:
            await self._release()

    async def _attempt(self) -> None:
        asked = self._clock()
        try:
            lease = await self._write(await self._read())
        except Conflict:
            return  # somebody else was faster; look again
        except (ClusterError, KeyError, TypeError) as failure:
            log.warning("lease not renewed", extra={"error": str(failure)})
            return
        if lease is None:
            self._valid_until = 0.0  # another holds it, whatever we believed
            return
        self._ours = lease
        self._valid_until = asked + self._times.trust

    async def _read(self) -> Object | None:
        try:
            return await self._client.request("GET", f"{self._collection}/{self._name}", timeout=self._timeout())
        except NotFound:
            return None

    async def _write(self, lease: Object | None) -> Object | None:
        """Take or renew the lease; None where another holds it."""
        if lease is None:
            body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec(0)}
            return await self._client.request("POST", self._collection, body=body, timeout=self._timeout())
        spec = lease["spec"]
        if self._is_ours(lease):
            changed = {**spec, "renewTime": _now()}
        elif self._is_free(lease):
            changed = self._spec(int(spec.get("leaseTransitions") or 0) + 1)
        else:
            return None
        return await self._client.request(
            "PUT", f"{self._collection}/{self._name}", body={**lease, "spec": changed}, timeout=self._timeout()
        )

    def _is_ours(self, lease: Object) -> bool:
        """Whether this very process took it: a restarted container has the same identity and must wait."""
        mine = self._ours
        return (
            mine is not None
            and lease["spec"].get("holderIdentity") == self._identity
            and lease["spec"].get("acquireTime") == mine["spec"].get("acquireTime")
        )

    def _is_free(self, lease: Object) -> bool:
        """Released, or unchanged for its whole duration by our own clock: others' clocks do not matter."""
        if not lease["spec"].get("holderIdentity"):
            return True
        version, since = self._seen
        if version != lease["metadata"]["resourceVersion"]:
            self._seen = (lease["metadata"]["resourceVersion"], self._clock())
            return False
        return self._clock() - since > float(lease["spec"].get("leaseDurationSeconds") or self._times.duration)

    def _spec(self, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        """Let a standby take over at once."""
        led, self._valid_until = self.leads, 0.0
        metrics.LEADER.set(0)
        if not led or self._ours is None:
            return
        with contextlib.suppress(ClusterError, KeyError):
            lease = await self._read()
            if lease is not None and self._is_ours(lease):
                freed = {**lease["spec"], "holderIdentity": "", "renewTime": _now()}
                await self._client.request(
                    "PUT", f"{self._collection}/{self._name}", body={**lease, "spec": freed}, timeout=self._timeout()
                )

    def _timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self._times.retry)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
