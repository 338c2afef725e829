"""Does nobody notice a renewal: a server under steady traffic gets a new certificate and is restarted with it."""

from __future__ import annotations

from tests.node import stories
from tests.node.node import Node
from tests.node.site import NodeSite


def test_a_renewal_under_traffic_fails_no_handshake(node: Node, certrenewal: NodeSite, shop: str) -> None:
    certrenewal.order(shop, names=f"web.{shop}.svc")
    first = certrenewal.await_ready(shop)
    stories.create(node, stories.server(shop))
    node.await_rollout(shop, "deployment/web")
    stories.create(node, stories.client(shop))
    began = stories.await_well(node, shop)

    node.annotate("secrets", shop, "web-tls", renew_now="1")
    second = certrenewal.await_new(shop, after=first)
    certrenewal.await_rolled_out(shop)
    node.await_rollout(shop, "deployment/web")
    met = [meeting for meeting in stories.await_meetings(node, shop, count=50) if meeting.at >= began]

    assert stories.failed(met) == []
    assert {meeting.decimal for meeting in met} == {first.leaf.serial, second.leaf.serial}
    assert {meeting.decimal for meeting in met[-20:]} == {second.leaf.serial}
    assert len({meeting.pod for meeting in met[-50:]}) > 1
