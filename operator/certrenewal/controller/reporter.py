"""How do users hear of a change: one Event on the object that it is about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from certrenewal.controller.cache import Renewal
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import Workload
from certrenewal.kube.errors import ClusterError
from certrenewal.kube.store import API_VERSION, Store, Subject

log = logging.getLogger(__name__)


class Reporter:
    """Posts Events and writes the same to the log. An Event that cannot be posted stops nothing."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def tell(self, subject: Subject, reason: Reason, message: str, *, warning: bool = False) -> None:
        """One Event about ``subject``."""
        log.log(
            logging.WARNING if warning else logging.INFO,
            "event",
            extra={
                "kind": subject.kind,
                "namespace": subject.namespace,
                "object": subject.name,
                "reason": reason.value,
                "text": message,
            },
        )
        try:
            await self._store.post_event(
                subject, warning=warning, reason=reason.value, message=message, at=self._clock()
            )
        except ClusterError as failure:
            log.warning("event not posted", extra={"error": str(failure)})


def about(renewal: Renewal) -> Subject:
    """The CertRenewal as the subject of an Event."""
    return Subject(
        api_version=API_VERSION,
        kind="CertRenewal",
        namespace=renewal.key.namespace,
        name=renewal.key.name,
        uid=renewal.uid,
    )


def about_workload(workload: Workload) -> Subject:
    """A workload as the subject of an Event."""
    return Subject(
        api_version=workload.resource.api_version,
        kind=workload.ref.kind.partition(".")[0],
        namespace=workload.namespace,
        name=workload.ref.name,
        uid=workload.uid,
    )
