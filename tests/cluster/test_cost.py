"""What does a certificate cost: requests to the API server, also where many come at once, and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.bench.cost import memory
from tests.cluster.site import SYSTEM, Site
from tests.testbed import manifests
from tests.testbed.controlplane import account_name
from tests.testbed.processes import until

MANY = 60  # far more than an authority answers at a time
NAMES = [f"web-{number}" for number in range(MANY)]
OTHERS = 2000


@contextmanager
def spent(site: Site) -> Iterator[Counter[str]]:
    """The operator's requests for certificates meanwhile, by verb and resource."""
    since, counts = datetime.now(UTC), Counter[str]()
    yield counts
    for record in site.plane.audit(account_name(SYSTEM, site.operator.account), since=since):
        about = record.get("objectRef") or {}
        if about.get("resource") not in ("leases", "certauthorities") and record["verb"] not in ("watch", "list"):
            counts[f"{record['verb']} {about.get('resource')}/{about.get('subresource', '')}"] += 1


def at_once(work: Callable[[str], object]) -> None:
    """Do it for every name, some at the same time."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, NAMES))


def await_events(site: Site, counts: float) -> None:
    """Wait until that many were told of: an Event is the last thing that a look at a new certificate does."""
    until(lambda: site.operator.metric("certrenewal_api_requests_total", resource="events") >= counts, 30, "all told")


def test_a_certificate_costs_five_requests_and_a_renewal_four_however_many_come_at_once(
    site: Site, namespace: str
) -> None:
    with spent(site) as issued:
        at_once(lambda name: site.order(namespace, name, duration="24h"))
        await_events(site, MANY)
    with spent(site) as renewed:
        at_once(lambda name: site.plane.annotate("certrenewals", namespace, name, renew_now="1"))
        await_events(site, 2 * MANY)

    assert issued["patch secrets/"] == renewed["patch secrets/"] == MANY
    # A few looks find that the place that they saw is taken by then.
    assert issued.total() <= 5.2 * MANY, issued
    assert renewed.total() <= 4.2 * MANY, renewed


def test_secrets_of_others_cost_no_memory(site: Site, namespace: str) -> None:
    site.operator.restart()
    before = memory(site.operator.process.pid)[0]
    data = {"content": "x" * 10_000}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: site.plane.create(manifests.secret(f"u{number}", namespace, data)), range(OTHERS)))

    site.operator.restart()

    # Kept whole they would be 27 MB.
    assert memory(site.operator.process.pid)[0] - before < 10
