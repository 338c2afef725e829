"""The API server itself refuses what the schema can refuse, and explains every field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.site import Site
from tests.testbed import manifests
from tests.testbed.api import ApiError

HOOK = {"name": "ping", "url": "https://a.example.com/ping"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "days": ({"duration": "1d"}, "spec.duration"),
    "zero duration": ({"duration": "0s"}, "spec.duration"),
    "percent of a hundred": ({"renewBefore": "100%"}, "spec.renewBefore"),
    "renewBefore beyond duration": ({"duration": "1h", "renewBefore": "2h"}, "spec.renewBefore"),
    "no names": ({"names": []}, "spec.names"),
    "unknown key": ({"key": {"algorithm": "RSA-1024"}}, "spec.key.algorithm"),
    "unknown rotation": ({"key": {"rotation": "Sometimes"}}, "spec.key.rotation"),
    "equal data keys": ({"dataKeys": {"crt": "tls.key"}}, "spec.dataKeys"),
    "unreadable restart": ({"restart": "Pod/web"}, "spec.restart"),
    "restart of what is never restarted": ({"restart": "Rollout/web, CronJob/nightly"}, "spec.restart"),
    "restart of no kind": ({"restart": "rollout/web"}, "spec.restart"),
    "no port to verify": ({"verify": {"host": "web"}}, "spec.verify.port"),
    "a port beyond ports": ({"verify": {"port": 65536}}, "spec.verify.port"),
    "a URL to verify": ({"verify": {"port": 443, "host": "https://web"}}, "spec.verify.host"),
    "bad Secret name": ({"secretName": "Web"}, "spec.secretName"),
    "hook by plain HTTP": ({"hooks": [{**HOOK, "url": "http://a.example.com"}]}, "spec.hooks[0].url"),
    "hook with a user": ({"hooks": [{**HOOK, "url": "https://u:p@a.example.com"}]}, "spec.hooks[0].url"),
    "hooks of one name": ({"hooks": [HOOK, HOOK]}, "spec.hooks[1]"),
    "hook that takes long": ({"hooks": [{**HOOK, "timeout": "61s"}]}, "spec.hooks[0].timeout"),
    "roots twice": ({"hooks": [{**HOOK, "caBundle": "x", "authority": "y"}]}, "spec.hooks[0]"),
    "header without a value": ({"hooks": [{**HOOK, "headers": [{"name": "A"}]}]}, "spec.hooks[0].headers[0]"),
    "a Secret that is a path": (
        {"hooks": [{**HOOK, "headers": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "../a", "key": "b"}}}]}]},
        "spec.hooks[0].headers[0].valueFrom.secretKeyRef.name",
    ),
    "a token for too long": ({"token": {"lifetime": "61m"}}, "spec.token.lifetime"),
    "a token for too short": ({"token": {"lifetime": "999ms"}}, "spec.token.lifetime"),
    "a token and a format": ({"token": {}, "formats": ["der"]}, "spec.token"),
    "a token and a hook": ({"token": {}, "hooks": [HOOK]}, "spec.token"),
    "a token and a revocation": ({"token": {}, "revoke": ["OnDelete"]}, "spec.token"),
    "a token and a restart": ({"token": {}, "restart": "Never"}, "spec.token"),
}

BAD_AUTHORITIES: dict[str, tuple[dict[str, Any], str]] = {
    "plain HTTP": ({"url": "http://ca.example.com"}, "spec.url"),
    "a path": ({"url": "https://ca.example.com/path"}, "spec.url"),
    "short fingerprint": ({"fingerprint": "abc"}, "spec.fingerprint"),
    "fingerprint and bundle": ({"caBundle": "-----BEGIN CERTIFICATE-----"}, "spec"),
    "namespaces and selector": (
        {"policy": [{"namespaces": ["a"], "namespaceSelector": {}, "names": ["b"]}]},
        "spec.policy[0]",
    ),
    "a rule for nobody": ({"policy": [{"names": ["b"]}]}, "spec.policy[0]"),
    "a rule for no account": (
        {"policy": [{"namespaces": ["a"], "names": ["b"], "serviceAccounts": []}]},
        "spec.policy[0].serviceAccounts",
    ),
    "a rule without names": ({"policy": [{"namespaces": ["a"], "names": []}]}, "spec.policy[0].names"),
    "no concurrency": ({"limits": {"concurrency": 0}}, "spec.limits.concurrency"),
}


@pytest.mark.parametrize(("spec", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_a_certrenewal_is_refused_by_field(site: Site, namespace: str, spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as refusal:
        site.plane.create(manifests.cert_renewal("bad", namespace, spec))

    assert refusal.value.status == 422
    assert field in refusal.value.body


@pytest.mark.parametrize(("change", "field"), BAD_AUTHORITIES.values(), ids=BAD_AUTHORITIES.keys())
def test_a_certauthority_is_refused_by_field(site: Site, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiError) as refusal:
        site.plane.create(manifests.cert_authority("bad", site.ca, password=None, **change))

    assert refusal.value.status == 422
    assert field in refusal.value.body


def test_defaults_are_filled_in(site: Site, namespace: str) -> None:
    made = site.plane.create(manifests.cert_renewal("least", namespace, {"key": {}, "dataKeys": {}}))

    assert made["spec"] == {
        "authority": "default",
        "restart": "Auto",
        "key": {"rotation": "Never"},
        "dataKeys": {"crt": "tls.crt", "key": "tls.key", "ca": "ca.crt"},
    }


@pytest.mark.parametrize("plural", ["certrenewals", "certauthorities"])
def test_kubectl_explains_every_field(site: Site, plural: str) -> None:
    crd = site.plane.get("customresourcedefinitions", "", f"{plural}.certrenewal.dev")
    (version,) = crd["spec"]["versions"]

    mute = list(undescribed(version["schema"]["openAPIV3Schema"], plural))
    explained = site.plane.kubectl("explain", f"{plural}.spec")

    assert mute == []
    assert "DESCRIPTION" in explained


def undescribed(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The paths of all fields without a description; metadata is Kubernetes' own."""
    for name, field in (schema.get("properties") or {}).items():
        if name == "metadata":
            continue
        if not field.get("description"):
            yield f"{path}.{name}"
        yield from undescribed(field, f"{path}.{name}")
        yield from undescribed(field.get("items") or {}, f"{path}.{name}[]")


def test_short_names_and_the_category_find_the_objects(site: Site, namespace: str) -> None:
    site.plane.create(manifests.cert_renewal("short", namespace, {"names": [f"w.{namespace}.svc"]}))

    assert "short" in site.plane.kubectl("get", "crn", "-n", namespace)
    assert "default" in site.plane.kubectl("get", "cra")
    both = site.plane.kubectl("get", "certrenewal-dev", "-n", namespace)
    assert "certrenewal.certrenewal.dev/short" in both
    assert "certauthority.certrenewal.dev/default" in both
    assert "short" in site.plane.kubectl("get", "certrenewal", "-n", namespace)
