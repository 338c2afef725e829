"""What should users know of a certificate that is good, but not quite what they may believe?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from certrenewal.domain.certificate import Chain
from certrenewal.domain.decision import DURATION_TOLERANCE, Finding
from certrenewal.domain.durations import format_duration
from certrenewal.domain.reasons import Reason
from certrenewal.domain.timing import Plan


def doubts(chain: Chain | None, *, asked: timedelta | None, plan: Plan) -> Iterator[Finding]:
    """Warnings about a new certificate, each worth one Event."""
    if plan.ignored:
        yield Finding(Reason.RENEW_BEFORE_IGNORED, plan.ignored)
    if chain is None:
        return
    leaf = chain.leaf
    if asked is not None and leaf.lifetime < asked - DURATION_TOLERANCE:
        yield Finding(
            Reason.DURATION_SHORTENED,
            f"{format_duration(asked)} was asked for, the CA gave {format_duration(leaf.lifetime)}",
        )
    ends = min((issuer.not_valid_after_utc for issuer in chain.certificates[1:]), default=leaf.not_after)
    if ends < leaf.not_after:
        # step-ca does not cut a leaf to its issuer's life (smallstep/certificates#381).
        yield Finding(
            Reason.OUTLIVES_ISSUER,
            f"the certificate ends at {leaf.not_after.isoformat()}, but a CA certificate in its chain at "
            f"{ends.isoformat()}: renew the intermediate at the CA before then",
        )
