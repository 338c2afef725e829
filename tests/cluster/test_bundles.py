"""A namespace that asks for an authority's roots has them, whatever happens to its ConfigMap or to the authority."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from certrenewal.domain.certificate import fingerprint, load_certificates
from tests.cluster.site import Site
from tests.conftest import MakeCA
from tests.testbed import manifests
from tests.testbed.api import Manifest
from tests.testbed.processes import until

NAME = "certrenewal-roots-default"


def ask(site: Site, namespace: str, authorities: str | None = "default") -> None:
    """Annotate the namespace."""
    site.plane.merge_patch(
        "namespaces", "", namespace, {"metadata": {"annotations": {"certrenewal.dev/roots": authorities}}}
    )


def found(site: Site, namespace: str, name: str = NAME) -> Manifest:
    """The ConfigMap, empty where there is none."""
    return site.plane.find("configmaps", namespace, name) or {}


def roots(config_map: Manifest) -> set[str]:
    """The fingerprints in the PEM file."""
    pem = (config_map.get("data") or {}).get("ca.crt", "")
    return {fingerprint(root) for root in load_certificates(pem.encode())} if pem else set()


def trusted(config_map: Manifest) -> set[str]:
    """The fingerprints in the trust store."""
    store = base64.b64decode((config_map.get("binaryData") or {}).get("truststore.p12", ""))
    return {fingerprint(entry.certificate) for entry in pkcs12.load_pkcs12(store, b"changeit").additional_certs}


def test_a_namespace_that_asks_has_the_roots_as_pem_and_for_java(site: Site, namespace: str, tmp_path: Path) -> None:
    ask(site, namespace)
    until(lambda: found(site, namespace), 20, "the ConfigMap")

    config_map = found(site, namespace)

    assert roots(config_map) == trusted(config_map) == {site.ca.fingerprint}
    if shutil.which("keytool"):
        file = tmp_path / "truststore.p12"
        file.write_bytes(base64.b64decode(config_map["binaryData"]["truststore.p12"]))
        shown = subprocess.run(
            ["keytool", "-list", "-keystore", str(file), "-storepass", "changeit"],
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "trustedCertEntry" in shown.stdout


@pytest.mark.parametrize(
    "edit",
    [
        {"data": {"ca.crt": "garbage"}},
        {"binaryData": {"truststore.p12": manifests.encoded("garbage")}},
        {"data": None, "binaryData": None},
    ],
    ids=["PEM", "trust store", "both gone"],
)
def test_an_edit_is_healed_and_other_keys_stay(site: Site, namespace: str, edit: dict[str, Any]) -> None:
    ask(site, namespace)
    until(lambda: found(site, namespace), 20, "the ConfigMap")

    site.plane.merge_patch("configmaps", namespace, NAME, {**edit, "metadata": {"annotations": {"mine": "1"}}})

    def healed() -> bool:
        config_map = found(site, namespace)
        return {"ca.crt"} <= (config_map.get("data") or {}).keys() and roots_match(config_map)

    def roots_match(config_map: Manifest) -> bool:
        try:
            return roots(config_map) == trusted(config_map) == {site.ca.fingerprint}
        except ValueError:
            return False

    until(healed, 20, "the roots are back")
    assert found(site, namespace)["metadata"]["annotations"] == {"mine": "1"}


def test_a_deleted_bundle_comes_back_and_one_no_longer_asked_for_goes(site: Site, namespace: str) -> None:
    ask(site, namespace)
    until(lambda: found(site, namespace), 20, "the ConfigMap")
    first = found(site, namespace)["metadata"]["uid"]

    site.plane.delete("configmaps", namespace, NAME)
    until(lambda: found(site, namespace).get("metadata", {}).get("uid") not in (None, first), 20, "another one")
    ask(site, namespace, None)

    until(lambda: not found(site, namespace), 20, "gone with the annotation")


def test_what_changed_while_no_operator_ran_is_made_good(site: Site, namespace: str) -> None:
    ask(site, namespace)
    until(lambda: found(site, namespace), 20, "the ConfigMap")
    site.operator.stop()
    ask(site, namespace, None)

    site.operator.start()

    until(lambda: not found(site, namespace), 20, "gone")


def test_a_config_map_of_somebody_else_is_left_alone(site: Site, namespace: str) -> None:
    """One of this name that does not carry the label was not made by the operator."""
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": namespace}}
    site.plane.create({**own, "data": {"mine": "1"}})

    ask(site, namespace)
    until(lambda: site.events("default", namespace, "Conflict"), 20, "a Warning")
    ask(site, namespace, None)
    site.order(namespace)
    site.await_ready(namespace)

    assert found(site, namespace)["data"] == {"mine": "1"}


def test_a_root_that_comes_in_is_in_every_bundle(site: Site, namespace: str, make_ca: MakeCA) -> None:
    """Under the name that the chart's account may change; the other authority is put back afterwards."""
    other = make_ca("Bundled")
    before = site.plane.get("certauthorities", "", "default")["spec"]
    ask(site, namespace)
    until(lambda: found(site, namespace), 20, "the ConfigMap")

    site.plane.merge_patch(
        "certauthorities",
        "",
        "default",
        {"spec": {"url": other.url, "fingerprint": other.fingerprint, "provisioner": None}},
    )
    until(lambda: roots(found(site, namespace)) == {other.fingerprint}, 20, "the other roots")
    assert trusted(found(site, namespace)) == {other.fingerprint}

    site.plane.merge_patch("certauthorities", "", "default", {"spec": before})
    until(lambda: roots(found(site, namespace)) == {site.ca.fingerprint}, 20, "the roots as before")


def test_an_authority_that_does_not_exist_is_told_of(site: Site, namespace: str) -> None:
    ask(site, namespace, "nobody")

    until(lambda: site.events("default", namespace, "AuthorityNotFound"), 20, "a Warning")
    told = site.events("default", namespace, "AuthorityNotFound")[0]
    assert "certrenewal.dev/roots" in told["note"]
    assert told["type"] == "Warning"
