"""An annotated Secret is kept fresh, one without the annotation is left alone, and no certificate is wasted."""

from __future__ import annotations

import secrets

from certrenewal.domain.certificate import dump_key, load_key
from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.processes import until


def test_an_annotated_secret_is_filled_and_owned(site: Site, namespace: str) -> None:
    secret = site.order(namespace)

    chain = site.await_ready(namespace)
    renewal = site.plane.get("certrenewals", namespace, "web-tls")

    assert [str(name) for name in chain.leaf.names] == [f"web-tls.{namespace}.svc"]
    assert renewal["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Secret", "name": "web-tls", "uid": secret["metadata"]["uid"], "controller": True}
    ]
    assert renewal["spec"]["secretName"] == "web-tls"
    assert ("certrenewal", "Apply") in {(f["manager"], f["operation"]) for f in renewal["metadata"]["managedFields"]}
    assert site.condition(namespace) == ("True", "Issued")


def test_a_secret_without_the_annotation_is_left_alone(site: Site, namespace: str) -> None:
    names = f"web.{namespace}.svc"
    site.plane.create(manifests.secret("plain", namespace, annotations=manifests.prefixed(names=names)))
    site.plane.create(
        manifests.secret("refused", namespace, annotations=manifests.prefixed(renew="false", names=names))
    )
    site.order(namespace)

    site.await_ready(namespace)

    assert site.plane.find("certrenewals", namespace, "plain") is None
    assert site.plane.find("certrenewals", namespace, "refused") is None


def test_taking_the_annotation_away_leaves_the_data(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)
    data = site.secret(namespace)["data"]

    site.plane.annotate("secrets", namespace, "web-tls", renew=None)

    until(lambda: site.plane.find("certrenewals", namespace, "web-tls") is None, 10, "the CertRenewal is gone")
    assert site.secret(namespace)["data"] == data


