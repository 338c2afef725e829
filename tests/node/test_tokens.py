"""Does the pod of docs/tokens.md get a certificate by a one-time token, with the proof that its kubelet projects?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from certrenewal.domain.certificate import parse_chain
from tests.node import images, stories
from tests.node.node import Node
from tests.node.site import NodeSite
from tests.testbed import pages
from tests.testbed.api import Manifest

HEADING = "For pods"
SHOP = "shop"


@pytest.fixture
def pod() -> Manifest:
    """The page's pod; only what runs beside the certificate is ours, and nothing is pulled."""
    (text,) = pages.blocks("tokens.md", "yaml")[HEADING]
    found: Manifest = yaml.safe_load(text)
    (first,), (web,) = found["spec"]["initContainers"], found["spec"]["containers"]
    first["imagePullPolicy"] = "Never"
    web |= {"image": "python:3.13-slim", "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    found["spec"]["terminationGracePeriodSeconds"] = 1
    return found


@pytest.fixture
def shop(node: Node, certrenewal: NodeSite) -> Iterator[str]:
    """The namespace that the page names, with the ServiceAccount of its pod."""
    stories.open_shop(node, SHOP)
    node.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": SHOP}})
    yield SHOP
    node.delete("namespaces", "", SHOP)


def test_the_pod_of_the_page_gets_a_certificate_whose_key_nobody_else_has(node: Node, shop: str, pod: Manifest) -> None:
    node.load(images.step_cli())
    node.create(pod)
    _await_ready(node, shop)
    chain = parse_chain(node.exec(shop, "web", "cat", "/run/tls/tls.crt").encode())

    assert [str(name) for name in chain.leaf.names] == ["web.shop.svc"]
    assert "PRIVATE KEY" in node.exec(shop, "web", "cat", "/run/tls/tls.key")
    assert node.objects("secrets", shop) == []


def _await_ready(node: Node, namespace: str) -> None:
    try:
        node.kubectl("wait", "pod/web", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    except RuntimeError as failure:
        told = node.kubectl("logs", "-n", namespace, "web", "-c", "certificate", check=False)
        raise AssertionError(f"{failure}\n{told}{node.describe(namespace)}") from failure
