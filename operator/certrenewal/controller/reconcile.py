"""One look at one certificate: observe, decide, take the one step, say what happened.

Every effect is safe to repeat, and each is preceded by the question whether this replica still leads. A kill at any
await is healed by the next look: the certificate in the Secret, the mark on the pod template and the status are all
there is. A certificate that was signed but could not be written is kept for the next attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from certrenewal.controller.adoption import Adoption, stands_for
from certrenewal.controller.cache import Cache, Key, Renewal, secret_meta, version_of
from certrenewal.controller.obtaining import Obtained, Queues, ask
from certrenewal.controller.revoking import Revoker
from certrenewal.controller.siblings import companion
from certrenewal.controller.telling import Teller, roots_digest, seen_of
from certrenewal.controller.tokens import Tokens
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import Chain, Leaf, PrivateKey, dump_key, is_pkcs8
from certrenewal.domain.decision import Finding, Obtain, Repair, Rest, Stop, decide, is_good
from certrenewal.domain.formats import is_password, store_digests
from certrenewal.domain.observed import Held, Observed, read_held
from certrenewal.domain.outputs import Outputs, all_keys, changes, content_of
from certrenewal.domain.policy import Asker
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import DataKeys, Spec, parse_spec
from certrenewal.domain.status import Recorded, condition_of, follows_sibling, moment_of
from certrenewal.domain.timing import SHORTEST_RETRY, retry_delay, silence
from certrenewal.kube.errors import Conflict, NotFound, Rejected
from certrenewal.kube.store import Secret, Store
from certrenewal.stepca.authority import Issued
from certrenewal.stepca.errors import AuthorityError, BadAnswer, Refused, Unreachable

MOST_BAD_ANSWERS = 6  # in a row and close together, about a minute: a proxy that restarts is through by then


# Where a certificate cannot be replaced, it is revoked all the same if somebody asks for that.
_NO_SUCCESSOR = frozenset({Reason.NAME_DENIED, Reason.IMMUTABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    """No further attempt before ``until``, whatever news comes, unless the cause is another."""

    until: datetime
    cause: tuple[object, ...]


class Reconciler:
    """Looks at certificates, one key at a time for each worker."""

    def __init__(
        self,
        *,
        cache: Cache,
        store: Store,
        adoption: Adoption,
        authorities: Queues,
        teller: Teller,
        revoker: Revoker,
        tokens: Tokens,
        require: Callable[[], None],
        clock: Callable[[], datetime],
        cluster_domain: str,
        together: float = 0.0,
        aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._cache = cache
        self._store = store
        self._adoption = adoption
        self._authorities = authorities
        self._tell = teller
        self._revoker = revoker
        self._tokens = tokens
        self._require = require
        self._clock = clock
        self._cluster_domain = cluster_domain
        self._together = together
        self._aside = aside
        self._obtained: dict[Key, Obtained] = {}
        self._pauses: dict[Key, _Pause] = {}
        self._turned_away: set[Key] = set()  # those that wait for a place at their authority
        self._stores: dict[Key, dict[str, str]] = {}  # SHA-256 of the key stores that we wrote or found good
        self._empty: dict[Key, Secret] = {}  # what was read for those that wait, where it holds nothing at all

    def must_wait(self, key: Key) -> bool:
        """Whether ``key`` is due and has no place at its authority; it is called back, and not looked at before.

        In a burst that is nearly each of them once, and a look that only finds no place would cost them all.
        """
        renewal = self._cache.renewals.get(key)
        if renewal is None or renewal.deleting is not None or renewal.is_token or not self._is_due(renewal):
            return False
        view = self._authorities.view(renewal.authority)
        if view is None or not view.ready:
            return False
        return not self._authorities.knock(renewal.authority, key, renewal.urgency)

    async def look(self, key: Key) -> datetime | None:
        """Take the next step for ``key``; when to look again, None where only news can change anything."""
        self._turned_away.discard(key)
        try:
            return await self._settle(key)
        finally:
            if key not in self._turned_away:
                self._authorities.forget(key)  # who was called and has nothing to ask leaves the place to others

    async def _settle(self, key: Key) -> datetime | None:
        self._require()
        known = self._cache.renewals.get(key)
        if known is not None and known.deleting is not None:
            return await self._revoker.release(known)
        renewal = await self._adoption.settle(key)
        if renewal is None:
            await self._forget(key)
            return None
        moments = (await self._look(renewal), await self._revoker.settle(key))
        if self._is_asked_otherwise(renewal):
            return self._clock()
        return min(filter(None, moments), default=None)

    def _is_asked_otherwise(self, renewal: Renewal) -> bool:
        """Whether somebody changed it during the look: where our own writes show that first, it is no news later."""
        known = self._cache.renewals.get(renewal.key)
        return known is not None and known.wish != renewal.wish

    async def _forget(self, key: Key) -> None:
        self._obtained.pop(key, None)
        self._pauses.pop(key, None)
        self._empty.pop(key, None)
        self._stores.pop(key, None)
        self._tell.forget(key)
        await self._tokens.forget(key)

    async def _look(self, renewal: Renewal) -> datetime | None:
        if objection := self._adoption.objection(renewal):
            renewal, due = await self._tokens.expire(renewal)
            return await self._tell.stopped(renewal, objection, leaf=None, good=False) or due
        asker = self._asker(renewal.key.namespace)
        if asker is None:
            return None  # news of its namespace will bring us back
        spec = parse_spec(renewal.key.name, renewal.spec)
        if spec.token is not None:
            return await self._tokens.look(renewal, spec, asker)
        if "token" in renewal.status:
            held = await self._store.read_secret(renewal.key.namespace, spec.secret_name)
            renewal = await self._tokens.withdraw(renewal, held)
        held_back = await self._revoker.hold(renewal, spec)
        if held_back is None:
            return self._clock() + SHORTEST_RETRY
        renewal = held_back
        if self._is_quiet(renewal, spec):
            return await self._tell.settle(renewal, renewal.status, spec)
        view = self._authorities.view(spec.authority)
        if view is None:
            return None  # its first contact is under way and will bring us back
        secret = self._still_empty(renewal) or await self._store.read_secret(renewal.key.namespace, spec.secret_name)
        if not stands_for(renewal, secret):
            return self._clock() + SHORTEST_RETRY  # the watch will show it
        outputs = await self._outputs(renewal, spec, secret)
        return await self._step(renewal, self._observe(renewal, spec, asker, view, secret, outputs), secret)

    def _asker(self, namespace: str) -> Asker | None:
        """Who asks; None where nobody can say what the namespace may have, as it was not seen yet or is going."""
        labels = self._cache.labels.get(namespace)
        if labels is None:
            return None
        return Asker(namespace=namespace, labels=labels, cluster_domain=self._cluster_domain)

    async def _step(self, renewal: Renewal, observed: Observed, secret: Secret | None) -> datetime | None:
        now = self._clock()
        step = decide(observed, now)
        match step:
            case Rest():
                return await self._rest(renewal, observed, secret)
            case Stop(finding):
                if observed.revoke_requested and finding.reason in _NO_SUCCESSOR:
                    renewal = await self._tell.condemned(renewal, observed)
                good = finding.reason is not Reason.IMMUTABLE and is_good(observed, now) is None
                return await self._tell.stopped(
                    renewal, finding, leaf=observed.leaf, good=good, as_told=observed.is_as_told
                )
            case Repair():
                return await self._repair(renewal, observed, secret, step)
            case Obtain():
                return await self._obtain(renewal, observed, secret, step)

    def _observe(
        self,
        renewal: Renewal,
        spec: Spec,
        asker: Asker,
        view: AuthorityView,
        secret: Secret | None,
        outputs: Outputs | None,
    ) -> Observed:
        recorded = Recorded(renewal.status)
        data, keys = (secret.data if secret else {}), spec.data_keys
        held = read_held(data.get(keys.crt, b""), data.get(keys.key, b""), data.get(keys.ca, b""))
        known = held.chain is not None and held.chain.leaf.fingerprint == recorded.fingerprint
        requested, revoked = self._cache.renew_now(renewal), self._cache.revoke_now(renewal)
        asked = revoked not in ("", recorded.revoke_now) and recorded.fingerprint is not None
        met = bool(
            recorded.revoking and held.chain and recorded.revoking.is_met(revoked, held.chain.leaf.key_fingerprint)
        )
        return Observed(
            namespace=renewal.key.namespace,
            uid=renewal.uid,
            spec=spec,
            held=held,
            authority=view,
            asker=asker,
            recorded=recorded,
            asked_duration=recorded.duration if known else None,
            obtained=recorded.obtained if known else None,
            immutable=secret.immutable if secret else False,
            renew_now=requested,
            renew_requested=requested not in ("", recorded.renew_now, self._met(renewal.key, held)),
            revoke_now=revoked,
            revoke_requested=asked and not met,
            revoke_met=asked and met,
            vouched=secret is not None and _was_good(renewal, secret, view),
            companion=companion(self._cache, renewal, spec.restart),
            outputs=outputs,
            together=self._together,
        )

    def _met(self, key: Key, held: Held) -> str:
        """The request for a renewal that the Secret's certificate meets, although status does not tell yet."""
        kept = self._obtained.get(key)
        if kept is None or held.chain is None or _fingerprint(kept) != held.chain.leaf.fingerprint:
            return ""
        return kept.renew_now

    async def _outputs(self, renewal: Renewal, spec: Spec, secret: Secret | None) -> Outputs | None:
        """The other forms as they are, None where none is asked for and none of ours is left.

        A key store that is not known to be ours counts as empty: to open one takes as long as who wrote it chose.
        """
        recorded = Recorded(renewal.status)
        if not spec.formats and not recorded.formats:
            return None
        password, version = None, ""
        if spec.pkcs12 is not None:
            found = await self._store.read_secret(renewal.key.namespace, spec.pkcs12.password_secret)
            if found is not None:
                self._cache.know_secret(secret_meta(found))
                password, version = found.data.get(spec.pkcs12.password_key), version_of(found)
        data = {key: value for key, value in (secret.data if secret else {}).items() if key in all_keys()}
        ours = recorded.stores | {*self._stores.get(renewal.key, {}).values()}
        strange = {key for key, digest in store_digests(data).items() if digest not in ours}
        text = (password or b"").rstrip(b"\r\n")
        return Outputs(
            data=data | dict.fromkeys(strange, b""),
            password=text if is_password(text) else None,
            password_found=password is not None,
            password_version=version,
            written=recorded.formats,
        )

    def _note_stores(self, key: Key, observed: Observed, written: Mapping[str, bytes | None]) -> None:
        """Which key stores are ours once this is written: what was found good, and what takes its place."""
        if observed.outputs is not None:
            self._stores[key] = store_digests({**observed.outputs.data, **written})

    async def _rest(self, renewal: Renewal, observed: Observed, secret: Secret | None) -> datetime | None:
        assert secret is not None  # decide() found a good certificate in it
        assert observed.leaf is not None
        self._note_stores(renewal.key, observed, {})
        return await self._good(renewal, observed, observed.leaf, (secret.uid, secret.resource_version))

    async def _repair(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, step: Repair
    ) -> datetime | None:
        assert secret is not None  # decide() found a good certificate in it
        assert observed.leaf is not None
        assert observed.held.key is not None
        keys, chain = observed.spec.data_keys, step.chain or observed.held.chain
        assert chain is not None
        data: dict[str, bytes | None] = {keys.crt: chain.pem} if step.chain else {}
        if observed.authority.roots:
            data[keys.ca] = observed.authority.bundle
        data |= _forms(observed, chain, observed.held.key)
        renewal = await self._tell.promise(renewal, observed)
        self._note_stores(renewal.key, observed, data)
        self._require()
        version = await self._store.write_secret(secret, data)
        self._saw_own_write(secret, version)
        await self._tell.repaired(renewal, step.finding)
        return self._clock()  # something else may be wanted of it too: look again

    async def _obtain(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, step: Obtain
    ) -> datetime | None:
        pause = self._pauses.get(renewal.key)
        if pause and self._clock() < pause.until and pause.cause == self._cause(renewal, observed):
            good = is_good(observed, self._clock()) is None
            return await self._tell.waiting(
                renewal, leaf=observed.leaf, good=good, as_told=observed.is_as_told, until=pause.until
            )
        if secret is not None:
            renewal = await self._tell.promise_restarts(renewal, observed.spec, step.finding)
        obtained = self._kept(renewal, observed)
        if obtained is None and not self._may_ask(renewal, observed):
            if secret is not None and not secret.data:
                self._empty[renewal.key] = secret
            return None
        try:
            if obtained is None:
                obtained = await self._ask(renewal, observed, step)
            self._obtained[renewal.key] = obtained
            renewal = await self._tell.promise(renewal, observed)
            written = await self._write(renewal, observed, secret, obtained.issued)
        except AuthorityError as failure:
            return await self._failed(renewal, observed, failure.reason, failure)
        except (Conflict, NotFound):
            return self._clock()  # somebody wrote in between: look again, with the certificate kept
        except Rejected as failure:
            return await self._failed(renewal, observed, Reason.SECRET_NOT_WRITTEN, failure)
        return await self._good(renewal, observed, obtained.issued.chain.leaf, written, first=secret is not None)

    def _may_ask(self, renewal: Renewal, observed: Observed) -> bool:
        """Whether there is a place at the authority; if not, one that is left brings us back."""
        urgency = observed.leaf.not_after.timestamp() if observed.leaf else 0.0
        if self._authorities.enter(observed.authority.name, renewal.key, urgency):
            return True
        self._turned_away.add(renewal.key)
        return False

    async def _ask(self, renewal: Renewal, observed: Observed, step: Obtain) -> Obtained:
        """Ask for a certificate, while other looks take our place: an authority may take its time."""
        try:
            async with self._aside():
                return await ask(
                    observed, step, authorities=self._authorities, require=self._require, clock=self._clock
                )
        finally:
            self._authorities.leave(observed.authority.name, renewal.key)

    async def _good(
        self, renewal: Renewal, observed: Observed, leaf: Leaf, secret: tuple[str, str], *, first: bool = False
    ) -> datetime | None:
        """Tell of it, and forget what was kept in case telling fails."""
        kept = self._obtained.get(renewal.key)
        news = kept if kept and _fingerprint(kept) == leaf.fingerprint else None
        stores = self._stores.get(renewal.key, {}).values()
        due = await self._tell.good(renewal, observed, leaf, secret=secret, stores=stores, obtained=news, first=first)
        self._obtained.pop(renewal.key, None)
        self._pauses.pop(renewal.key, None)
        return due

    async def _failed(
        self, renewal: Renewal, observed: Observed, reason: Reason, failure: AuthorityError | Rejected
    ) -> datetime:
        now, leaf = self._clock(), observed.leaf
        remaining = leaf.not_after - now if leaf else timedelta(0)
        failures = Recorded(renewal.status).failures + 1
        if isinstance(failure, Refused) or (isinstance(failure, BadAnswer) and failures > MOST_BAD_ANSWERS):
            until = now + silence(remaining)
        else:
            asked = failure.retry_after if isinstance(failure, AuthorityError) else None
            until = now + retry_delay(failures, remaining, asked=asked)
        good = is_good(observed, now) is None
        finding = Finding(reason, str(failure))
        change = await self._tell.failed(renewal, finding, good=good, as_told=observed.is_as_told, attempt_at=until)
        if not isinstance(failure, Unreachable) or failure.answered:
            # Where nobody answered, the authority's recovery ends the wait; here only time does, or another wish.
            self._pauses[renewal.key] = _Pause(until=until, cause=self._cause(renewal, observed))
        return min(filter(None, (until, leaf.not_after if leaf and good else None, change)))

    def _cause(self, renewal: Renewal, observed: Observed) -> tuple[object, ...]:
        """What a failed attempt rested on: another wish, certificate or authority may be tried at once."""
        held = observed.leaf.fingerprint if observed.leaf else None
        asked = self._cache.renew_now(renewal), self._cache.revoke_now(renewal)
        return renewal.generation, asked, observed.authority, held

    def _kept(self, renewal: Renewal, observed: Observed) -> Obtained | None:
        """A certificate that was signed before and not written, where it is still what is wanted."""
        kept = self._obtained.get(renewal.key)
        if kept is None:
            return None
        if observed.revoke_requested and kept.reason is not Reason.REVOCATION_REQUESTED:
            return None  # it may have the key that is not to be used any more
        issued = kept.issued
        held = observed.leaf.fingerprint if observed.leaf else None
        if held != kept.replaces and is_good(observed, self._clock()) is None:
            return None  # another replica led meanwhile, and wrote a newer one
        candidate = replace(
            observed,
            held=read_held(issued.chain.pem, dump_key(issued.key), observed.authority.bundle),
            asked_duration=kept.duration,
            obtained=self._clock(),
            renew_requested=False,
            revoke_requested=False,
            outputs=None,
        )
        return kept if isinstance(decide(candidate, self._clock()), Rest) else None

    async def _write(
        self, renewal: Renewal, observed: Observed, secret: Secret | None, issued: Issued
    ) -> tuple[str, str]:
        """Chain, key, roots and all other forms in one request; the Secret's uid and new resourceVersion."""
        names = observed.spec.data_keys
        data: dict[str, bytes | None] = {
            names.crt: issued.chain.plain,
            names.ca: observed.authority.bundle,
            **_forms(observed, issued.chain, issued.key),
        }
        held = secret.data.get(names.key, b"") if secret is not None else b""
        if issued.key is not observed.held.key or not is_pkcs8(held):
            data[names.key] = dump_key(issued.key)
        self._note_stores(renewal.key, observed, data)
        self._require()
        if secret is not None:
            version = await self._store.write_secret(secret, data)
            self._saw_own_write(secret, version)
            return secret.uid, version
        created = await self._store.create_secret(
            renewal.key.namespace, observed.spec.secret_name, data, tls=names == DataKeys()
        )
        return created.uid, created.resource_version

    def _is_quiet(self, renewal: Renewal, spec: Spec) -> bool:
        """Whether status tells that nothing has to be read: the Secret is as it was, and not due."""
        status = renewal.status
        seen, secret = status.get("observedSecret") or {}, self._cache.secrets.get(renewal.secret)
        due = moment_of(status.get("renewalTime"))
        view = self._authorities.view(spec.authority)
        return (
            secret is not None
            and due is not None
            and self._clock() < due
            and status.get("observedGeneration") == renewal.generation
            and (seen.get("uid"), seen.get("resourceVersion")) == (secret.uid, secret.version)
            and (view is None or not view.ready or seen.get("roots") == roots_digest(view))
            and self._cache.renew_now(renewal) in ("", status.get("renewNow"))
            and self._cache.revoke_now(renewal) in ("", status.get("revokeNow"))
            and "failure" not in status
            and condition_of(status, "Ready").get("status") == "True"
            and seen.get("password", "") == self._password_version(renewal, spec)
            and not self._joins_sibling(renewal, spec)
        )

    def _still_empty(self, renewal: Renewal) -> Secret | None:
        """The Secret as it was when we were turned away, if it held nothing and did not change."""
        secret, known = self._empty.pop(renewal.key, None), self._cache.secrets.get(renewal.secret)
        return secret if secret and known and version_of(secret) == version_of(known) else None

    def _is_due(self, renewal: Renewal) -> bool:
        """Whether status tells that the CA is to be asked for a certificate that is still good."""
        now, due = self._clock(), moment_of(renewal.status.get("renewalTime"))
        if due is None or renewal.urgency <= now.timestamp():
            return False
        if renewal.key in self._obtained or renewal.key in self._pauses:
            return False
        return due <= now or self._cache.renew_now(renewal) not in ("", renewal.status.get("renewNow"))

    def _joins_sibling(self, renewal: Renewal, spec: Spec) -> bool:
        """Whether it may be renewed now because a workload is restarted anyway."""
        if not follows_sibling(renewal.status, self._together, self._clock()):
            return False
        return companion(self._cache, renewal, spec.restart) is not None

    def _password_version(self, renewal: Renewal, spec: Spec) -> str:
        """Which state of the Secret with the key stores' password is known; "" where none is asked for or known."""
        if not spec.formats or spec.pkcs12 is None:
            return ""
        known = self._cache.secrets.get(Key(renewal.key.namespace, spec.pkcs12.password_secret))
        return version_of(known) if known else ""

    def _saw_own_write(self, secret: Secret, version: str) -> None:
        """The watch will show us our own write: it is no news, unless it showed something newer already."""
        key = Key(secret.namespace, secret.name)
        known, read = self._cache.secrets.get(key), secret_meta(secret)
        if known is None or (known.uid, known.annotations) != (read.uid, read.annotations):
            return  # others' news is still to come
        if int(known.version) < int(version):
            self._cache.secrets[key] = replace(read, version=version)


def _fingerprint(obtained: Obtained) -> str:
    return obtained.issued.chain.leaf.fingerprint


def _was_good(renewal: Renewal, secret: Secret, view: AuthorityView) -> bool:
    """Whether status says that this Secret, just as it is, was found good for this spec under these roots."""
    seen: Mapping[str, Any] = renewal.status.get("observedSecret") or {}
    return seen.items() >= seen_of(secret.uid, secret.resource_version, view, renewal.generation).items()


def _forms(observed: Observed, chain: Chain, key: PrivateKey) -> dict[str, bytes | None]:
    """What is to be written, or removed, of the other forms beside a pair."""
    if observed.outputs is None:
        return {}
    content = content_of(observed.spec, observed.outputs, chain, key, observed.trusted)
    return changes(observed.spec, observed.outputs, content)
