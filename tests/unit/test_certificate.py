"""Guards: a certificate is read as it is or refused without a word of its data; key and chain are judged by crypto."""

from __future__ import annotations

import ssl
import warnings
from datetime import timedelta

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from certrenewal.domain.certificate import (
    Chain,
    Malformed,
    PrivateKey,
    algorithm_of,
    dump_certificates,
    dump_key,
    fingerprint,
    key_fits,
    load_certificates,
    load_key,
    parse_chain,
)
from certrenewal.domain.keys import KeyAlgorithm
from tests.unit.builders import (
    DAY,
    NOON,
    Issuer,
    a_root,
    an_intermediate,
    authority_certificate,
    key_of,
    names,
    new_key,
)

CA = an_intermediate()


def chain_of(*certificates: x509.Certificate) -> Chain:
    return parse_chain(dump_certificates(certificates))


# -- the leaf ----------------------------------------------------------------------------------------------------


def test_a_leaf_tells_what_the_certificate_says() -> None:
    certificate = CA.leaf(["web.shop.svc"], lifetime=timedelta(hours=6))

    leaf = chain_of(certificate, *CA.chain).leaf

    assert leaf.serial == str(certificate.serial_number)
    assert leaf.fingerprint == certificate.fingerprint(hashes.SHA256()).hex() == fingerprint(certificate)
    assert (leaf.not_before, leaf.not_after) == (NOON, NOON + timedelta(hours=6))
    assert leaf.lifetime == timedelta(hours=6)
    assert leaf.issuer == "CN=Intermediate"
    assert leaf.subject == "web.shop.svc"
    assert leaf.algorithm is KeyAlgorithm.EC_P256


def test_names_of_all_kinds_are_read_in_their_canonical_form() -> None:
    certificate = CA.leaf(["WEB.Shop.svc", "10.1.2.3", "2001:db8::1", "Ann@EXAMPLE.com", "spiffe://td/shop"])

    leaf = chain_of(certificate).leaf

    assert leaf.names == names("web.shop.svc", "10.1.2.3", "2001:db8::1", "Ann@example.com", "spiffe://td/shop")


def test_the_subject_is_the_first_name() -> None:
    """step-ca sorts alternative names by kind: which one was asked for first shows in the common name alone."""
    leaf = chain_of(CA.leaf(["10.1.2.3", "a.shop", "web.shop"], common_name="web.shop")).leaf

    assert leaf.names == names("web.shop", "10.1.2.3", "a.shop")


def test_a_common_name_alone_is_no_name() -> None:
    leaf = chain_of(CA.leaf([], common_name="web.shop")).leaf

    assert leaf.names == ()
    assert leaf.subject == "web.shop"


def test_a_certificate_without_subject_is_read() -> None:
    assert chain_of(CA.leaf(common_name="")).leaf.subject == ""


def test_a_subject_longer_than_the_standard_allows_is_the_issuers_business() -> None:
    key = key_of()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        long = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a" * 80 + ".example", _validate=False)])
    builder = x509.CertificateBuilder().subject_name(long).issuer_name(CA.certificate.subject)
    builder = builder.public_key(key.public_key()).serial_number(1)
    certificate = builder.not_valid_before(NOON).not_valid_after(NOON + DAY).sign(CA.key, hashes.SHA256())

    assert chain_of(certificate).leaf.subject == "a" * 80 + ".example"


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_every_kind_of_key_that_can_be_asked_for_is_recognised(algorithm: KeyAlgorithm) -> None:
    leaf = chain_of(CA.leaf(key=key_of(algorithm))).leaf

    assert leaf.algorithm is algorithm
    assert algorithm_of(key_of(algorithm).public_key()) is algorithm


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="P-521"),
        pytest.param(rsa.generate_private_key(65537, 1024), id="RSA of another size"),
    ],
)
def test_a_kind_of_key_that_nobody_can_ask_for_is_no_fault(key: PrivateKey) -> None:
    assert chain_of(CA.leaf(key=key)).leaf.algorithm is None


