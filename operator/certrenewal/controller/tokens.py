"""One look at one token in a Secret: mint it, take it away when it has ended, burn it when it is wanted no longer.

Status is written before the Secret: a token that lies there is known by its digest, and one that got lost in between
was never handed out. At most one token of a Secret is good: the last one is burnt at the CA before another is laid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from certrenewal import metrics
from certrenewal.controller.adoption import stands_for
from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.controller.cancelling import Canceller, Live
from certrenewal.controller.obtaining import Authorities
from certrenewal.controller.reporter import Reporter, about
from certrenewal.controller.telling import Teller
from certrenewal.domain import bootstrap
from certrenewal.domain.bootstrap import DATA_KEYS, EXPIRES_AT, TOKEN, Case, Laid, digest, read_laid
from certrenewal.domain.decision import Finding, Stop
from certrenewal.domain.policy import Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import Spec
from certrenewal.domain.status import (
    Condition,
    Recorded,
    Status,
    condition_of,
    timestamp,
    with_condition,
    without,
)
from certrenewal.domain.timing import SHORTEST_RETRY, retry_delay
from certrenewal.kube.errors import Conflict, NotFound, Rejected
from certrenewal.kube.store import Secret, Store, Subject
from certrenewal.stepca.authority import Minted
from certrenewal.stepca.errors import AuthorityError


class Tokens:
    """Keeps the one-time tokens in Secrets."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        authorities: Authorities,
        teller: Teller,
        canceller: Canceller,
        reporter: Reporter,
        require: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._store = store
        self._authorities = authorities
        self._tell = teller
        self._reporter = reporter
        self._require = require
        self._clock = clock
        self._canceller = canceller

    async def look(self, renewal: Renewal, spec: Spec, asker: Asker) -> datetime | None:
        """Take the next step; when to look again, None where only news can change anything."""
        self._tell.forget(renewal.key)  # its metrics are those of certificates
        if self._is_over(renewal):
            return None
        view = self._authorities.view(spec.authority)
        if view is None:
            return None  # its first contact is under way and will bring us back
        secret = await self._store.read_secret(renewal.key.namespace, spec.secret_name)
        if not stands_for(renewal, secret):
            return self._clock() + SHORTEST_RETRY  # the watch will show it
        case = Case(
            spec=spec,
            authority=view,
            asker=asker,
            laid=read_laid(renewal.status),
            held=digest(_held(secret)),
            immutable=secret.immutable if secret else False,
            requested=self._is_requested(renewal),
        )
        try:
            return await self._step(renewal, case, secret)
        except AuthorityError as failure:
            return await self._stop(renewal, case, Finding(failure.reason, str(failure)))

    async def _step(self, renewal: Renewal, case: Case, secret: Secret | None) -> datetime | None:
        match bootstrap.decide(case, self._clock()):
            case bootstrap.Keep(until):
                return await self._keep(renewal, case, secret, until)
            case bootstrap.Mint(need):
                return await self._mint(renewal, case, secret, need)
            case bootstrap.Expire():
                await self._expire(renewal, secret)
                return self._clock() if case.requested else None
            case bootstrap.Withdraw():
                await self.withdraw(renewal, secret)
                return self._clock()  # the next look tells why there is none
            case Stop(finding):
                return await self._stop(renewal, case, finding)

    def _is_over(self, renewal: Renewal) -> bool:
        """Whether status tells that the token has ended and that nobody has asked for another."""
        laid = read_laid(renewal.status)
        return (
            laid is not None
            and not laid.digest
            and renewal.status.get("observedGeneration") == renewal.generation
            and condition_of(renewal.status, "Ready").get("reason") == Reason.TOKEN_EXPIRED
            and not self._is_requested(renewal)
        )

    def _is_requested(self, renewal: Renewal) -> bool:
        return self._cache.token_now(renewal) not in ("", renewal.status.get("tokenNow", ""))

    async def _keep(
        self, renewal: Renewal, case: Case, secret: Secret | None, until: datetime | None
    ) -> datetime | None:
        laid = case.laid
        assert laid is not None  # without one, one is needed
        if until is None:
            await self._publish(renewal, laid, _expired(laid))
            return None
        view = case.authority
        if secret is not None and view.ready and not case.immutable:
            authority = self._authorities.use(view.name)
            wanted = _beside(authority.spec.url, authority.root_fingerprint, laid.expires)
            if changed := {key: value for key, value in wanted.items() if secret.data.get(key) != value}:
                self._require()
                await self._store.write_secret(secret, changed)
        await self._publish(renewal, laid, _issued(laid))
        return until

    async def _mint(self, renewal: Renewal, case: Case, secret: Secret | None, need: Finding) -> datetime | None:
        now, spec = self._clock(), case.spec
        assert spec.token is not None  # this look is about a token
        await self._retire(renewal, secret)
        authority = self._authorities.use(spec.authority)
        minted = authority.mint(names=spec.names, lifetime=spec.token.lifetime, now=now)
        laid = Laid(
            digest=digest(minted.token.encode()),
            authority=spec.authority,
            names=spec.names,
            issued=now.replace(microsecond=0),
            expires=minted.expires,
        )
        asked = self._cache.token_now(renewal)
        status = bootstrap.with_laid(bootstrap.of_tokens(renewal.status), laid)
        if case.laid is None:
            missing = Condition(type="Ready", status="False", reason=need.reason, message=need.message)
            status = with_condition(status, missing, generation=renewal.generation, now=now)
        renewal = await self._tell.publish(renewal, status)
        try:
            await self._write(renewal, spec, secret, minted)
        except (Conflict, NotFound):
            return self._clock()  # somebody wrote in between: look again, and mint another
        except Rejected as failure:
            until = now + retry_delay(Recorded(renewal.status).failures + 1, timedelta(0))
            finding = Finding(Reason.SECRET_NOT_WRITTEN, str(failure))
            await self._tell.failed(renewal, finding, good=False, attempt_at=until)
            return until
        live = Live(secret=renewal.secret, authority=spec.authority, token=minted.token, expires=minted.expires)
        self._canceller.remember(renewal.key, live)
        metrics.TOKENS.labels(outcome="minted").inc()
        await self._publish(renewal, laid, _issued(laid), token_now=asked)
        message = f"for {', '.join(map(str, laid.names))} ({need.reason.value}), good until {timestamp(laid.expires)}"
        await self._reporter.tell(about(renewal), Reason.TOKEN_ISSUED, message)
        return minted.expires

    async def _write(self, renewal: Renewal, spec: Spec, secret: Secret | None, minted: Minted) -> None:
        self._require()
        data: dict[str, bytes | None] = {
            TOKEN: minted.token.encode(),
            **_beside(minted.url, minted.fingerprint, minted.expires),
        }
        if secret is None:
            await self._store.create_secret(renewal.key.namespace, spec.secret_name, data, tls=False)
        else:
            await self._store.write_secret(secret, data)

    async def _stop(self, renewal: Renewal, case: Case, finding: Finding) -> datetime | None:
        before = condition_of(renewal.status, "Ready")
        if (before.get("reason"), before.get("message")) != (finding.reason, finding.message):
            metrics.TOKENS.labels(outcome="refused").inc()
        laid, now = case.laid, self._clock()
        await self._tell.stopped(renewal, finding, leaf=None, good=case.is_good(now))
        return laid.expires if laid and case.lies and now < laid.expires else None

    async def expire(self, renewal: Renewal) -> tuple[Renewal, datetime | None]:
        """Take away a token that has ended, whatever else keeps the CertRenewal from being acted on; when one will."""
        laid = read_laid(renewal.status)
        if laid is None or not laid.digest:
            return renewal, None
        if self._clock() < laid.expires:
            return renewal, laid.expires
        secret = await self._store.read_secret(renewal.key.namespace, renewal.secret.name)
        if secret is not None and secret.immutable:
            return renewal, None
        return await self._expire(renewal, secret), None

    async def _expire(self, renewal: Renewal, secret: Secret | None) -> Renewal:
        """Take away a token that has ended. Burning it ends the minute for which the CA takes it still."""
        laid = read_laid(renewal.status)
        assert laid is not None  # it has ended
        used = await self._retire(renewal, secret, ended=True)
        if secret is not None:
            ours = digest(_held(secret)) == laid.digest
            await self._remove(secret, [EXPIRES_AT, *([TOKEN] if ours else [])])
        over = replace(laid, digest="")
        renewal = await self._publish(renewal, over, _expired(laid))
        self._canceller.forget(renewal.key)
        if used is not None:
            message = f"{'the CA had taken it, or was restarted' if used else 'unused'}; {_expired(laid).message}"
            await self._reporter.tell(about(renewal), Reason.TOKEN_EXPIRED, message)
        return renewal

    async def withdraw(self, renewal: Renewal, secret: Secret | None) -> Renewal:
        """The token is wanted no longer: burn it, and take away what we wrote."""
        laid = read_laid(renewal.status)
        if laid is None:
            return renewal
        await self._retire(renewal, secret)
        if secret is not None and not secret.immutable:
            ours = digest(_held(secret)) == laid.digest
            await self._remove(secret, [key for key in DATA_KEYS if key != TOKEN or ours])
        renewal = await self._tell.publish(renewal, bootstrap.without_token(renewal.status))
        self._canceller.forget(renewal.key)
        return renewal

    async def forget(self, key: Key) -> None:
        """The CertRenewal is gone: burn what it had asked for, and take that away where it still lies."""
        live = self._canceller.known(key)
        if live is not None:
            secret = await self._store.read_secret(live.secret.namespace, live.secret.name)
            await self._canceller.retire(key, None, b"", _about_secret(live.secret, secret))
            if secret is not None and not secret.immutable and _held(secret) == live.token.encode():
                await self._remove(secret, list(DATA_KEYS))
        self._canceller.forget(key)

    async def _retire(self, renewal: Renewal, secret: Secret | None, *, ended: bool = False) -> bool | None:
        laid, held = read_laid(renewal.status), _held(secret)
        return await self._canceller.retire(renewal.key, laid, held, about(renewal), ended=ended)

    async def _remove(self, secret: Secret, keys: list[str]) -> None:
        present = [key for key in keys if key in secret.data]
        if present:
            self._require()
            await self._store.write_secret(secret, dict.fromkeys(present, None))

    async def _publish(
        self, renewal: Renewal, laid: Laid, ready: Condition, *, token_now: str | None = None
    ) -> Renewal:
        status: Status = without(bootstrap.with_laid(bootstrap.of_tokens(renewal.status), laid), "failure")
        if token_now:
            status = {**status, "tokenNow": token_now}
        status = with_condition(status, ready, generation=renewal.generation, now=self._clock())
        return await self._tell.publish(renewal, status)


def _held(secret: Secret | None) -> bytes:
    return secret.data.get(TOKEN, b"") if secret else b""


def _beside(url: str, fingerprint: str, expires: datetime) -> Mapping[str, bytes]:
    """What lies beside a token."""
    return {
        bootstrap.CA_URL: url.encode(),
        bootstrap.FINGERPRINT: fingerprint.encode(),
        EXPIRES_AT: timestamp(expires).encode(),
    }


def _issued(laid: Laid) -> Condition:
    message = f"a token lies in the Secret, good until {timestamp(laid.expires)}"
    return Condition(type="Ready", status="True", reason=Reason.TOKEN_ISSUED, message=message)


def _expired(laid: Laid) -> Condition:
    message = f"the token ended at {timestamp(laid.expires)}; a new value of token-now asks for another"
    return Condition(type="Ready", status="False", reason=Reason.TOKEN_EXPIRED, message=message)


def _about_secret(key: Key, secret: Secret | None) -> Subject:
    return Subject(
        api_version="v1", kind="Secret", namespace=key.namespace, name=key.name, uid=secret.uid if secret else ""
    )
