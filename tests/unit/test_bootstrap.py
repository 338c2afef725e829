"""Guards: one token at a time, for names that may be had, and none that nobody asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from certrenewal.domain import bootstrap
from certrenewal.domain.bootstrap import Case, Expire, Keep, Laid, Mint, Step, Withdraw, decide, digest, read_laid
from certrenewal.domain.decision import Stop
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Spec, TokenWish
from tests.unit.builders import NOON, a_rule, an_asker, an_authority, names

MINUTE = timedelta(minutes=1)
WEB = names("web.shop.svc")
LAID = Laid(digest="d1", authority="default", names=WEB, issued=NOON, expires=NOON + 5 * MINUTE)
OVER = replace(LAID, digest="")


def a_case(*, asked: str = "web.shop.svc", authority: dict[str, Any] | None = None, **changes: Any) -> Case:
    """A token lies in its Secret, and fits."""
    spec = Spec(secret_name="web-token", names=names(*asked.split()), token=TokenWish())
    whole = Case(
        spec=spec,
        authority=an_authority(**(authority or {})),
        asker=an_asker(),
        laid=LAID,
        held="d1",
        immutable=False,
        requested=False,
    )
    return replace(whole, **changes)


def step(case: Case, *, after: timedelta = MINUTE) -> Step:
    """The step a minute after the token was signed."""
    return decide(case, NOON + after)


def reason(found: Step) -> Reason:
    """Why."""
    match found:
        case Mint(finding) | Withdraw(finding) | Stop(finding):
            return finding.reason
    raise AssertionError(found)


def test_a_token_that_fits_stays_until_it_ends() -> None:
    assert step(a_case()) == Keep(LAID.expires)
    assert step(a_case(), after=5 * MINUTE) == Expire()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"laid": None, "held": ""}, Reason.MISSING, id="there was none yet"),
        pytest.param({"requested": True}, Reason.TOKEN_REQUESTED, id="token-now"),
        pytest.param({"laid": OVER, "held": "", "requested": True}, Reason.TOKEN_REQUESTED, id="token-now, after one"),
        pytest.param({"asked": "web.shop.svc api.shop.svc"}, Reason.NAMES_CHANGED, id="other names"),
        pytest.param({"laid": replace(LAID, authority="old")}, Reason.ISSUER_CHANGED, id="another authority"),
        pytest.param({"held": ""}, Reason.MISSING, id="taken out"),
        pytest.param({"held": "d2"}, Reason.MISSING, id="overwritten"),
        pytest.param(
            {"authority": {"recovered": NOON + timedelta(seconds=1)}}, Reason.AUTHORITY_RECOVERED, id="the CA was down"
        ),
    ],
)
def test_each_need_mints_another(changes: dict[str, Any], why: Reason) -> None:
    found = step(a_case(**changes))

    assert isinstance(found, Mint)
    assert reason(found) is why


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="nothing new"),
        pytest.param({"asked": "api.shop.svc"}, id="other names"),
        pytest.param({"authority": {"recovered": NOON + MINUTE}}, id="the CA was down"),
        pytest.param({"authority": {"ready": False}}, id="the CA is down"),
        pytest.param({"asked": "api.bank.svc"}, id="names that are denied"),
    ],
)
def test_after_a_token_has_ended_only_token_now_gives_another(changes: dict[str, Any]) -> None:
    found = step(a_case(laid=OVER, held="", **changes), after=10 * MINUTE)

    assert found == Keep(None)


def test_a_token_signed_when_the_ca_was_back_is_good() -> None:
    assert step(a_case(authority={"recovered": NOON})) == Keep(LAID.expires)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"immutable": True}, Reason.IMMUTABLE, id="immutable"),
        pytest.param({"asked": ""}, Reason.INVALID_SPEC, id="no names"),
        pytest.param(
            {"authority": {"ready": False, "reason": "AuthorityUnreachable"}}, Reason.AUTHORITY_UNREACHABLE, id="down"
        ),
        pytest.param({"authority": {"can_sign": False}}, Reason.AUTHORITY_NOT_READY, id="renew-only"),
        pytest.param({"asked": "www.example.com"}, Reason.NAME_DENIED, id="denied"),
    ],
)
def test_what_stops_a_token_is_told(changes: dict[str, Any], why: Reason) -> None:
    found = step(a_case(laid=None, held="", **changes))

    assert isinstance(found, Stop)
    assert reason(found) is why


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"laid": None}, False),
        ({"laid": OVER}, False),
        ({"held": ""}, False),
        ({"asked": "api.shop.svc"}, False),
        ({"laid": replace(LAID, authority="old")}, False),
        ({"laid": replace(LAID, expires=NOON + MINUTE)}, False),
    ],
    ids=["it fits", "none", "ended", "taken out", "other names", "another authority", "just ended"],
)
def test_what_lies_there_is_good_where_it_fits(changes: dict[str, Any], good: bool) -> None:
    assert a_case(**changes).is_good(NOON + MINUTE) is good


def test_an_outage_takes_no_token_away() -> None:
    assert step(a_case(authority={"ready": False, "reason": "AuthorityUnreachable"})) == Keep(LAID.expires)


@pytest.mark.parametrize("asked", ["www.example.com", "web.shop.svc www.example.com"])
def test_a_token_whose_names_are_denied_is_taken_away(asked: str) -> None:
    laid = replace(LAID, names=names(*asked.split()))
    rule = a_rule("*.example.com")

    assert isinstance(step(a_case(asked=asked, laid=laid)), Withdraw)
    assert isinstance(step(a_case(asked=asked, laid=laid, authority={"policy": (rule,)})), Keep)


def test_an_immutable_secret_keeps_what_has_ended_and_says_so() -> None:
    assert reason(step(a_case(immutable=True), after=5 * MINUTE)) is Reason.IMMUTABLE


def test_a_rule_with_a_longest_life_gives_no_token() -> None:
    short = a_rule("*.example.com", max_duration=timedelta(hours=1))
    case = a_case(asked="www.example.com", laid=None, held="", authority={"policy": (short,)})

    found = step(case)

    assert reason(found) is Reason.NAME_DENIED
    assert isinstance(found, Stop)
    assert "chooses how long" in found.finding.message


# -- status --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laid", [LAID, OVER], ids=["lies there", "ended"])
def test_a_status_is_read_back(laid: Laid) -> None:
    assert read_laid(bootstrap.with_laid({}, laid)) == laid


@pytest.mark.parametrize("token", [None, {}, {"issuedAt": "soon", "expiresAt": "later"}, {"sha256": "d1"}])
def test_a_status_that_cannot_be_read_counts_as_absent(token: Any) -> None:
    assert read_laid({"token": token}) is None


def test_what_is_about_a_certificate_goes_and_comes_back_anew() -> None:
    conditions = [{"type": "Ready"}, {"type": "RolledOut"}]
    status = {"certificate": {}, "restarts": "1/1", "conditions": conditions, "token": {}, "tokenNow": "1"}

    assert bootstrap.of_tokens(status) == {"conditions": conditions[:1], "token": {}, "tokenNow": "1"}
    assert bootstrap.without_token(status) == {"certificate": {}, "restarts": "1/1"}


def test_nothing_has_no_digest() -> None:
    assert digest(b"") == ""
    assert len(digest(b"token")) == 64
