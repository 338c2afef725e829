"""Can one authority be used? Its keeper pins the root, follows the CA's bundle and opens the provisioner's key.

The key is opened once for each generation of the object, and again where the CA or its Secret has another. The keeper
is also the breaker: where a call finds the CA unreachable, everybody waits for the keeper's single probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from certrenewal import metrics
from certrenewal.controller.cache import Key
from certrenewal.controller.gate import Gate
from certrenewal.controller.reporter import Reporter
from certrenewal.domain.authority import AuthoritySpec, AuthorityView, parse_authority
from certrenewal.domain.certificate import dump_certificates
from certrenewal.domain.durations import format_duration
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import InvalidSpec
from certrenewal.domain.status import Condition, Status, condition_of, difference, timestamp, with_condition
from certrenewal.domain.trust import Trust, describe, follow, read_trust
from certrenewal.kube.errors import ClusterError
from certrenewal.kube.store import API_VERSION, Store, Subject
from certrenewal.stepca.authority import Authority, connect
from certrenewal.stepca.errors import AuthorityError, NotReady, Unreachable

log = logging.getLogger(__name__)

REFRESH = 300.0
UNSETTLED = 15.0  # while a root waits to leave, or the clocks differ
FIRST_RETRY = 1.0
LONGEST_RETRY = 30.0
AHEAD = 1  # certificate let in beyond the limit: the next request is made ready while the CA answers the others
TOLERATED_SKEW = timedelta(seconds=50)  # step-ca grants tokens a minute; the Date header has whole seconds

_NONE = timedelta(0)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityObject:
    """A CertAuthority as last seen or written."""

    name: str
    uid: str
    generation: int
    spec: Mapping[str, Any]
    status: Status


class Keeper:
    """Keeps one authority usable, and tells why it is not."""

    def __init__(
        self,
        seen: AuthorityObject,
        *,
        store: Store,
        reporter: Reporter,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        changed: Callable[[], None],
        needed: Callable[[], Collection[str] | None],
        gate: Gate,
    ) -> None:
        self.view: AuthorityView | None = None
        self.authority: Authority | None = None
        self.gate = gate
        self._seen = seen
        self._built_from: Mapping[str, Any] | None = None
        self._store = store
        self._reporter = reporter
        self._leads = leads
        self._clock = clock
        self._changed = changed
        self._needed = needed
        self._trust = read_trust(seen.status)
        self._wake = asyncio.Event()
        self._failures = 0
        self._looked_at = 0  # the generation of the object that the condition is about
        self._contact: datetime | None = None
        self._condition = Condition(
            type="Ready", status="Unknown", reason=Reason.AUTHORITY_NOT_READY, message="not asked yet"
        )

    @property
    def uid(self) -> str:
        """Of the object."""
        return self._seen.uid

    def see(self, seen: AuthorityObject) -> None:
        """The object changed, or only our own status of it."""
        changed = seen.spec != self._seen.spec or seen.uid != self._seen.uid
        if seen.uid != self._seen.uid:
            self._trust = Trust()
        self._seen = seen
        if changed:
            self._wake.set()

    def wake(self, *, rebuild: bool = False) -> None:
        """Look at the authority now; ``rebuild``: its password may be another."""
        if rebuild:
            self._built_from = None
        self._wake.set()

    def uses_secret(self, secret: Key) -> bool:
        """Whether the provisioner's password lies in this Secret."""
        reference = (self._seen.spec.get("provisioner") or {}).get("passwordSecretRef") or {}
        return (reference.get("namespace"), reference.get("name")) == (secret.namespace, secret.name)

    def trip(self, failure: Unreachable) -> None:
        """A call got no answer: nobody calls before the next probe got one."""
        if self.authority is not None:
            self.authority.down = str(failure)
        if self.view is not None and self.view.ready:
            self._show(Reason.AUTHORITY_UNREACHABLE, str(failure))
            self._wake.set()

    async def run(self) -> None:
        """Look, wait, look again, for ever."""
        try:
            while True:
                self._wake.clear()
                await self._look()
                try:
                    await self._tell()
                except Exception:
                    log.exception("authority status not written", extra={"authority": self._seen.name})
                await self._sleep()
        finally:
            await self._drop()

    async def _sleep(self) -> None:
        """Until there is news, or it is time: soon while the authority fails."""
        if self._failures:
            delay = min(FIRST_RETRY * 2 ** min(self._failures - 1, 10), LONGEST_RETRY)
        else:
            delay = UNSETTLED if self._trust.retained or not self._clock_in_sync() else REFRESH
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    async def _look(self) -> None:
        seen = self._seen
        self._looked_at = seen.generation
        try:
            spec = parse_authority(seen.spec)
            await self._refresh(spec, seen.spec)
        except InvalidSpec as invalid:
            await self._drop()
            self._failures = 0
            self._show(Reason.INVALID_SPEC, str(invalid))
        except AuthorityError as failure:
            self._failures += 1
            self._show(failure.reason, str(failure))
        except ClusterError as failure:
            self._failures += 1
            log.warning("authority not read", extra={"authority": self._seen.name, "error": str(failure)})
        except Exception as failure:
            self._failures += 1
            log.exception("authority not read", extra={"authority": self._seen.name})
            if self.view is None:  # else what is known holds
                words = f"what the CA tells is not understood ({type(failure).__name__})"
                self._show(Reason.AUTHORITY_NOT_READY, words)
        else:
            self._failures = 0
            self._contact = self._clock()
            self._show(Reason.READY, f"{spec.url} answers and is trusted")

    async def _refresh(self, spec: AuthoritySpec, built_from: Mapping[str, Any]) -> None:
        """Probe what there is; build it anew where the object, its password or what the CA tells of itself changed."""
        if not await self._is_current():
            password = await self._password(spec)
            old, self.authority = self.authority, await connect(spec, password, vouched=self._trust.named)
            self._built_from = built_from
            if old is not None:
                await old.close()
        assert self.authority is not None
        self.gate.size = spec.concurrency + AHEAD
        self._trust = follow(
            self._trust,
            named=self.authority.named,
            pinned=self.authority.pinned,
            needed=self._needed(),
            now=self._clock(),
        )

    async def _is_current(self) -> bool:
        if self.authority is None or self._built_from != self._seen.spec:
            return False
        await self.authority.probe()
        return await self.authority.is_current()

    async def _password(self, spec: AuthoritySpec) -> bytes | None:
        if spec.provisioner is None:
            return None
        reference = spec.provisioner.password
        try:
            password = await self._store.read_password(reference)
        except ClusterError as failure:
            raise NotReady(
                Reason.PASSWORD_SECRET_MISSING, f"spec.provisioner.passwordSecretRef: {reference}: {failure}"
            ) from None
        if password is None:
            raise NotReady(
                Reason.PASSWORD_SECRET_MISSING, f"spec.provisioner.passwordSecretRef: {reference} does not exist"
            )
        return password

    async def _drop(self) -> None:
        authority, self.authority = self.authority, None
        if authority is not None:
            await authority.close()

    def _show(self, reason: Reason, message: str) -> None:
        """What looks at certificates see from now on."""
        ready = reason is Reason.READY and self.authority is not None
        before = self.view
        self.view = AuthorityView(
            name=self._seen.name,
            ready=ready,
            reason=reason.value if reason in _OWN else Reason.AUTHORITY_NOT_READY.value,
            message=message if ready else f"CertAuthority {self._seen.name} is not ready: {message}",
            generation=self._seen.generation,
            recovered=self._recovered(before, ready=ready),
            **self._facts(),
        )
        self._condition = Condition(type="Ready", status="True" if ready else "False", reason=reason, message=message)
        metrics.AUTHORITY_READY.labels(authority=self._seen.name).set(ready)
        if before != self.view:
            self._changed()

    def _recovered(self, before: AuthorityView | None, *, ready: bool) -> datetime | None:
        """Since when it is usable again, to the second, as tokens tell the time."""
        if ready and before is not None and not before.ready:
            return self._clock().replace(microsecond=0)
        return before.recovered if before else None

    def _facts(self) -> dict[str, Any]:
        if self.authority is None:
            return {"policy": _policy(self._seen.spec)}
        return {
            "roots": self._trust.roots,
            "intermediates": self.authority.intermediates,
            "bundle": dump_certificates(self._trust.roots),
            "policy": _policy(self._seen.spec),
            "can_sign": self.authority.provisioner is not None,
            "provisioner": self.authority.provisioner.entry if self.authority.provisioner else "",
            "longest": self.authority.provisioner.longest if self.authority.provisioner else None,
            "clock_in_sync": self._clock_in_sync(),
            "renew_after_expiry": self.authority.spec.renew_after_expiry,
        }

    async def _tell(self) -> None:
        """Write the status, with one Event where Ready changed. Only the leader does."""
        if not self._leads() or self.view is None:
            return
        seen = self._seen
        status = with_condition(seen.status, self._condition, generation=self._looked_at, now=self._clock())
        if clock := self._clock_condition():
            status = with_condition(status, clock, generation=self._looked_at, now=self._clock())
        if "provisioner" not in seen.spec:
            status = {name: value for name, value in status.items() if name != "provisioner"}
        status = {**status, **self._details()}
        patch = difference(seen.status, status)
        if not patch:
            return
        try:
            body = await self._store.write_authority_status(seen.name, seen.uid, patch)
        except ClusterError as failure:
            log.warning("authority status not written", extra={"authority": seen.name, "error": str(failure)})
            return
        self._seen = replace(self._seen, status=body.get("status") or {})
        for condition in filter(None, (self._condition, self._clock_condition())):
            await self._announce(seen, condition)

    async def _announce(self, seen: AuthorityObject, condition: Condition) -> None:
        """One Event where a condition changed; that a clock is right from the beginning is no news."""
        before = condition_of(seen.status, condition.type)
        if (before.get("status"), before.get("reason")) == (condition.status, condition.reason):
            return
        if condition.reason is Reason.CLOCK_IN_SYNC and not before:
            return
        subject = Subject(api_version=API_VERSION, kind="CertAuthority", namespace="", name=seen.name, uid=seen.uid)
        warning = condition.status != "True"
        await self._reporter.tell(subject, condition.reason, condition.message, warning=warning)

    def _clock_condition(self) -> Condition | None:
        """Whether the CA's clock and ours agree as far as tokens need it; None where nothing is known."""
        skew = self.authority.skew if self.authority else None
        if skew is None:
            return None
        if self._clock_in_sync():
            return Condition(
                type="ClockInSync",
                status="True",
                reason=Reason.CLOCK_IN_SYNC,
                message="the clocks of CA and operator agree",
            )
        minutes = format_duration(max(round(abs(skew) / _MINUTE), 1) * _MINUTE)
        return Condition(
            type="ClockInSync",
            status="False",
            reason=Reason.CLOCK_SKEW,
            message=f"the CA's clock is about {minutes} {'ahead of' if skew > _NONE else 'behind'} the "
            "operator's: tokens are refused beyond a minute, and renewals come too early or too late. Set both by NTP",
        )

    def _clock_in_sync(self) -> bool:
        skew = self.authority.skew if self.authority else None
        return skew is None or abs(skew) <= TOLERATED_SKEW

    def _details(self) -> dict[str, Any]:
        details: dict[str, Any] = {}
        if self._contact is not None:
            details["lastContact"] = timestamp(self._contact)
        if self.authority is not None:
            details["roots"] = describe(self._trust)
            if provisioner := self.authority.provisioner:
                details["provisioner"] = {"name": provisioner.name, "kid": provisioner.kid}
        return details


# Reasons that a certificate's own status repeats; all others are the authority's affair, "AuthorityNotReady".
_OWN = frozenset({Reason.READY, Reason.AUTHORITY_UNREACHABLE})


def _policy(spec: Mapping[str, Any]) -> Any:
    with contextlib.suppress(InvalidSpec, KeyError):
        return parse_authority(spec).policy
    return ()
