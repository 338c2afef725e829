"""Guards: what is kept for each certificate stays small, and of what is none of our business nothing is kept."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import orjson

from certrenewal.controller.cache import Cache, parse_renewal, parse_secret_meta
from certrenewal.domain.reasons import Reason
from certrenewal.domain.routes import Route
from certrenewal.domain.status import HISTORY, Condition, with_certificate, with_condition, with_renewal
from tests.unit.builders import NOON, a_leaf

RENEW = "certrenewal.dev/renew"
MANY = 500
KILOBYTE = 1024


def held_by(fill: Callable[[int], object]) -> float:
    """The bytes that are kept for each of many calls."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(MANY):
        fill(number)
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return kept / MANY


def a_renewal(number: int) -> bytes:
    """A CertRenewal that was renewed many times, as the API server writes it."""
    leaf = a_leaf()
    status: Any = with_certificate({}, leaf, due=NOON, duration=None, root="0" * 64)
    for _ in range(HISTORY):
        status = with_renewal(
            status, leaf, route=Route.RENEW_TOKEN, reason=Reason.RENEWAL_DUE, now=NOON, root=f"{number:064}"
        )
    for kind in ("Ready", "RolledOut"):
        condition = Condition(
            type=kind, status="True", reason=Reason.RENEWED, message="valid until tomorrow, to be renewed"
        )
        status = with_condition(status, condition, generation=1, now=NOON)
    metadata = {
        "name": f"web-{number:05}",
        "namespace": "shop",
        "uid": f"{number:036}",
        "resourceVersion": str(number + 1),
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"fieldsV1": {"f:status": {}}}] * 20,
    }
    return orjson.dumps({"metadata": metadata, "spec": {"names": [f"web-{number:05}.shop.svc"]}, "status": status})


def a_secret(number: int, **annotations: str) -> bytes:
    """A Secret's metadata."""
    metadata = {
        "name": f"web-{number:05}",
        "namespace": "shop",
        "uid": f"{number:036}",
        "resourceVersion": str(number + 1),
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 2000, **annotations},
    }
    return orjson.dumps({"metadata": metadata})


def test_a_certificate_with_a_full_history_takes_little() -> None:
    cache = Cache()
    texts = [a_renewal(number) for number in range(MANY)]

    def see(number: int) -> None:
        cache.see_renewal(parse_renewal(orjson.loads(texts[number])))
        cache.see_secret(parse_secret_meta(orjson.loads(a_secret(number, **{RENEW: "true"}))))

    assert held_by(see) < 9 * KILOBYTE


def test_secrets_of_others_leave_nothing() -> None:
    cache = Cache()

    kept = held_by(lambda number: cache.see_secret(parse_secret_meta(orjson.loads(a_secret(number)))))

    assert kept < 0.1 * KILOBYTE
    assert not cache.secrets