def test_a_changed_annotation_changes_the_spec(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", names="www.example.com,web.example.com")
    second = site.await_new(namespace, after=first)

    assert {str(name) for name in second.leaf.names} == {"www.example.com", "web.example.com"}
    assert second.leaf.subject == "www.example.com"
    assert site.status(namespace)["lastRenewal"]["reason"] == "NamesChanged"


def test_a_certificate_made_by_hand_is_taken_over_as_it_is(site: Site, namespace: str) -> None:
    crt, key = site.ca.certificate(f"web.{namespace}.svc", not_after="24h")
    before = site.calls()

    annotations = manifests.prefixed(renew="true")
    made = manifests.tls_secret("web-tls", namespace, crt, key, annotations=annotations)
    site.plane.create(made)
    chain = site.await_ready(namespace)
    found = site.secret(namespace)

    assert site.calls() == before
    assert site.condition(namespace) == ("True", "Adopted")
    assert {name: found["data"][name] for name in ("tls.crt", "tls.key")} == made["data"]
    assert [str(name) for name in chain.leaf.names] == [f"web.{namespace}.svc"]


def test_a_key_as_step_writes_it_is_pkcs8_after_a_renewal(site: Site, namespace: str) -> None:
    crt, key = site.ca.certificate(f"web.{namespace}.svc", not_after="24h")
    annotations = manifests.prefixed(renew="true")
    site.plane.create(manifests.tls_secret("web-tls", namespace, crt, key, annotations=annotations))
    adopted = site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    renewed = site.await_new(namespace, after=adopted)
    written = manifests.decoded(site.secret(namespace), "tls.key")

    assert key.startswith("-----BEGIN EC PRIVATE KEY-----")
    assert written == dump_key(load_key(key.encode()))
    assert renewed.leaf.key_fingerprint == adopted.leaf.key_fingerprint


def test_a_certificate_of_another_ca_is_replaced_under_the_same_names(
    site: Site, namespace: str, foreign_pair: tuple[str, str]
) -> None:
    annotations = manifests.prefixed(renew="true", names=f"web.{namespace}.svc")
    site.plane.create(manifests.tls_secret("web-tls", namespace, *foreign_pair, annotations=annotations))

    chain = site.await_ready(namespace)

    assert "Testbed" in chain.leaf.issuer
    assert site.status(namespace)["lastRenewal"]["reason"] == "IssuerChanged"


def test_a_foreign_certificate_that_other_data_keys_point_to_is_replaced(
    site: Site, namespace: str, foreign_pair: tuple[str, str]
) -> None:
    chain, key = foreign_pair
    site.plane.create(manifests.secret("web-tls", namespace, {"other.crt": chain, "other.key": key}))
    wanted = {"secretName": "web-tls", "names": ["foreign.example.com"]}
    site.plane.create(manifests.cert_renewal("web-tls", namespace, wanted))
    site.await_ready(namespace)

    keys = {"spec": {"dataKeys": {"crt": "other.crt", "key": "other.key"}}}
    site.plane.merge_patch("certrenewals", namespace, "web-tls", keys)

    def replaced() -> bool:
        return manifests.decoded(site.secret(namespace), "other.crt") != chain.encode()

    until(replaced, 10, "the authority's certificate is where the data keys point to")
    site.await_condition(namespace, status="True")
    assert site.status(namespace)["lastRenewal"]["reason"] == "IssuerChanged"


def test_a_certrenewal_by_hand_creates_and_fills_its_secret(site: Site, namespace: str) -> None:
    spec = {"secretName": "made-tls", "names": [f"web.{namespace}.svc"]}
    site.plane.create(manifests.cert_renewal("hand", namespace, spec))

    site.await_condition(namespace, "hand", status="True", reason="Issued")
    secret = site.secret(namespace, "made-tls")

    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    site.chain(namespace, "made-tls")


def test_a_certrenewal_without_a_secret_name_uses_its_own(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_renewal("hand", namespace, {"names": [f"web.{namespace}.svc"]}))

    site.await_ready(namespace, "hand")

    assert site.status(namespace, "hand")["secretName"] == "hand"


def test_nothing_is_asked_for_what_a_namespace_takes_with_it(site: Site) -> None:
    """A Secret that is deleted comes back, but not where there can be none any more."""
    gone, names = f"gone-{secrets.token_hex(4)}", [f"web-{number}" for number in range(5)]
    site.plane.create(manifests.namespace(gone))
    for name in names:
        site.plane.create(manifests.cert_renewal(name, gone, {"names": [f"{name}.{gone}.svc"]}))
    for name in names:
        site.await_ready(gone, name)
    calls = site.calls()

    site.plane.delete("namespaces", "", gone)
    until(lambda: site.plane.find("namespaces", "", gone) is None, 30, "the namespace is gone")

    assert site.calls() == calls


def test_of_two_claims_on_one_secret_the_one_by_hand_wins(site: Site, namespace: str) -> None:
    spec = {"secretName": "web-tls", "names": [f"hand.{namespace}.svc"]}
    site.plane.create(manifests.cert_renewal("hand", namespace, spec))
    site.await_condition(namespace, "hand", status="True")
    before = site.calls()

    site.plane.annotate("secrets", namespace, "web-tls", renew="true", names=f"other.{namespace}.svc")
    message = site.await_condition(namespace, status="False", reason="Conflict")

    assert "CertRenewal hand" in message
    assert site.calls() == before
    assert [str(name) for name in site.chain(namespace).leaf.names] == [f"hand.{namespace}.svc"]


def test_an_unreadable_annotation_is_named_and_costs_nothing(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)
    data = site.secret(namespace)["data"]

    site.plane.annotate("secrets", namespace, "web-tls", duration="1d")
    message = site.await_condition(namespace, status="False", reason="InvalidSpec")

    assert "certrenewal.dev/duration" in message
    assert "'1d'" in message
    assert "24h" in message
    assert site.secret(namespace)["data"] == data
    until(lambda: len(site.events(namespace, reason="InvalidSpec")) == 1, 5, "one Event")

    site.plane.annotate("secrets", namespace, "web-tls", duration=None)
    site.await_condition(namespace, status="True")