@pytest.mark.parametrize(
    ("curve", "by_token"),
    [
        pytest.param(ec.SECP521R1(), True, id="P-521"),
        pytest.param(ec.SECP224R1(), False, id="P-224, with which no JWS is signed"),
    ],
)
def test_a_token_takes_a_curve_that_jws_knows(curve: ec.EllipticCurve, by_token: bool) -> None:
    leaf = chain_of(CA.leaf(key=ec.generate_private_key(curve))).leaf

    assert (leaf.can_renew_by_token, leaf.can_renew_by_mtls) == (by_token, True)


@pytest.mark.parametrize(
    ("purposes", "signs", "lifetime", "by_token", "by_mtls"),
    [
        pytest.param([ExtendedKeyUsageOID.CLIENT_AUTH], True, DAY, True, True, id="client"),
        pytest.param(None, True, DAY, True, True, id="no extended usage: any"),
        pytest.param([ExtendedKeyUsageOID.SERVER_AUTH], True, DAY, False, False, id="server only"),
        pytest.param([ExtendedKeyUsageOID.CLIENT_AUTH], False, DAY, False, True, id="may not sign: no token"),
        pytest.param(None, True, timedelta(seconds=60), True, True, id="lives a minute"),
        pytest.param(None, True, timedelta(seconds=59), False, True, id="too short for a token"),
    ],
)
def test_how_a_leaf_can_renew_itself(
    purposes: list[x509.ObjectIdentifier] | None, signs: bool, lifetime: timedelta, by_token: bool, by_mtls: bool
) -> None:
    leaf = chain_of(CA.leaf(purposes=purposes, signs=signs, lifetime=lifetime)).leaf

    assert (leaf.can_renew_by_token, leaf.can_renew_by_mtls) == (by_token, by_mtls)


def test_the_certificates_of_other_tools_are_read() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("web.shop.svc", "10.1.2.3")
    pem = b"".join(blob.bytes() for blob in issued.cert_chain_pems)

    chain = parse_chain(pem)

    assert set(chain.leaf.names) == set(names("web.shop.svc", "10.1.2.3"))
    assert chain.holds(load_certificates(authority.cert_pem.bytes()))
    assert key_fits(load_key(issued.private_key_pem.bytes()), chain.leaf)


# -- the chain ---------------------------------------------------------------------------------------------------

OTHER = an_intermediate("Other root")
LEAF = CA.leaf()


@pytest.mark.parametrize(
    ("certificates", "roots", "holds"),
    [
        pytest.param([LEAF, *CA.chain], [a_root()], True, id="leaf and intermediate"),
        pytest.param([LEAF, *CA.chain, a_root().certificate], [a_root()], True, id="the root sent along"),
        pytest.param([LEAF, *CA.chain], [a_root("Other root"), a_root()], True, id="one of two roots"),
        pytest.param([a_root().leaf()], [a_root()], True, id="signed by the root itself"),
        pytest.param([LEAF, *CA.chain], [a_root("Other root")], False, id="another root"),
        pytest.param([LEAF, *CA.chain], [], False, id="no root"),
        pytest.param([LEAF], [a_root()], False, id="the intermediate left out"),
        pytest.param([*CA.chain, LEAF], [a_root()], False, id="the wrong order"),
        pytest.param([LEAF, a_root().certificate], [a_root()], False, id="a gap"),
        pytest.param([LEAF, *OTHER.chain], [a_root("Other root")], False, id="an intermediate of the same name"),
        pytest.param([LEAF, LEAF, *CA.chain], [a_root()], False, id="the leaf twice"),
    ],
)
def test_a_chain_holds_where_each_is_signed_by_the_next_and_the_last_by_a_root(
    certificates: list[x509.Certificate], roots: list[Issuer], holds: bool
) -> None:
    chain = chain_of(*certificates)

    assert chain.holds([root.certificate for root in roots]) is holds


