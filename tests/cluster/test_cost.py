"""What does a certificate cost: requests to the API server, also where many come at once, and memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.bench.cost import Records, memory
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site
from tests.testbed import manifests
from tests.testbed.controlplane import account_name
from tests.testbed.processes import until

MANY = 60
NAMES = [f"web-{number}" for number in range(MANY)]
OTHERS = 2000


def spent(site: Site, namespace: str, work: Callable[[str], object]) -> Counter[str]:
    """The operator's requests in a namespace, by verb and resource, until it has told of all that the work asks for."""
    records, counts = Records(site.plane, account_name(SYSTEM, site.operator.account)), Counter[str]()

    def told() -> bool:
        for record in records.new():
            about = record.get("objectRef") or {}
            if about.get("namespace") == namespace:
                counts[f"{record['verb']} {about['resource']}"] += 1
        return counts["create events"] >= MANY  # an Event is the last thing that a look at a new certificate does

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, NAMES))
    until(told, 30, "all told")
    return counts


def test_a_certificate_costs_five_requests_and_a_renewal_four_however_many_come_at_once(
    site: Site, namespace: str
) -> None:
    narrow = manifests.cert_authority(
        "narrow", site.ca, password=(SYSTEM, PASSWORD_SECRET), limits={"concurrency": 1, "requestsPerSecond": 50}
    )
    site.plane.create(narrow)
    issued = spent(site, namespace, lambda name: site.order(namespace, name, authority="narrow", duration="24h"))
    renewed = spent(site, namespace, lambda name: site.plane.annotate("certrenewals", namespace, name, renew_now="1"))

    assert issued["create events"] == renewed["create events"] == MANY
    site.plane.delete("certauthorities", "", "narrow")
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
