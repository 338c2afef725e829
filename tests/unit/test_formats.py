"""Guards: every form holds the same certificate, and one that does already is not written again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, pkcs12

from certrenewal.domain.certificate import dump_certificates, dump_key, load_certificates, load_key, parse_chain
from certrenewal.domain.formats import DATA_KEYS, Content, Format, Profile, data_keys, holds, is_writable, render
from certrenewal.domain.keys import KeyAlgorithm
from tests.unit.builders import a_root, an_intermediate, good_certificate, key_of

ROOT, INTERMEDIATE, LEAF = a_root().certificate, an_intermediate().certificate, good_certificate()
PASSWORD = b"correct horse"


def a_content(**changes: Any) -> Content:
    """The pair of the good certificate, with one thing changed."""
    facts: dict[str, Any] = {
        "chain": parse_chain(dump_certificates([LEAF, INTERMEDIATE])),
        "key": key_of(),
        "roots": (ROOT,),
        "password": PASSWORD,
    }
    return Content(**{**facts, **changes})


ANOTHER_LEAF = parse_chain(dump_certificates([an_intermediate().leaf(["db.shop.svc"]), INTERMEDIATE]))
LEAF_ALONE = parse_chain(dump_certificates([LEAF]))
CHANGES: dict[str, dict[str, Any]] = {
    "another certificate": {"chain": ANOTHER_LEAF},
    "another chain": {"chain": LEAF_ALONE},
    "another root": {"roots": (a_root("Other").certificate,)},
    "another password": {"password": b"battery staple"},
    "another profile": {"profile": Profile.LEGACY},
}
AFFECTED = {
    Format.COMBINED: {"another certificate", "another chain"},
    Format.DER: {"another certificate"},
    Format.PKCS12: {"another certificate", "another chain", "another password", "another profile"},
    Format.TRUSTSTORE: {"another root", "another password", "another profile"},
}


def test_the_combined_file_is_the_key_and_then_the_chain() -> None:
    (pem,) = render(Format.COMBINED, a_content()).values()

    assert pem == dump_key(key_of()) + dump_certificates([LEAF, INTERMEDIATE])
    assert load_certificates(pem) == [LEAF, INTERMEDIATE]


def test_der_is_the_leaf_and_its_key() -> None:
    data = render(Format.DER, a_content())

    assert x509.load_der_x509_certificate(data["tls.der"]) == LEAF
    assert dump_key(load_der_private_key(data["key.der"], None)) == dump_key(key_of())  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("algorithm", [KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048, KeyAlgorithm.ED25519])
def test_a_key_store_holds_key_leaf_and_intermediate(profile: Profile, algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm)
    leaf = an_intermediate().leaf(key=key)
    content = a_content(chain=parse_chain(dump_certificates([leaf, INTERMEDIATE])), key=key, profile=profile)

    opened = pkcs12.load_pkcs12(render(Format.PKCS12, content)["keystore.p12"], PASSWORD)

    assert opened.cert is not None
    assert opened.cert.certificate == leaf
    assert [issuer.certificate for issuer in opened.additional_certs] == [INTERMEDIATE]
    assert dump_key(opened.key) == dump_key(key)  # type: ignore[arg-type]


def test_a_trust_store_holds_every_root_and_no_key() -> None:
    roots = (ROOT, a_root("Other").certificate)

    opened = pkcs12.load_pkcs12(render(Format.TRUSTSTORE, a_content(roots=roots))["truststore.p12"], PASSWORD)

    assert opened.key is None
    assert {entry.certificate for entry in opened.additional_certs} == set(roots)


def test_a_trust_store_without_a_password_of_its_own_has_javas() -> None:
    data = render(Format.TRUSTSTORE, a_content(password=None))

    assert pkcs12.load_pkcs12(data["truststore.p12"], b"changeit").additional_certs
    assert holds(Format.TRUSTSTORE, a_content(password=None), data)


def test_a_key_store_is_not_made_without_its_password() -> None:
    roots = a_content().roots

    assert [form for form in Format if not is_writable(form, password=None, roots=roots)] == [Format.PKCS12]
    assert [form for form in Format if not is_writable(form, password=b"pw", roots=())] == [Format.TRUSTSTORE]
    assert all(is_writable(form, password=b"pw", roots=roots) for form in Format)


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("profile", list(Profile))
def test_what_was_written_is_not_written_again(form: Format, profile: Profile) -> None:
    content = a_content(profile=profile)

    assert holds(form, content, render(form, content))


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("change", CHANGES)
def test_only_what_a_change_is_about_is_written_again(form: Format, change: str) -> None:
    data = render(form, a_content())

    assert holds(form, replace(a_content(), **CHANGES[change]), data) is (change not in AFFECTED[form])


@pytest.mark.parametrize("form", list(Format))
@pytest.mark.parametrize("value", [None, b"", b"garbage", b"\x30\x03\x02\x01\x03"])
def test_what_is_missing_or_garbled_is_written_again(form: Format, value: bytes | None) -> None:
    data = {} if value is None else dict.fromkeys(DATA_KEYS[form], value)

    assert not holds(form, a_content(), data)


def test_a_key_store_with_another_key_is_written_again() -> None:
    """Two halves that do not fit must not pass for one."""
    other = key_of(which=1)
    leaf = an_intermediate().leaf(key=other)
    foreign = a_content(chain=parse_chain(dump_certificates([leaf, INTERMEDIATE])), key=other)

    assert not holds(Format.PKCS12, a_content(), render(Format.PKCS12, foreign))


def test_every_form_has_keys_of_its_own() -> None:
    assert len(data_keys(Format)) == sum(len(keys) for keys in DATA_KEYS.values())
    assert data_keys([Format.DER]) == {"tls.der", "key.der"}


def test_neither_key_nor_password_is_in_the_repr() -> None:
    text = repr(a_content())

    assert "correct horse" not in text
    assert "PrivateKey" not in text


def test_a_loaded_pair_makes_the_same_forms() -> None:
    """PEM as read from a Secret, comments and all, changes nothing about the other forms."""
    pem = b"# from the CA\n" + dump_certificates([LEAF, INTERMEDIATE])
    read = a_content(chain=parse_chain(pem), key=load_key(dump_key(key_of())))

    assert render(Format.COMBINED, read) == render(Format.COMBINED, a_content())
    assert read.chain.certificates[0].public_bytes(Encoding.DER) == render(Format.DER, read)["tls.der"]
