"""Users read what happened in kubectl, Events, logs and metrics, and a secret in none of them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

from certrenewal.domain.certificate import load_key
from tests.cluster.site import PASSWORD_SECRET, SYSTEM, Site
from tests.testbed import manifests
from tests.testbed.processes import until


def test_kubectl_shows_the_columns_of_the_contract(site: Site, namespace: str) -> None:
    site.plane.create(manifests.deployment("web", namespace, manifests.volume("web-tls")))
    site.order(namespace)
    leaf = site.await_ready(namespace).leaf
    site.await_rolled_out(namespace)

    plain = site.plane.kubectl("get", "certrenewals", "-n", namespace).splitlines()
    wide = site.plane.kubectl("get", "crn", "-n", namespace, "-o", "wide").splitlines()

    assert plain[0].split() == ["NAME", "READY", "SECRET", "EXPIRES", "RENEWS", "RESTARTS", "AGE"]
    assert wide[0].split() == [*plain[0].split(), "AUTHORITY", "SERIAL", "ROUTE", "REASON"]
    name, ready, secret, expires, renews, restarts, _, authority, serial, route, reason = wide[1].split()
    assert (name, ready, secret, restarts) == ("web-tls", "True", "web-tls", "1/1")
    assert expires == leaf.not_after.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", renews)
    assert (authority, serial, route, reason) == ("default", leaf.serial, "Sign", "Issued")


def test_kubectl_shows_the_authority(site: Site) -> None:
    until(lambda: "True" in site.plane.kubectl("get", "cra"), 20, "a ready authority")
    header, line = site.plane.kubectl("get", "certauthorities").splitlines()

    assert header.split() == ["NAME", "READY", "URL", "PROVISIONER", "AGE"]
    assert line.split()[:4] == ["default", "True", site.ca.url, site.ca.provisioner]


def test_status_tells_certificate_renewal_and_history(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    leaf = site.await_new(namespace, after=first).leaf
    status = site.status(namespace)

    assert status["certificate"]["serial"] == leaf.serial
    assert status["certificate"]["fingerprint"] == leaf.fingerprint
    assert status["certificate"]["names"] == [str(name) for name in leaf.names]
    assert [entry["route"] for entry in status["history"]] == ["RenewToken", "Sign"]
    assert {c["type"] for c in status["conditions"]} == {"Ready", "RolledOut"}
    for condition in status["conditions"]:
        assert condition["observedGeneration"] == 1
        assert condition["message"]


def test_each_change_is_one_event(site: Site, namespace: str) -> None:
    site.order(namespace)
    first = site.await_ready(namespace)
    site.plane.annotate("secrets", namespace, "web-tls", renew_now="1")
    site.await_new(namespace, after=first)
    until(lambda: site.events(namespace, reason="Renewed"), 10, "the renewal is told")

    assert sorted(event["reason"] for event in site.events(namespace)) == ["Issued", "Renewed"]
    assert {event["type"] for event in site.events(namespace)} == {"Normal"}


def test_the_log_is_json_with_constant_messages(site: Site, namespace: str) -> None:
    site.order(namespace, names="denied.example.org")
    site.await_condition(namespace, status="False", reason="NameDenied")
    until(lambda: any(line.get("namespace") == namespace for line in site.operator.logs()), 10, "a line about it")

    lines = [line for line in site.operator.log_text().splitlines() if line.strip()]
    records = [json.loads(line) for line in lines]

    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    (about,) = [record for record in records if record.get("namespace") == namespace]
    assert namespace not in about["message"]
    assert about["reason"] == "NameDenied"
    assert about["level"] == "WARNING"


def test_probes_and_metrics_answer(site: Site, namespace: str) -> None:
    site.order(namespace)
    leaf = site.await_ready(namespace).leaf

    assert site.operator.http("/healthz")[0] == 200
    assert site.operator.http("/readyz")[0] == 200
    assert site.operator.metric("certrenewal_leader") == 1
    assert site.operator.metric("certrenewal_authority_ready", authority="default") == 1
    assert site.operator.metric("certrenewal_certificate_ready", namespace=namespace) == 1
    expiry = site.operator.metric("certrenewal_certificate_expiry_timestamp_seconds", namespace=namespace)
    assert expiry == leaf.not_after.timestamp()
    assert site.operator.metric("certrenewal_renewals_total", route="Sign") >= 1


def test_a_removed_certrenewal_leaves_the_metrics(site: Site, namespace: str) -> None:
    site.order(namespace)
    site.await_ready(namespace)

    site.plane.annotate("secrets", namespace, "web-tls", renew=None)

    until(lambda: not any(namespace in sample for sample in site.operator.metrics()), 10, "no sample of the namespace")


def test_no_key_token_or_password_leaves_its_place(site: Site, namespace: str) -> None:
    """At log level debug, through issue, renewal, rotation and a refusal."""
    site.order(namespace)
    site.order(namespace, "turning", key_rotation="Always")
    site.order(namespace, "denied", names="denied.example.org")
    chains = {name: site.await_ready(namespace, name) for name in ("web-tls", "turning")}
    hidden = set(keys(site, namespace))
    for name, chain in chains.items():
        site.plane.annotate("secrets", namespace, name, renew_now="1")
        site.await_new(namespace, name, after=chain)
    site.await_condition(namespace, "denied", status="False")
    hidden |= {*keys(site, namespace), site.ca.password, *tokens(site)}

    seen = [site.operator.log_text(), site.operator.http("/metrics")[1], *objects(site)]

    assert len(hidden) >= 8
    for text in seen:
        for secret in hidden:
            assert secret not in text
        assert "PRIVATE KEY" not in text


def keys(site: Site, namespace: str) -> Iterator[str]:
    """The private keys of the namespace, in each form in which they could leak."""
    for name in ("web-tls", "turning"):
        pem = manifests.decoded(site.secret(namespace, name), "tls.key")
        numbers = load_key(pem).private_numbers()  # type: ignore[union-attr]
        yield base64.b64encode(pem).decode()
        yield pem.decode().splitlines()[1]
        yield format(numbers.private_value, "x")  # type: ignore[union-attr]


def tokens(site: Site) -> Iterator[str]:
    """The one-time tokens that the CA was shown."""
    return (call["ott"] for call in site.ca.calls() if call.get("ott"))


def objects(site: Site) -> Iterator[str]:
    """Every object that the operator can write, Secrets without their data."""
    kinds = (
        "certrenewals",
        "certauthorities",
        "events",
        "deployments.apps",
        "configmaps",
        "leases.coordination.k8s.io",
    )
    for kind in kinds:
        for found in site.plane.objects(kind):
            yield json.dumps(found)
    for found in site.plane.objects("secrets"):
        about = (found["metadata"]["namespace"], found["metadata"]["name"])
        if about != (SYSTEM, PASSWORD_SECRET) and not found["type"].startswith("helm.sh"):
            yield json.dumps({key: value for key, value in found.items() if key != "data"})
