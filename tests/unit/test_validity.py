"""Guards: what falls short of what users may believe of a new certificate is told, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509

from certrenewal.domain.certificate import dump_certificates, parse_chain
from certrenewal.domain.reasons import Reason
from certrenewal.domain.timing import Plan
from certrenewal.domain.validity import doubts
from tests.unit.builders import DAY, NOON, a_root, an_intermediate

CA = an_intermediate()
ENDS = CA.certificate.not_valid_after_utc
PLAN = Plan(NOON)


def told(
    certificates: Sequence[x509.Certificate], *, asked: timedelta | None = None, plan: Plan = PLAN
) -> dict[Reason, str]:
    chain = parse_chain(dump_certificates(certificates))
    return {finding.reason: finding.message for finding in doubts(chain, asked=asked, plan=plan)}


@pytest.mark.parametrize(
    ("asked", "doubt"),
    [
        pytest.param(None, False, id="nothing was asked for"),
        pytest.param(DAY, False, id="what was asked for"),
        pytest.param(DAY + timedelta(seconds=62), False, id="less by what step-ca backdates"),
        pytest.param(DAY + timedelta(seconds=63), True, id="less"),
        pytest.param(DAY / 2, False, id="more"),
    ],
)
def test_a_shorter_life_than_asked_for_is_told(asked: timedelta | None, doubt: bool) -> None:
    assert (Reason.DURATION_SHORTENED in told([CA.leaf(), *CA.chain], asked=asked)) is doubt


def test_both_durations_are_told() -> None:
    message = told([CA.leaf(), *CA.chain], asked=timedelta(hours=48))[Reason.DURATION_SHORTENED]

    assert message == "48h was asked for, the CA gave 24h"


@pytest.mark.parametrize(
    ("past_the_issuer", "doubt"),
    [
        pytest.param(timedelta(seconds=-1), False, id="ends before"),
        pytest.param(timedelta(0), False, id="ends together"),
        pytest.param(timedelta(seconds=1), True, id="ends after"),
    ],
)
def test_a_leaf_that_outlives_a_ca_of_its_chain_is_told(past_the_issuer: timedelta, doubt: bool) -> None:
    leaf = CA.leaf(lifetime=ENDS - NOON + past_the_issuer)

    messages = told([leaf, *CA.chain, a_root().certificate])

    assert (Reason.OUTLIVES_ISSUER in messages) is doubt
    assert not doubt or ENDS.isoformat() in messages[Reason.OUTLIVES_ISSUER]


def test_a_leaf_that_comes_alone_outlives_nobody() -> None:
    assert told([CA.leaf(lifetime=20 * 365 * DAY)]) == {}


def test_a_renew_before_that_was_ignored_is_told_even_without_a_chain() -> None:
    (finding,) = doubts(None, asked=None, plan=Plan(NOON, "renewBefore does not fit"))

    assert (finding.reason, finding.message) == (Reason.RENEW_BEFORE_IGNORED, "renewBefore does not fit")


def test_a_certificate_that_is_just_as_wanted_raises_no_doubt() -> None:
    assert told([CA.leaf(), *CA.chain], asked=DAY) == {}
