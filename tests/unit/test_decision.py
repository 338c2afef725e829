"""Guards: one ordered table gives both the next step and the reason users read; each check, their order, the stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest

from certrenewal.domain.certificate import dump_certificates, dump_key
from certrenewal.domain.decision import Obtain, Repair, Rest, Step, Stop, decide, is_good
from certrenewal.domain.keys import KeyAlgorithm, KeyRotation
from certrenewal.domain.names import Kind, Name
from certrenewal.domain.observed import Held, Observed, read_held
from certrenewal.domain.policy import LabelSelector
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Percent
from certrenewal.domain.status import Recorded
from tests.unit.builders import (
    DAY,
    NOON,
    a_root,
    a_rule,
    an_asker,
    an_intermediate,
    good_certificate,
    key_of,
    names,
    observed,
)

CA = an_intermediate()
SECOND = timedelta(seconds=1)
EARLY = NOON + DAY / 4
LATE = NOON + DAY * 2 / 3
ENDED = NOON + DAY

Change = Callable[[Observed], Observed]


def holding(certificate: Any, **parts: Any) -> Observed:
    """A Secret with another certificate in it."""
    return observed(crt=CA.bundle(certificate), **parts)


def spec(**fields: Any) -> Change:
    return lambda o: replace(o, spec=replace(o.spec, **fields))


def authority(**fields: Any) -> Change:
    return lambda o: replace(o, authority=replace(o.authority, **fields))


def held(**fields: Any) -> Change:
    return lambda o: replace(o, held=replace(o.held, **fields))


def changed(*changes: Change, whole: Observed | None = None) -> Observed:
    """The good Secret with these changes, one on top of the other."""
    result = whole or observed()
    for change in changes:
        result = change(result)
    return result


def why(step: Step) -> Reason | None:
    """The reason of a step, None where there is nothing to do."""
    match step:
        case Rest():
            return None
        case Stop(finding) | Repair(finding) | Obtain(finding=finding):
            return finding.reason


def obtain(o: Observed, now: datetime = EARLY) -> Obtain:
    """The step, which must be to ask the CA."""
    step = decide(o, now)
    assert isinstance(step, Obtain), step
    return step


def stop(o: Observed, now: datetime = EARLY) -> Stop:
    """The step, which must be to stop."""
    step = decide(o, now)
    assert isinstance(step, Stop), step
    return step


# -- nothing to do -------------------------------------------------------------------------------------------------


def test_a_secret_that_holds_what_is_wanted_rests_until_it_is_due() -> None:
    o = observed()

    step = decide(o, EARLY)

    assert o.leaf is not None
    assert step == Rest(o.plan(o.leaf, obtained=None).due)
    assert is_good(o, EARLY) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"names": names("WEB.shop.svc")}, id="the same name in capitals"),
        pytest.param({"key_algorithm": KeyAlgorithm.EC_P256}, id="the kind of key it has"),
        pytest.param({"duration": DAY}, id="the duration it has"),
        pytest.param({"duration": DAY - timedelta(minutes=1)}, id="the duration it has, backdated by step-ca"),
        pytest.param({"renew_before": timedelta(hours=1)}, id="renewal later"),
        pytest.param({"key_rotation": KeyRotation.ALWAYS}, id="another key next time"),
    ],
)
def test_a_wish_that_is_met_already_asks_for_nothing(fields: dict[str, Any]) -> None:
    assert isinstance(decide(changed(spec(**fields)), EARLY), Rest)


def test_the_order_of_names_does_not_count() -> None:
    whole = holding(CA.leaf(["web.shop", "api.shop"]), spec={"names": names("api.shop", "web.shop")})

    assert isinstance(decide(whole, EARLY), Rest)


@pytest.mark.parametrize(
    "wanted", [["web.shop"], ["web.shop", "api.shop", "db.shop"], ["db.shop", "web.shop"]], ids=str
)
def test_a_name_more_or_less_is_another_certificate(wanted: list[str]) -> None:
    whole = holding(CA.leaf(["web.shop", "api.shop"]), spec={"names": names(*wanted)})

    assert why(decide(whole, EARLY)) is Reason.NAMES_CHANGED


def test_before_the_roots_are_known_nothing_is_said_of_them() -> None:
    assert isinstance(decide(changed(authority(roots=(), bundle=b"")), EARLY), Rest)


def test_a_policy_that_denies_disturbs_no_certificate_that_is_not_due() -> None:
    denied = holding(CA.leaf(["www.example.com"]))

    assert isinstance(decide(denied, EARLY), Rest)
    assert why(decide(denied, LATE)) is Reason.NAME_DENIED


# -- each check ----------------------------------------------------------------------------------------------------

EMPTY: Change = held(chain=None, key=None)
OTHER_KEY: Change = held(key=key_of(which=1))
OTHER_ROOTS: Change = authority(roots=(a_root("Other root").certificate,), bundle=a_root("Other root").pem)

# Each check in the order of the table: the change that makes it fire, what users read, and whether renewing the
# certificate at hand would not do.
CHECKS = [
    pytest.param(EMPTY, EARLY, Reason.MISSING, "Secret web-tls holds no certificate", True, id="missing"),
    pytest.param(held(key=None), EARLY, Reason.MISSING, "holds no private key", True, id="missing key"),
    pytest.param(
        held(chain=None, fault="certificate: no readable PEM certificate"),
        EARLY,
        Reason.MALFORMED,
        "Secret web-tls: certificate: no readable PEM",
        True,
        id="malformed",
    ),
    pytest.param(OTHER_KEY, EARLY, Reason.KEY_MISMATCH, "the private key in Secret web-tls", True, id="key mismatch"),
    pytest.param(
        OTHER_ROOTS,
        EARLY,
        Reason.ISSUER_CHANGED,
        "issued by CN=Intermediate, not by authority default",
        True,
        id="issuer",
    ),
    pytest.param(
        spec(names=names("web.shop.svc", "api.shop.svc")),
        EARLY,
        Reason.NAMES_CHANGED,
        "the certificate carries web.shop.svc",
        True,
        id="names",
    ),
    pytest.param(
        spec(key_algorithm=KeyAlgorithm.ED25519),
        EARLY,
        Reason.KEY_CHANGED,
        "Ed25519 is asked for, the key is EC-P256",
        True,
        id="key kind",
    ),
    pytest.param(
        spec(duration=timedelta(hours=12)),
        EARLY,
        Reason.DURATION_CHANGED,
        "12h is asked for, the certificate lives 24h",
        True,
        id="duration",
    ),
    pytest.param(spec(), ENDED, Reason.EXPIRED, "expired at 2026-03-02T12:00:00", True, id="expired"),
    pytest.param(
        lambda o: replace(o, renew_requested=True), EARLY, Reason.RENEWAL_REQUESTED, "renew-now", False, id="requested"
    ),
    pytest.param(spec(), LATE, Reason.RENEWAL_DUE, "due since 2026-03-02T0", False, id="due"),
]


@pytest.mark.parametrize(("change", "now", "reason", "message", "anew"), CHECKS)
def test_each_check_asks_the_ca_for_its_own_reason(
    change: Change, now: datetime, reason: Reason, message: str, anew: bool
) -> None:
    o = changed(spec(names=names("web.shop.svc")), change)

    step = obtain(o, now)

    assert step.finding.reason is reason
    assert message in step.finding.message
    assert step.anew is anew


def test_a_part_that_cannot_be_read_is_malformed_even_where_the_other_is_missing() -> None:
    step = obtain(observed(crt=b"", key=b"no key at all", spec={"names": names("web.shop.svc")}))

    assert step.finding.reason is Reason.MALFORMED
    assert "private key" in step.finding.message
    assert "no key at all" not in step.finding.message


ORDERED: list[tuple[Reason, Change]] = [
    (Reason.MISSING, held(key=None)),
    (Reason.MALFORMED, held(fault="private key: no readable unencrypted PEM private key")),
    (Reason.KEY_MISMATCH, OTHER_KEY),
    (Reason.ISSUER_CHANGED, OTHER_ROOTS),
    (Reason.NAMES_CHANGED, spec(names=names("api.shop.svc"))),
    (Reason.KEY_CHANGED, spec(key_algorithm=KeyAlgorithm.ED25519)),
    (Reason.DURATION_CHANGED, spec(duration=timedelta(hours=12))),
    (Reason.EXPIRED, lambda o: o),
    (Reason.RENEWAL_REQUESTED, lambda o: replace(o, renew_requested=True)),
    (Reason.RENEWAL_DUE, lambda o: o),
    (Reason.ROOTS_CHANGED, held(roots=b"")),
]


def moment(reason: Reason) -> datetime:
    """When all checks from ``reason`` on would fire, and none before."""
    order = [row[0] for row in ORDERED]
    if order.index(reason) <= order.index(Reason.EXPIRED):
        return ENDED
    return EARLY if reason is Reason.ROOTS_CHANGED else LATE


@pytest.mark.parametrize("place", range(2, len(ORDERED)), ids=lambda place: str(ORDERED[place][0]))
def test_of_several_reasons_the_first_in_the_table_is_told(place: int) -> None:
    """With everything wrong from here on, this one is it."""
    reason = ORDERED[place][0]

    o = changed(*(change for _, change in ORDERED[place:]))

    assert why(decide(o, moment(reason))) is reason


@pytest.mark.parametrize("place", range(2, len(ORDERED)), ids=lambda place: str(ORDERED[place][0]))
def test_missing_and_malformed_come_before_everything(place: int) -> None:
    rest = [change for _, change in ORDERED[place:]]

    missing = changed(*rest, held(key=None))
    malformed = changed(*rest, held(fault="certificate: broken"))

    assert why(decide(missing, ENDED)) is Reason.MISSING
    assert why(decide(malformed, ENDED)) is Reason.MALFORMED


# -- the roots beside the certificate ------------------------------------------------------------------------------


@pytest.mark.parametrize("roots", [b"", b"something else", a_root("Other root").pem], ids=["none", "text", "others"])
def test_roots_are_mended_without_the_ca(roots: bytes) -> None:
    step = decide(observed(roots=roots), EARLY)

    assert isinstance(step, Repair)
    assert step.finding.reason is Reason.ROOTS_CHANGED
    assert "ca.crt differs" in step.finding.message


def test_other_roots_beside_it_make_no_certificate_bad() -> None:
    assert is_good(observed(roots=b""), EARLY) is None


def test_roots_are_mended_even_where_the_names_are_denied() -> None:
    denied = holding(CA.leaf(["www.example.com"]), roots=b"")

    assert isinstance(decide(denied, EARLY), Repair)


def test_roots_are_mended_where_a_renewal_would_take_what_the_authority_cannot_give() -> None:
    rule = a_rule("**.shop.svc", max_duration=timedelta(hours=1))
    o = changed(authority(can_sign=False, policy=(rule,)), held(roots=b"others"))

    assert isinstance(decide(o, EARLY), Repair)


def test_roots_are_not_mended_in_a_secret_that_cannot_be_written() -> None:
    assert why(decide(observed(roots=b"", immutable=True), EARLY)) is Reason.IMMUTABLE


# -- time ----------------------------------------------------------------------------------------------------------


def test_a_certificate_is_renewed_from_the_second_on_that_was_shown() -> None:
    o = observed()
    assert o.leaf is not None
    due = o.plan(o.leaf, obtained=None).due

    assert decide(o, due - SECOND) == Rest(due)
    assert why(decide(o, due)) is Reason.RENEWAL_DUE


def test_a_certificate_is_expired_from_the_second_on_at_which_it_ends() -> None:
    assert why(decide(observed(), ENDED - SECOND)) is Reason.RENEWAL_DUE
    assert why(decide(observed(), ENDED)) is Reason.EXPIRED


@pytest.mark.parametrize("before", [timedelta(hours=16), Percent(60)], ids=str)
def test_renew_before_moves_the_renewal(before: timedelta | Percent) -> None:
    o = changed(spec(renew_before=before))

    assert isinstance(decide(o, NOON + timedelta(hours=5)), Rest)
    assert why(decide(o, NOON + timedelta(hours=10))) is Reason.RENEWAL_DUE


# -- the duration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "wanted", "changes"),
    [
        pytest.param(None, None, False, id="never said anything"),
        pytest.param(DAY, None, False, id="no longer says anything"),
        pytest.param(DAY, DAY, False, id="the same"),
        pytest.param(
            timedelta(hours=30), timedelta(hours=30), False, id="the CA gave less: asking again helps nothing"
        ),
        pytest.param(DAY, timedelta(hours=25), True, id="longer"),
        pytest.param(DAY, timedelta(hours=23), True, id="shorter"),
        pytest.param(timedelta(hours=30), DAY, True, id="what it lives, but another was asked for"),
        pytest.param(None, DAY, False, id="found in the Secret, lives as wanted"),
        pytest.param(None, DAY - timedelta(seconds=62), False, id="found in the Secret, backdated"),
        pytest.param(None, DAY - timedelta(seconds=63), True, id="found in the Secret, lives longer"),
        pytest.param(None, DAY + timedelta(seconds=63), True, id="found in the Secret, lives shorter"),
    ],
)
def test_a_new_certificate_is_had_where_another_duration_is_asked_for(
    asked: timedelta | None, wanted: timedelta | None, changes: bool
) -> None:
    o = observed(asked_duration=asked, spec={"duration": wanted})

    assert (why(decide(o, EARLY)) is Reason.DURATION_CHANGED) is changes


def test_the_ca_is_asked_for_the_duration_and_told_the_longest() -> None:
    o = holding(
        CA.leaf(["www.example.com"]),
        spec={"duration": DAY},
        authority={"policy": (a_rule("*.example.com", max_duration=2 * DAY),)},
    )

    step = obtain(o, LATE)

    assert (step.duration, step.max_duration) == (DAY, 2 * DAY)


# -- which names, which key ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "in_the_secret", "last_seen", "found"),
    [
        pytest.param(names("a.shop"), ["b.shop"], names("c.shop"), names("a.shop"), id="those asked for"),
        pytest.param((), ["b.shop"], names("c.shop"), names("b.shop"), id="else those of the certificate"),
        pytest.param((), [], names("c.shop"), names("c.shop"), id="else those last seen"),
        pytest.param((), None, names("c.shop"), names("c.shop"), id="those last seen where the certificate is gone"),
    ],
)
def test_which_names_are_meant(wanted: Any, in_the_secret: list[str] | None, last_seen: Any, found: Any) -> None:
    crt = b"" if in_the_secret is None else CA.bundle(CA.leaf(in_the_secret, common_name=""))

    o = observed(crt=crt, spec={"names": wanted}, recorded=Recorded({"certificate": {"names": [*map(str, last_seen)]}}))

    assert o.names == found


def test_which_key_is_meant() -> None:
    rsa = key_of(KeyAlgorithm.RSA_2048)
    whole = holding(CA.leaf(key=rsa), key=dump_key(rsa))

    assert whole.key_algorithm is KeyAlgorithm.RSA_2048
    assert changed(spec(key_algorithm=KeyAlgorithm.ED25519), whole=whole).key_algorithm is KeyAlgorithm.ED25519
    assert changed(EMPTY).key_algorithm is KeyAlgorithm.EC_P256


# -- anew or by renewing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "now", "anew"),
    [
        pytest.param(spec(), LATE, False, id="due: renewed"),
        pytest.param(spec(), ENDED, True, id="expired: anew"),
        pytest.param(
            authority(renew_after_expiry=True), ENDED, False, id="expired, where the CA renews what is expired"
        ),
        pytest.param(spec(key_rotation=KeyRotation.ALWAYS), LATE, True, id="a new key each time: anew"),
        pytest.param(
            lambda o: authority(can_sign=False)(spec(key_rotation=KeyRotation.ALWAYS)(o)),
            LATE,
            False,
            id="a new key each time, renew-only: rekeyed",
        ),
        pytest.param(authority(can_sign=False), LATE, False, id="renew-only: renewed"),
    ],
)
def test_a_certificate_is_renewed_where_that_gives_what_is_wanted(change: Change, now: datetime, anew: bool) -> None:
    assert obtain(changed(change), now).anew is anew


@pytest.mark.parametrize(
    ("limit", "anew"),
    [
        pytest.param(DAY, False, id="within the limit"),
        pytest.param(DAY - timedelta(minutes=1), False, id="within the limit, backdated"),
        pytest.param(DAY - timedelta(minutes=2), True, id="longer than the policy allows by now"),
    ],
)
def test_a_certificate_that_lives_longer_than_allowed_is_not_renewed_as_it_is(limit: timedelta, anew: bool) -> None:
    """Renewing keeps the lifetime, so a policy that was tightened would never be met."""
    rule = a_rule("www.example.com", max_duration=limit)

    o = holding(CA.leaf(["www.example.com"]), authority={"policy": (rule,)})

    assert obtain(o, LATE).anew is anew


# -- what stops it -------------------------------------------------------------------------------------------------


def misnamed(value: str) -> Any:
    """A chain whose leaf carries this as a DNS name: anybody can make such a certificate."""
    leaf = observed().leaf
    assert leaf is not None
    return mock.Mock(leaf=replace(leaf, names=(Name(Kind.DNS, value),)))


NOT_READY: Change = authority(ready=False, reason="FingerprintMismatch", message="the root is another")


@pytest.mark.parametrize(
    ("change", "now", "reason", "message"),
    [
        pytest.param(
            lambda o: replace(o, immutable=True),
            LATE,
            Reason.IMMUTABLE,
            "Secret web-tls has immutable: true",
            id="immutable",
        ),
        pytest.param(EMPTY, EARLY, Reason.INVALID_SPEC, "certrenewal.dev/names) is empty", id="nameless"),
        pytest.param(
            lambda o: replace(o, held=replace(o.held, chain=misnamed("spiffe://td/x?.shop.svc"))),
            LATE,
            Reason.INVALID_SPEC,
            "'spiffe://td/x?.shop.svc' is no DNS. Write the names",
            id="a name of another kind in the certificate",
        ),
        pytest.param(
            lambda o: replace(o, held=replace(o.held, chain=misnamed("a b.shop.svc"))),
            LATE,
            Reason.INVALID_SPEC,
            "holds a blank. Write the names",
            id="no name in the certificate",
        ),
        pytest.param(NOT_READY, LATE, Reason.FINGERPRINT_MISMATCH, "the root is another", id="authority not ready"),
        pytest.param(
            authority(ready=False, reason="AuthorityNotFound", message="no such authority"),
            LATE,
            Reason.AUTHORITY_NOT_FOUND,
            "no such authority",
            id="no such authority",
        ),
        pytest.param(
            authority(can_sign=False),
            ENDED,
            Reason.AUTHORITY_NOT_READY,
            "CertAuthority default has no spec.provisioner",
            id="renew-only authority, expired",
        ),
        pytest.param(
            lambda o: authority(can_sign=False)(spec(names=names("api.shop.svc"))(o)),
            EARLY,
            Reason.AUTHORITY_NOT_READY,
            "the certificate carries web.shop.svc: that takes a new certificate",
            id="renew-only authority, other names",
        ),
        pytest.param(
            spec(names=names("www.example.com")),
            EARLY,
            Reason.NAME_DENIED,
            "no rule allows 'www.example.com' in namespace shop",
            id="denied",
        ),
    ],
)
def test_what_stops_is_told_with_its_remedy(change: Change, now: datetime, reason: Reason, message: str) -> None:
    finding = stop(changed(change), now).finding

    assert finding.reason is reason
    assert message in finding.message


STOPS: list[tuple[Reason, Change]] = [
    (Reason.IMMUTABLE, lambda o: replace(o, immutable=True)),
    (Reason.INVALID_SPEC, EMPTY),
    (Reason.FINGERPRINT_MISMATCH, NOT_READY),
    (Reason.AUTHORITY_NOT_READY, authority(can_sign=False)),
    (Reason.NAME_DENIED, lambda o: replace(o, asker=an_asker("bank"))),
]


@pytest.mark.parametrize("place", range(len(STOPS)), ids=lambda place: str(STOPS[place][0]))
def test_of_several_stops_the_first_is_told(place: int) -> None:
    o = changed(*(change for _, change in STOPS[place:]))

    assert why(decide(o, ENDED)) is STOPS[place][0]


@pytest.mark.parametrize("change", [change for _, change in STOPS if change is not EMPTY])
def test_nothing_stops_where_nothing_is_needed(change: Change) -> None:
    assert isinstance(decide(changed(change), EARLY), Rest)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        pytest.param(spec(), LATE, id="renewed"),
        pytest.param(authority(can_sign=False), LATE, id="renewed by a renew-only authority"),
        pytest.param(authority(renew_after_expiry=True), ENDED, id="renewed after its end"),
        pytest.param(spec(names=names("web.shop.svc", "www.example.com")), EARLY, id="issued"),
        pytest.param(lambda o: replace(o, renew_requested=True), EARLY, id="asked for"),
    ],
)
def test_names_are_judged_on_every_route(change: Change, now: datetime) -> None:
    """A certificate whose name is no longer allowed is not kept alive by renewing it (contract §4)."""
    denied = holding(CA.leaf(["www.example.com"]))

    finding = stop(changed(change, whole=denied), now).finding

    assert finding.reason is Reason.NAME_DENIED


def test_a_label_of_the_namespace_can_allow_a_name() -> None:
    rule = a_rule("www.example.com", namespaces=(), selector=LabelSelector(match_labels=(("team", "a"),)))
    o = holding(CA.leaf(["www.example.com"]), authority={"policy": (rule,)})

    assert obtain(replace(o, asker=an_asker(team="a")), LATE).finding.reason is Reason.RENEWAL_DUE
    assert stop(replace(o, asker=an_asker(team="b")), LATE).finding.reason is Reason.NAME_DENIED


def test_a_duration_over_the_limit_is_denied_at_renewal_too() -> None:
    rule = a_rule("www.example.com", max_duration=timedelta(hours=12))

    o = holding(CA.leaf(["www.example.com"]), spec={"duration": DAY}, authority={"policy": (rule,)})

    assert "allowed for 12h at most" in stop(o, LATE).finding.message


# -- what counts as good -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "now", "reason", "message", "anew"), CHECKS)
def test_a_certificate_is_good_until_a_fault_shows(
    change: Change, now: datetime, reason: Reason, message: str, anew: bool
) -> None:
    finding = is_good(changed(change), now)

    if reason in (Reason.RENEWAL_REQUESTED, Reason.RENEWAL_DUE):
        assert finding is None
    else:
        assert finding is not None
        assert finding.reason is reason


# -- reading a Secret ----------------------------------------------------------------------------------------------


def test_what_can_be_read_is_there_beside_what_cannot() -> None:
    whole = read_held(CA.bundle(good_certificate()), b"broken", b"roots")

    assert whole.chain is not None
    assert whole.key is None
    assert whole.fault == "private key: no readable unencrypted PEM private key"
    assert whole.roots == b"roots"


def test_both_faults_are_told() -> None:
    fault = read_held(b"broken", b"broken", b"").fault

    assert fault is not None
    assert "certificate: " in fault
    assert "; private key: " in fault


def test_an_empty_secret_has_no_fault() -> None:
    assert read_held(b"", b"", b"") == Held()


def test_no_key_shows_in_what_is_printed_of_a_secret() -> None:
    pem = dump_key(key_of())
    body = pem.split(b"\n")[1].decode()

    for shown in (
        repr(observed()),
        repr(observed().held),
        repr(observed(crt=pem)),
        str(decide(observed(crt=pem), EARLY)),
    ):
        assert body not in shown
        assert "PrivateKey" not in shown


def test_a_secret_with_its_data_exchanged_is_malformed() -> None:
    step = obtain(
        observed(
            crt=dump_key(key_of()), key=dump_certificates([good_certificate()]), spec={"names": names("web.shop.svc")}
        )
    )

    assert step.finding.reason is Reason.MALFORMED


# -- together with a sibling ---------------------------------------------------------------------------------------

NEARLY_DUE = NOON + DAY * 0.6  # by the two-thirds rule it is due after 0.616 of its life, or later


@pytest.mark.parametrize(
    ("changes", "now", "reason"),
    [
        pytest.param({"companion": "Deployment/web", "together": 0.1}, NEARLY_DUE, Reason.SIBLING_RENEWED, id="both"),
        pytest.param({"companion": None, "together": 0.1}, NEARLY_DUE, None, id="nobody is restarted"),
        pytest.param({"companion": "Deployment/web", "together": 0.0}, NEARLY_DUE, None, id="not together"),
        pytest.param({"companion": "Deployment/web", "together": 0.1}, NOON + DAY / 2, None, id="not due soon"),
        pytest.param({"companion": "Deployment/web", "together": 0.5}, EARLY - SECOND, None, id="its first quarter"),
        pytest.param({"companion": "Deployment/web", "together": 0.1}, LATE, Reason.RENEWAL_DUE, id="due by itself"),
        pytest.param({"companion": "Deployment/web", "together": 0.1}, ENDED, Reason.EXPIRED, id="ended"),
    ],
)
def test_what_is_due_soon_is_renewed_with_a_sibling(
    changes: dict[str, Any], now: datetime, reason: Reason | None
) -> None:
    assert why(decide(replace(observed(), **changes), now)) is reason


def test_a_sibling_is_renewed_by_the_cheapest_route_and_says_for_whom() -> None:
    step = obtain(replace(observed(), companion="Deployment/web", together=0.1), NEARLY_DUE)

    assert not step.anew
    assert step.finding.message == "Deployment/web is restarted for another certificate, and this one is due soon"


def test_a_certificate_that_is_fine_stays_so_while_a_sibling_is_renewed() -> None:
    assert is_good(replace(observed(), companion="Deployment/web", together=0.1), NEARLY_DUE) is None


@pytest.mark.parametrize("can_sign", [True, False])
def test_a_key_that_leaked_is_not_kept_because_its_certificate_has_expired(can_sign: bool) -> None:
    """Where the CA renews what has ended, that would be by the old key."""
    step = decide(
        observed(revoke_requested=True, authority={"renew_after_expiry": True, "can_sign": can_sign}),
        NOON + 400 * DAY,
    )

    assert isinstance(step, Obtain)
    assert (step.finding.reason, step.rotation) == (Reason.REVOCATION_REQUESTED, KeyRotation.ALWAYS)
    assert step.anew is can_sign
