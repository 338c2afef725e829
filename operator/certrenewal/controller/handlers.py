"""Where kopf ends and we begin: watch events in, nothing back.

kopf is used as transport alone. `on.event` handlers leave neither annotation nor finalizer on anybody's object, and
return nothing; its timers, daemons, indexes and changing handlers do not scale here or would copy key material.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf
from kopf._cogs.structs.references import Insights  # the one way to change at runtime what is watched
from kopf._core.engines.peering import Identity

from certrenewal.controller.operator import Operator
from certrenewal.domain import annotation
from certrenewal.domain.kinds import Resource
from certrenewal.kube.store import GROUP, VERSION
from certrenewal.kube.watching import SERVER_TIMEOUT

log = logging.getLogger(__name__)

LOGIN_PAUSE = 5.0

_See = Callable[[str | None, Mapping[str, Any]], None]


class _Backoffs:
    """Delays between attempts that never end, so that an outage of the API server is no crash loop."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1, 2, 5, 10)
        while True:
            yield 15


async def run(operator: Operator) -> None:
    """Run until a signal ends the process."""
    registry = kopf.OperatorRegistry()
    insights = Insights()
    _wire(registry, operator, insights)
    namespaces = operator.settings.watch_namespaces
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        insights=insights,
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        identity=Identity(operator.settings.identity),  # kopf's own choice fails where the user has no name
    )


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = SERVER_TIMEOUT + 30
    settings.watching.inactivity_timeout = 1e9  # kopf 1.45 can lose a watcher for good when this one fires
    settings.watching.connect_timeout = 10
    settings.watching.field_selectors["", "v1", "secrets"] = "type!=helm.sh/release.v1"
    settings.watching.field_selectors["batch", "v1", "jobs"] = "status.successful=0"  # most Jobs are done long since
    settings.watching.label_selectors["", "v1", "configmaps"] = annotation.ROOTS
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Backoffs()
    settings.queueing.idle_timeout = 0.5  # a worker holds the body that it handled for this long
    settings.queueing.exit_timeout = 5
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=GROUP, ignored_fields=["data", "stringData"]
    )
    settings.process.ultimate_exiting_timeout = 60
    return settings


def _wire(registry: kopf.OperatorRegistry, operator: Operator, insights: Insights) -> None:
    late: list[asyncio.Task[None]] = []
    last_login = -LOGIN_PAUSE

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal last_login
        # kopf asks again at once after a 401: without a pause that is hundreds of requests a second.
        await asyncio.sleep(max(0.0, last_login + LOGIN_PAUSE - time.monotonic()))
        last_login = time.monotonic()
        return kopf.AiohttpSession(server=operator.watching.server, aiohttp_session=operator.watching.session())

    @kopf.on.startup(registry=registry, id="start")
    async def start(**_: Any) -> None:
        await operator.start()
        late.append(asyncio.create_task(_watch_arrivals(operator, insights), name="arrivals"))

    @kopf.on.cleanup(registry=registry, id="stop")
    async def stop(**_: Any) -> None:
        for task in late:
            task.cancel()
        await operator.stop()

    def workload(resource: Resource) -> _See:
        return lambda event, body: operator.see_workload(resource, event, body)

    watched: dict[tuple[str, str, str], _See] = {
        ("", "v1", "secrets"): operator.see_secret,
        ("", "v1", "namespaces"): operator.see_namespace,
        (GROUP, VERSION, "certrenewals"): operator.see_renewal,
        (GROUP, VERSION, "certauthorities"): operator.see_authority,
        **{(found.group, found.version, found.plural): workload(found) for found in operator.workloads},
    }
    if operator.settings.trust_bundles:
        watched["", "v1", "configmaps"] = operator.see_config_map
    for resource, see in watched.items():
        _watch(registry, resource, see)


async def _watch_arrivals(operator: Operator, insights: Insights) -> None:
    """Tell kopf which kinds came or went since its start: it would not notice the one, and end at the other."""
    await insights.ready_resources.wait()
    while True:
        found = await operator.arrivals.changed()
        theirs = kopf.Resource(found.group, found.version, found.plural, namespaced=True)
        async with insights.revised:
            if found in operator.arrivals.absent:
                insights.watched_resources.discard(theirs)
            else:
                insights.watched_resources.add(theirs)
            insights.revised.notify_all()


def _watch(registry: kopf.OperatorRegistry, resource: tuple[str, str, str], see: _See) -> None:
    @kopf.on.event(*resource, registry=registry, id=f"see-{resource[2]}.{resource[0]}".rstrip("."))
    async def handle(*, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        try:
            see(type, body)
        except Exception:
            # An object that cannot be read must not cost the others their events. Its body stays out of the log.
            metadata = body.metadata
            log.exception("event not understood", extra={"resource": resource[2], "object": metadata.get("name")})
