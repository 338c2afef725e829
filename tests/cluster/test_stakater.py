"""For those who come from Stakater's Reloader, its annotations decide who is restarted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.site import Site, installed
from tests.cluster.test_kinds import standing
from tests.cluster.test_restart import renewed
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.controlplane import ControlPlane

AUTO = "reloader.stakater.com/auto"
WISHES: dict[str, dict[str, str]] = {
    "auto": {AUTO: "true"},
    "named": {"secret.reloader.stakater.com/reload": "web-tls,db-tls"},
    "ours": manifests.prefixed(restart="Auto"),
    "silent": {},
    "off": {AUTO: "false"},
    "without": {AUTO: "true", "secrets.exclude.reloader.stakater.com/reload": "web-tls"},
}


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """An operator that honours Reloader's annotations."""
    with installed(plane, make_ca(backdate="0s"), values={"restarts": {"honourReloader": True}}) as running:
        yield running


def test_who_asks_reloader_or_us_is_restarted_and_nobody_else(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)
    for name, wish in WISHES.items():
        site.plane.create(manifests.deployment(name, namespace, manifests.volume("web-tls"), annotations=wish))
    site.await_rolled_out(namespace)

    renewed(site, namespace)

    assert {name: site.generation(namespace, name) for name in WISHES} == {
        "auto": 2,
        "named": 2,
        "ours": 2,
        "silent": 1,
        "off": 1,
        "without": 1,
    }
    assert standing(site, namespace)["Deployment/silent"] == ("Skipped", "has no reloader.stakater.com annotation")
    assert site.status(namespace)["restarts"] == "3/3"
