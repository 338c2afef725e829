"""By which ways can a certificate be had, the cheapest that works first?

Measured against step-ca 0.30: a renewal by token on a kept-alive connection costs the client a tenth of one by mTLS,
and signing anew costs little more than that but needs the provisioner's key.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from certrenewal.domain.certificate import Leaf
from certrenewal.domain.keys import KeyRotation


class Route(StrEnum):
    """The words of ``status.lastRenewal.route``."""

    SIGN = "Sign"
    RENEW_TOKEN = "RenewToken"
    RENEW_MTLS = "RenewMTLS"
    REKEY = "Rekey"


def ladder(leaf: Leaf | None, *, anew: bool, rotation: KeyRotation, can_sign: bool, now: datetime) -> list[Route]:
    """The routes to try in turn; one that the CA refuses gives way to the next."""
    sign = [Route.SIGN] if can_sign else []
    if anew or leaf is None:
        return sign
    live = now < leaf.not_after  # an expired leaf fails in the TLS handshake, whatever the CA would allow
    if rotation is KeyRotation.ALWAYS:
        return sign or ([Route.REKEY] if leaf.can_renew_by_mtls and live else [])
    token = [Route.RENEW_TOKEN] if leaf.can_renew_by_token else []
    mtls = [Route.RENEW_MTLS] if leaf.can_renew_by_mtls and live else []
    return [*token, *mtls, *sign]