def test_a_leaf_that_signs_others_is_no_issuer() -> None:
    """A holder of an ordinary certificate must not be able to extend the chain (RFC 5280 §4.2.1.9)."""
    middle_key = new_key()
    middle = authority_certificate("Somebody", middle_key, signer=a_root(), ca=False)
    forged = Issuer(middle, middle_key).leaf()

    assert not chain_of(forged, middle).holds([a_root().certificate])


def test_a_signer_that_says_nothing_of_being_a_ca_is_no_issuer() -> None:
    key = new_key()
    plain = a_root().leaf(["somebody.shop"], key=key)
    forged = Issuer(plain, key).leaf()

    assert not chain_of(forged, plain).holds([a_root().certificate])


def test_a_chain_says_nothing_about_time() -> None:
    ended = CA.leaf(not_before=NOON - 300 * DAY, lifetime=timedelta(hours=1))

    assert chain_of(ended, *CA.chain).holds([a_root().certificate])


def test_the_pem_is_kept_as_it_was_read() -> None:
    pem = b"# a comment\n" + dump_certificates([LEAF, *CA.chain])

    chain = parse_chain(pem)

    assert chain.pem == pem
    assert chain.certificates == (LEAF, *CA.chain)


def test_the_plain_chain_is_what_a_library_would_write() -> None:
    tidy = dump_certificates([LEAF, *CA.chain])

    for pem in (tidy, b"# a comment\n" + tidy, tidy.replace(b"\n", b"\r\n"), tidy.rstrip()):
        assert parse_chain(pem).plain == tidy


SECRET = "c2VjcmV0LWJ5dGVz"


def test_what_is_no_certificate_is_malformed_and_not_repeated() -> None:
    armour = f"-----BEGIN CERTIFICATE-----\n{SECRET}\n-----END CERTIFICATE-----\n"
    whole = dump_certificates([LEAF])
    for pem in (b"", b"\xff\xfe", SECRET.encode(), armour.encode(), whole[:-60], whole.replace(b"MII", b"M!II", 1)):
        with pytest.raises(Malformed) as refusal:
            parse_chain(pem)

        assert SECRET not in str(refusal.value)
        assert refusal.value.__cause__ is None


@pytest.mark.parametrize("whole", [[LEAF], [LEAF, *CA.chain]], ids=["after the leaf", "after the chain"])
@pytest.mark.parametrize("broken", [b"MIIB\n-----END CERTIFICATE-----\n", b"MII", b"\xff\xfe"])
def test_a_good_leaf_before_a_broken_certificate_stands_alone(whole: list[x509.Certificate], broken: bytes) -> None:
    """What follows a leaf can be had again without its key, and without the CA."""
    pem = dump_certificates(whole) + b"-----BEGIN CERTIFICATE-----\n" + broken

    chain = parse_chain(pem)

    assert chain.certificates == (LEAF,)
    assert chain.pem == pem
    assert not chain.holds([a_root().certificate])
    assert chain.completed([CA.certificate]).holds([a_root().certificate])


def forged(certificate: x509.Certificate, old: bytes, new: bytes) -> bytes:
    """A certificate with other bytes in one place, in PEM."""
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert der.count(old) == 1
    return ssl.DER_cert_to_PEM_cert(der.replace(old, new)).encode()


def test_a_good_leaf_before_a_certificate_of_no_known_version_stands_alone() -> None:
    version_3, version_8 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"

    chain = parse_chain(dump_certificates([LEAF]) + forged(CA.certificate, version_3, version_8))

    assert chain.certificates == (LEAF,)


def test_an_issuer_that_cannot_be_read_is_somebody_all_the_same() -> None:
    chain = parse_chain(forged(CA.leaf(), b"Intermediate", b"\xff" * len("Intermediate")))

    assert chain.leaf.issuer == "somebody whose name cannot be read"
    assert not chain.holds([a_root().certificate])
    assert not chain.completed([CA.certificate]).holds([a_root().certificate])


