"""Which other forms of the certificate are to be written, which removed, and what is to be said of them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from certrenewal.domain.certificate import Chain, PrivateKey
from certrenewal.domain.formats import Content, Format, Profile, Roots, data_keys, holds, is_writable, render
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Spec
from certrenewal.domain.status import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The other forms as they are: what the Secret holds of them, and the password of the key stores."""

    data: Mapping[str, bytes] = field(repr=False)
    password: bytes | None = field(repr=False)  # None: there is none, or what there is can be none
    password_found: bool = False
    password_version: str = ""  # of the Secret that it came from
    written: frozenset[str] = frozenset()  # the keys that we wrote before, and that are ours to remove


def content_of(spec: Spec, outputs: Outputs, chain: Chain, key: PrivateKey, roots: Roots) -> Content:
    """What every form is to hold."""
    profile = spec.pkcs12.profile if spec.pkcs12 else Profile.MODERN
    return Content(chain=chain, key=key, roots=roots, profile=profile, password=outputs.password)


def changes(spec: Spec, outputs: Outputs, content: Content) -> dict[str, bytes | None]:
    """What to write by the Secret's keys; None removes one. A form that cannot be made now is left as it is."""
    found: dict[str, bytes | None] = {}
    for form in sorted(spec.formats):
        if _is_writable(form, content) and not holds(form, content, outputs.data):
            found |= render(form, content)
    gone = (outputs.written - data_keys(spec.formats)) & outputs.data.keys()
    return found | dict.fromkeys(sorted(gone), None)


def written_condition(spec: Spec, outputs: Outputs, content: Content) -> Condition | None:
    """The condition FormatsWritten, None where no other form is asked for."""
    if not spec.formats:
        return None
    missing = [form for form in sorted(spec.formats) if not _is_writable(form, content)]
    if not missing:
        keys = ", ".join(sorted(data_keys(spec.formats)))
        return Condition(type="FormatsWritten", status="True", reason=Reason.FORMATS_WRITTEN, message=f"in {keys}")
    keys = ", ".join(sorted(data_keys(missing)))
    if spec.pkcs12 is None or outputs.password is not None:
        return Condition(
            type="FormatsWritten",
            status="False",
            reason=Reason.AUTHORITY_NOT_READY,
            message=f"{keys} waits for the authority's roots",
        )
    fault = "holds no password: write text in UTF-8, without a NUL" if outputs.password_found else "does not exist"
    return Condition(
        type="FormatsWritten",
        status="False",
        reason=Reason.PASSWORD_SECRET_MISSING,
        message=f"{keys} waits for key {spec.pkcs12.password_key!r} of Secret {spec.pkcs12.password_secret}, which "
        f"{fault}; the PEM files are kept fresh all the same",
    )


def recorded_keys(spec: Spec, outputs: Outputs, content: Content) -> list[str]:
    """The keys that are ours from now on: written now, or before and still asked for."""
    writable = {form for form in spec.formats if _is_writable(form, content)}
    return sorted(data_keys(writable) | (outputs.written & data_keys(spec.formats)))


def announced_keys(spec: Spec, outputs: Outputs, roots: Roots) -> list[str]:
    """The keys that are to be ours before they are written; one that somebody else filled is not before it is."""
    forms = [form for form in spec.formats if is_writable(form, password=outputs.password, roots=roots)]
    return sorted(outputs.written | (data_keys(forms) - outputs.data.keys()))


def all_keys() -> frozenset[str]:
    """Every key of a Secret in which another form may lie."""
    return data_keys(Format)


def _is_writable(form: Format, content: Content) -> bool:
    return is_writable(form, password=content.password, roots=content.roots)
