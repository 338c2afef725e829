"""Guards: only what changed of the other forms is written, only what is ours removed, and a missing password is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from certrenewal.domain.formats import Content, Format, Profile, is_password, render
from certrenewal.domain.outputs import Outputs, changes, content_of, recorded_keys, written_condition
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Pkcs12, Spec
from tests.unit.builders import a_root, observed

HELD = observed().held
assert HELD.chain is not None
assert HELD.key is not None
CHAIN, KEY, ROOTS = HELD.chain, HELD.key, (a_root().certificate,)
ALL = frozenset(Format)


def a_spec(*formats: Format, profile: Profile = Profile.MODERN) -> Spec:
    """A spec that asks for these forms, with a password."""
    return Spec(secret_name="web-tls", formats=frozenset(formats), pkcs12=Pkcs12(password_secret="pw", profile=profile))


def outputs(data: dict[str, bytes] | None = None, password: bytes | None = b"pw", *written: str) -> Outputs:
    """What the Secret holds of them."""
    return Outputs(data=data or {}, password=password, written=frozenset(written))


def content(spec: Spec, found: Outputs) -> Content:
    """The pair under test, as it is to be written."""
    return content_of(spec, found, CHAIN, KEY, ROOTS)


def changed(spec: Spec, found: Outputs) -> dict[str, Any]:
    """Which keys are written (True) and which removed (False)."""
    return {key: value is not None for key, value in changes(spec, found, content(spec, found)).items()}


def rendered(spec: Spec) -> dict[str, bytes]:
    """All forms that the spec asks for."""
    data: dict[str, bytes] = {}
    for form in spec.formats:
        data |= render(form, content(spec, outputs()))
    return data


def test_every_form_asked_for_is_written_once() -> None:
    spec = a_spec(*ALL)

    assert changed(spec, outputs()) == dict.fromkeys(
        ["tls-combined.pem", "tls.der", "key.der", "keystore.p12", "truststore.p12"], True
    )
    assert changed(spec, outputs(rendered(spec))) == {}


def test_another_password_or_profile_changes_the_key_stores_alone() -> None:
    data = rendered(a_spec(*ALL))
    stores = {"keystore.p12": True, "truststore.p12": True}

    assert changed(a_spec(*ALL), outputs(data, b"another")) == stores
    assert changed(a_spec(*ALL, profile=Profile.LEGACY), outputs(data)) == stores


def test_a_form_no_longer_asked_for_is_removed_where_it_was_ours() -> None:
    data = rendered(a_spec(Format.COMBINED, Format.DER)) | {"keystore.p12": b"the user's own"}

    found = outputs(data, b"pw", "tls-combined.pem", "tls.der", "key.der")

    assert changed(a_spec(Format.DER), found) == {"tls-combined.pem": False}
    assert changed(a_spec(), found) == {"tls-combined.pem": False, "tls.der": False, "key.der": False}


def test_without_the_password_the_key_store_waits_and_says_so() -> None:
    spec, found = a_spec(*ALL), outputs(None, None, "keystore.p12")

    condition = written_condition(spec, found, content(spec, found))

    assert "keystore.p12" not in changed(spec, found)
    assert "tls-combined.pem" in changed(spec, found)
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", Reason.PASSWORD_SECRET_MISSING)
    assert "Secret pw" in condition.message
    assert "keystore.p12" in recorded_keys(spec, found, content(spec, found))  # it is ours still


def test_what_can_be_no_password_is_told_and_not_called_missing() -> None:
    spec = a_spec(Format.PKCS12)
    found = replace(outputs(None, None), password_found=True)

    condition = written_condition(spec, found, content(spec, found))

    assert condition is not None
    assert "holds no password: write text in UTF-8" in condition.message


@pytest.mark.parametrize(
    ("value", "good"), [(b"s3cret", True), ("für".encode(), True), (b"", False), (b"\xff", False), (b"s3cr\0et", False)]
)
def test_a_password_is_text_that_a_key_store_can_have(value: bytes, good: bool) -> None:
    assert is_password(value) is good


def test_what_is_written_is_told_and_remembered() -> None:
    spec = a_spec(Format.DER)

    condition = written_condition(spec, outputs(), content(spec, outputs()))

    assert condition is not None
    assert (condition.type, condition.status) == ("FormatsWritten", "True")
    assert recorded_keys(spec, outputs(), content(spec, outputs())) == ["key.der", "tls.der"]
    assert written_condition(a_spec(), outputs(), content(a_spec(), outputs())) is None


def test_a_trust_store_waits_for_roots() -> None:
    spec = a_spec(Format.TRUSTSTORE)
    unknown = content_of(spec, outputs(), CHAIN, KEY, ())

    condition = written_condition(spec, outputs(), unknown)

    assert changes(spec, outputs(), unknown) == {}
    assert condition is not None
    assert condition.reason is Reason.AUTHORITY_NOT_READY
