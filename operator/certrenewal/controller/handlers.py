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

from certrenewal.controller.operator import AUTHORITIES, CONFIG_MAPS, NAMESPACES, Operator
from certrenewal.domain import annotation
from certrenewal.domain.kinds import Resource
from certrenewal.kube.store import GROUP
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
    _wire(registry, operator)
    namespaces = operator.settings.watch_namespaces
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        # kopf's own choice fails where the user has no name. The type is private.
        identity=operator.settings.identity,  # type: ignore[arg-type]
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


def _wire(registry: kopf.OperatorRegistry, operator: Operator) -> None:
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

    @kopf.on.cleanup(registry=registry, id="stop")
    async def stop(**_: Any) -> None:
        await operator.stop()

    watched: dict[Resource, _See] = {NAMESPACES: operator.see_namespace, AUTHORITIES: operator.see_authority}
    if operator.settings.trust_bundles:
        watched[CONFIG_MAPS] = operator.see_config_map
    for resource, see in watched.items():
        _watch(registry, resource, see)


def _watch(registry: kopf.OperatorRegistry, resource: Resource, see: _See) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=f"see-{resource.plural}")
    async def handle(*, type: str | None, body: kopf.Body, **_: Any) -> None:  # noqa: A002 - kopf's word
        try:
            see(type, body)
        except Exception:
            # An object that cannot be read must not cost the others their events. Its body stays out of the log.
            metadata = body.metadata
            log.exception("event not understood", extra={"resource": str(resource), "object": metadata.get("name")})