def test_the_issuer_is_named_by_the_one_that_the_leaf_was_found_to_come_from() -> None:
    unreadable = x509.load_pem_x509_certificate(forged(CA.certificate, b"Intermediate", b"\xff" * len("Intermediate")))

    assert chain_of(LEAF, CA.certificate).issuer(a_root().certificate) == LEAF.issuer.rfc4514_string()
    assert chain_of(LEAF).issuer(CA.certificate) == LEAF.issuer.rfc4514_string()
    assert chain_of(LEAF).issuer(None) == LEAF.issuer.rfc4514_string()
    assert chain_of(LEAF).issuer(unreadable) == "somebody whose name cannot be read"


def test_an_issuer_whose_extensions_no_parser_takes_is_no_issuer() -> None:
    key_usage, basic_constraints = b"\x55\x1d\x0f", b"\x55\x1d\x13"
    twice_the_same = forged(CA.certificate, key_usage, basic_constraints)

    chain = parse_chain(dump_certificates([LEAF]) + twice_the_same)

    assert len(chain.certificates) == 2
    assert not chain.holds([a_root().certificate])


def test_an_extension_that_no_parser_takes_is_malformed() -> None:
    garbage = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x05\x82\x09abc")
    builder = x509.CertificateBuilder().subject_name(CA.certificate.subject).issuer_name(CA.certificate.subject)
    builder = builder.public_key(key_of().public_key()).serial_number(1).add_extension(garbage, critical=False)
    certificate = builder.not_valid_before(NOON).not_valid_after(NOON + DAY).sign(CA.key, hashes.SHA256())

    with pytest.raises(Malformed, match="no readable certificate chain"):
        chain_of(certificate)


# -- the key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_is_written_as_pkcs8_and_read_back(algorithm: KeyAlgorithm) -> None:
    pem = dump_key(key_of(algorithm))

    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert load_key(pem).public_key() == key_of(algorithm).public_key()


def test_a_key_in_the_older_form_is_read() -> None:
    pem = key_of().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )

    assert load_key(pem).public_key() == key_of().public_key()


def test_only_its_own_key_fits_a_leaf() -> None:
    leaf = chain_of(LEAF).leaf

    assert key_fits(key_of(), leaf)
    assert not key_fits(key_of(which=1), leaf)
    assert not key_fits(key_of(KeyAlgorithm.RSA_2048), leaf)


def encrypted() -> bytes:
    return key_of().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


def foreign(key: x25519.X25519PrivateKey | dsa.DSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        pytest.param(b"", "no readable unencrypted PEM private key", id="nothing"),
        pytest.param(SECRET.encode(), "no readable unencrypted PEM private key", id="no PEM"),
        pytest.param(
            f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n".encode(), "no readable", id="broken"
        ),
        pytest.param(encrypted(), "no readable unencrypted PEM private key", id="encrypted"),
        pytest.param(dump_certificates([LEAF]), "no readable", id="a certificate"),
        pytest.param(foreign(x25519.X25519PrivateKey.generate()), "is not supported", id="a key that cannot sign"),
    ],
)
def test_what_is_no_key_is_malformed_and_not_repeated(pem: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why) as refusal:
        load_key(pem)

    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


@pytest.mark.parametrize(
    ("names", "common_name", "unjudged"),
    [
        pytest.param(["web.shop.svc"], "web.shop.svc", False, id="subject among the names"),
        pytest.param(["web.shop.svc"], "Shop front", False, id="subject is a title"),
        pytest.param(["web.shop.svc"], "", False, id="no subject"),
        pytest.param(["web.shop.svc"], "admin.bank.svc", True, id="another host as subject alone"),
        pytest.param(
            ["web.shop.svc", x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], None, True, id="name of another kind"
        ),
    ],
)
def test_names_that_policy_does_not_see_are_noticed(
    names: list[str | x509.GeneralName], common_name: str | None, unjudged: bool
) -> None:
    assert chain_of(CA.leaf(names, common_name=common_name)).leaf.unjudged is unjudged


def test_a_key_that_would_take_long_to_be_checked_is_not_read() -> None:
    with pytest.raises(Malformed, match="more than 8192 bytes"):
        load_key(b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 8192)
