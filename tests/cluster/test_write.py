"""A Secret is written in one guarded patch, and nothing in it but what is the operator's is touched."""

from __future__ import annotations

import threading

from certrenewal.domain.certificate import Chain, dump_certificates, key_fits, load_key, parse_chain
from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.processes import until


def test_foreign_keys_labels_and_annotations_survive(site: Site, namespace: str) -> None:
    annotations = {**manifests.prefixed(renew="true", names=f"w.{namespace}.svc"), "example.com/owner": "shop"}
    made = manifests.secret(
        "web-tls", namespace, {"config.yaml": "a: 1"}, annotations=annotations, labels={"team": "shop"}
    )
    site.plane.create(made)

    first = site.await_ready(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)
    found = site.secret(namespace)

    assert manifests.decoded(found, "config.yaml") == b"a: 1"
    assert found["metadata"]["labels"] == {"team": "shop"}
    assert found["metadata"]["annotations"] == {**annotations, "certrenewal.dev/renew-now": "1"}
    assert set(found["data"]) == {"config.yaml", "tls.crt", "tls.key", "ca.crt"}
    assert "finalizers" not in found["metadata"]
    assert "ownerReferences" not in found["metadata"]


def test_data_keys_are_the_users_choice(site: Site, namespace: str) -> None:
    site.order(namespace, data_keys="crt=server.pem,key=server.key,ca=roots.pem")

    site.await_condition(namespace, status="True")

    assert set(site.secret(namespace)["data"]) == {"server.pem", "server.key", "roots.pem"}


def test_a_reader_never_sees_a_pair_that_does_not_match(site: Site, namespace: str) -> None:
    site.order(namespace, key_rotation="Always")
    chain = site.await_ready(namespace)
    stop, mismatches, reads = threading.Event(), [], []

    def poll() -> None:
        while not stop.is_set():
            found = site.secret(namespace)
            leaf = parse_chain(manifests.decoded(found, "tls.crt")).leaf
            reads.append(leaf.serial)
            if not key_fits(load_key(manifests.decoded(found, "tls.key")), leaf):
                mismatches.append(leaf.serial)

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for number in range(8):
            site.plane.annotate("secrets", namespace, "web-tls", renew_now=str(number))
            chain = site.await_new(namespace, after=chain)
    finally:
        stop.set()
        reader.join()

    assert len(set(reads)) > 4
    assert mismatches == []


def test_an_edit_by_hand_is_healed_by_the_gentlest_step(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    calls = site.calls()

    patch = {"data": {"ca.crt": manifests.encoded("garbage")}}
    site.plane.merge_patch("secrets", namespace, "web-tls", patch)
    until(lambda: manifests.decoded(site.secret(namespace), "ca.crt") != b"garbage", 10, "the roots are back")
    whole = manifests.decoded(site.secret(namespace), "tls.crt")
    leaf_alone = {"data": {"tls.crt": manifests.encoded(leaf_pem(first))}}
    site.plane.merge_patch("secrets", namespace, "web-tls", leaf_alone)
    until(lambda: manifests.decoded(site.secret(namespace), "tls.crt") == whole, 10, "the chain is back")
    garbled = manifests.encoded(leaf_pem(first) + b"-----BEGIN CERTIFICATE-----\nMIIB")
    site.plane.merge_patch("secrets", namespace, "web-tls", {"data": {"tls.crt": garbled}})
    until(lambda: manifests.decoded(site.secret(namespace), "tls.crt") == whole, 10, "the chain is back again")
    unsigned = site.calls() - calls
    site.plane.merge_patch("secrets", namespace, "web-tls", {"data": {"tls.key": manifests.encoded("garbage")}})
    site.await_new(namespace, after=first)

    assert unsigned == 0
    assert site.status(namespace)["lastRenewal"]["reason"] == "Malformed"


def leaf_pem(chain: Chain) -> bytes:
    """The leaf of a chain alone."""
    return dump_certificates(chain.certificates[:1])


def test_a_deleted_secret_of_a_certrenewal_by_hand_comes_back(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_renewal("hand", namespace, {"names": [f"web.{namespace}.svc"]}))
    first = site.await_ready(namespace, "hand")

    site.plane.delete("secrets", namespace, "hand")
    second = site.await_new(namespace, "hand", after=first)

    assert second.leaf.names == first.leaf.names


def test_an_immutable_secret_is_told_of_and_left(site: Site, namespace: str) -> None:
    annotations = manifests.prefixed(renew="true", names=f"w.{namespace}.svc")
    calls = site.calls()
    site.plane.create(manifests.secret("web-tls", namespace, {"a": "b"}, annotations=annotations, immutable=True))

    message = site.await_condition(namespace, status="False", reason="Immutable")

    assert "immutable: true" in message
    assert site.calls() == calls


def test_a_secret_of_the_same_name_made_again_is_followed(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)
    site.plane.delete("secrets", namespace, "web-tls")
    made = site.order(namespace)

    def owner() -> str:
        found = site.plane.find("certrenewals", namespace, "web-tls") or {"metadata": {}}
        return str((found["metadata"].get("ownerReferences") or [{}])[0].get("uid", ""))

    until(lambda: owner() == made["metadata"]["uid"], 20, "a CertRenewal owned by the new Secret")
    until(lambda: "tls.crt" in site.secret(namespace).get("data", {}), 20, "the new Secret is filled")
