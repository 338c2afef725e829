"""How is a token made worthless? The CA is shown it once more, by whoever still knows it: the Secret, or its signer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from certrenewal import metrics
from certrenewal.controller.cache import Key
from certrenewal.controller.obtaining import Authorities
from certrenewal.controller.reporter import Reporter
from certrenewal.domain.bootstrap import Laid, digest
from certrenewal.domain.reasons import Reason
from certrenewal.kube.store import Subject
from certrenewal.stepca.errors import AuthorityError, NotReady, Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A token of this process that may be good still, for the day on which its Secret is gone."""

    secret: Key
    authority: str
    token: str = field(repr=False)
    expires: datetime


class Canceller:
    """Burns tokens, each once. By the key of the CertRenewal, whose last token is the only one that is good."""

    def __init__(
        self,
        *,
        authorities: Authorities,
        reporter: Reporter,
        require: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._authorities = authorities
        self._reporter = reporter
        self._require = require
        self._clock = clock
        self._live: dict[Key, Live] = {}
        self._burnt: dict[Key, tuple[str, bool | None]] = {}  # the last one's digest, and whether it was used

    def remember(self, key: Key, live: Live) -> None:
        """A token that was laid into its Secret."""
        self._live[key] = live
        self._burnt.pop(key, None)

    def known(self, key: Key) -> Live | None:
        """The last token, where this process signed it."""
        return self._live.get(key)

    def forget(self, key: Key) -> None:
        """Nothing is left to be done."""
        self._live.pop(key, None)
        self._burnt.pop(key, None)

    async def retire(
        self, key: Key, laid: Laid | None, held: bytes, subject: Subject, *, ended: bool = False
    ) -> bool | None:
        """Burn the last token as far as it is known; whether it was used before, None where nobody can tell.

        ``held`` is what the Secret holds. ``ended``: it has ended by itself, and the CA grants it a minute.
        """
        self._require()
        live, now = self._live.get(key), self._clock()
        if laid and laid.digest and digest(held) == laid.digest:
            authority, token, expires = laid.authority, held.decode(), laid.expires
        elif live is not None:
            authority, token, expires = live.authority, live.token, live.expires
        else:
            return None
        burnt, used = self._burnt.get(key, ("", None))
        name = digest(token.encode())
        if burnt != name:
            used = await self._burn(authority, token, subject, ended=ended) if ended or now < expires else None
            self._burnt[key] = (name, used)
        return used

    async def _burn(self, authority: str, token: str, subject: Subject, *, ended: bool) -> bool | None:
        """Make a token worthless; whether it was so before, None where the CA does not say: it may be used yet."""
        try:
            view = self._authorities.view(authority)
            if view is None or not view.ready:
                raise NotReady(Reason.AUTHORITY_NOT_READY, f"CertAuthority {authority} is not ready")
            used = not await self._authorities.use(authority).burn(token)
        except AuthorityError as failure:
            if isinstance(failure, Unreachable) and not failure.answered:
                self._authorities.report(authority, failure)
            if ended:
                metrics.TOKENS.labels(outcome="expired").inc()
            else:
                message = f"the token is good until it ends, by itself or with the CA's next restart: {failure}"
                await self._reporter.tell(subject, Reason.TOKEN_NOT_CANCELLED, message, warning=True)
            return None
        metrics.TOKENS.labels(outcome="used" if used else "expired" if ended else "cancelled").inc()
        if not ended:
            what = "was used before, or the CA was restarted" if used else "nobody can use it any more"
            await self._reporter.tell(subject, Reason.TOKEN_CANCELLED, f"the token was cancelled: {what}")
        return used
