"""What do tests of restarts ask: how workloads stand, when the operator restarted them, and for a renewal."""

from __future__ import annotations

from datetime import datetime

from tests.cluster.site import Certificates, Site
from tests.testbed.api import Manifest
from tests.testbed.processes import until


def workloads(site: Certificates, namespace: str, name: str = "web-tls") -> dict[str, tuple[str, str]]:
    """State and message of each workload in status."""
    found = site.status(namespace, name).get("workloads") or ()
    return {entry["name"]: (entry["state"], entry.get("message", "")) for entry in found}


def await_workload(site: Certificates, namespace: str, name: str, state: str, words: str = "") -> str:
    """Wait until a workload has this state and a message with these words; the message."""

    def there() -> bool:
        found = workloads(site, namespace).get(name, ("", ""))
        return found[0] == state and words in found[1]

    until(there, 20, f"{name} {state} with {words!r}; {workloads(site, namespace)}")
    return workloads(site, namespace)[name][1]


def settled(site: Certificates, namespace: str, *made: Manifest, **wish: str) -> None:
    """A certificate, and healthy workloads that began with it."""
    site.order(namespace, **wish)
    site.await_ready(namespace)
    for workload in made:
        site.plane.create(workload)
    names = {workload["metadata"]["name"] for workload in made}
    until(
        lambda: (
            {name: state for name, (state, _) in workloads(site, namespace).items()} == dict.fromkeys(names, "Healthy")
        ),
        20,
        f"{names} healthy",
    )


def renewed(site: Certificates, namespace: str, *names: str, value: str = "1") -> None:
    """Ask for renewals, all at once, and wait for the certificates."""
    before = {name: site.chain(namespace, name) for name in names or ("web-tls",)}
    for name in before:
        site.plane.annotate("secrets", namespace, name, renew_now=value)
    for name, chain in before.items():
        site.await_new(namespace, name, after=chain)


def restarts(site: Site, namespace: str, since: datetime) -> list[tuple[str, datetime]]:
    """The workloads that the operator restarted, each with its moment, in order."""
    return [
        (record["objectRef"]["name"], datetime.fromisoformat(record["requestReceivedTimestamp"]))
        for record in site.requests(namespace, since, verb="patch")
        if record["objectRef"].get("apiGroup") == "apps" and record["responseStatus"]["code"] == 200
    ]


def order(site: Site, namespace: str, since: datetime) -> list[str]:
    """Just their names."""
    return [name for name, _ in restarts(site, namespace, since)]
