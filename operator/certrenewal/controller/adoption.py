"""Which CertRenewal stands for an annotated Secret, and which of several claims on one Secret wins?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from certrenewal.controller.cache import Cache, Key, Renewal, SecretMeta, parse_renewal
from certrenewal.controller.reporter import Reporter
from certrenewal.domain import annotation
from certrenewal.domain.decision import Finding
from certrenewal.domain.reasons import Reason
from certrenewal.domain.serving import refuse_foreign_host
from certrenewal.domain.spec import InvalidSpec, Wish, is_opted_in, parse_spec, read_wish
from certrenewal.kube.errors import Rejected
from certrenewal.kube.store import Secret, Store, Subject


class Adoption:
    """Keeps CertRenewals in step with the annotations of Secrets.

    ``withdraw`` takes a token out of a Secret that asks for none any more.
    """

    def __init__(
        self,
        cache: Cache,
        store: Store,
        reporter: Reporter,
        *,
        require: Callable[[], None],
        cluster_domain: str = "cluster.local",
        withdraw: Callable[[Renewal, Secret | None], Awaitable[Renewal]],
    ) -> None:
        self._cache = cache
        self._store = store
        self._reporter = reporter
        self._require = require
        self._cluster_domain = cluster_domain
        self._withdraw = withdraw
        self._told: dict[Key, str] = {}

    async def settle(self, key: Key) -> Renewal | None:
        """The CertRenewal to look at, made, changed or removed as the Secret of the same name asks."""
        secret = self._cache.secrets.get(key)
        renewal = self._cache.renewals.get(key)
        if secret is not None and secret.opted_in:
            if renewal is None or renewal.owner_uid is not None:
                return await self._follow(secret, renewal)
            message = (
                f"CertRenewal {renewal.key.name} was written by hand and has this name: it decides, and the "
                "annotations count for nothing. Remove one of the two"
            )
            await self._tell_once(secret, Reason.CONFLICT, message)
            return renewal
        self._told.pop(key, None)
        if renewal is not None and renewal.owner_uid is not None:
            return await self._unless_orphaned(renewal)
        return renewal

    async def _follow(self, secret: SecretMeta, renewal: Renewal | None) -> Renewal | None:
        wish = read_wish(secret.key.name, secret.annotations)
        if renewal is not None and renewal.owner_uid == secret.uid and _says(renewal, wish):
            return renewal
        try:
            body = await self._store.apply_renewal(
                secret.key.namespace, secret.key.name, owner_uid=secret.uid, spec=wish.spec
            )
        except Rejected as refusal:
            # The schema knows limits that reading the annotations does not, such as the number of names.
            await self._tell_once(secret, Reason.INVALID_SPEC, str(refusal))
            if renewal is None:
                raise  # a refusal that goes away by itself, of a webhook say, would otherwise be the last word
            return renewal
        made = parse_renewal(body)
        self._cache.put_renewal(made)
        return made

    async def _unless_orphaned(self, renewal: Renewal) -> Renewal | None:
        """The annotation was taken away, or the Secret is gone: its CertRenewal goes too."""
        found = await self._store.read_secret(renewal.key.namespace, renewal.key.name)
        if stands_for(renewal, found):
            return renewal  # the watch has not shown us this yet
        await self._withdraw(renewal, found if found is not None and found.uid == renewal.owner_uid else None)
        self._require()
        await self._store.delete_renewal(renewal.key.namespace, renewal.key.name, renewal.uid)
        known = self._cache.renewals.get(renewal.key)
        if known is None or known.deleting is None:  # else it waits for its finalizer, as the watch has shown already
            self._cache.lose_renewal(renewal.key)
        return None

    async def _tell_once(self, secret: SecretMeta, reason: Reason, message: str) -> None:
        """Where the annotations have no CertRenewal to speak through, an Event on the Secret has to do."""
        if self._told.get(secret.key) == message:
            return
        self._told[secret.key] = message
        subject = Subject(
            api_version="v1",
            kind="Secret",
            namespace=secret.key.namespace,
            name=secret.key.name,
            uid=secret.uid,
        )
        await self._reporter.tell(subject, reason, message, warning=True)

    def objection(self, renewal: Renewal) -> Finding | None:
        """Why this CertRenewal cannot be acted on: it cannot be read, or another claim on its Secret wins."""
        try:
            spec = parse_spec(renewal.key.name, renewal.spec)
            refuse_foreign_host(
                spec.verify,
                "spec.verify.host" if renewal.owner_uid is None else f"annotation {annotation.VERIFY}",
                namespace=renewal.key.namespace,
                cluster_domain=self._cluster_domain,
            )
        except InvalidSpec as invalid:
            return Finding(Reason.INVALID_SPEC, str(invalid))
        secret = self._cache.secrets.get(renewal.secret)
        if renewal.owner_uid is not None and secret is not None:
            problem = read_wish(secret.key.name, secret.annotations).problem
            if problem is not None:
                return Finding(Reason.INVALID_SPEC, str(problem))
        return self._conflict(renewal)

    def _conflict(self, renewal: Renewal) -> Finding | None:
        claims = [self._cache.renewals[key] for key in self._cache.claims(renewal.secret)]
        rivals = [rival for rival in claims if rival.deleting is None]
        winner = min(rivals, key=_precedence, default=renewal)
        if winner.key == renewal.key:
            return None
        return Finding(
            Reason.CONFLICT,
            f"Secret {renewal.secret.name} is kept by CertRenewal {winner.key.name}, which came first: "
            "name another Secret in spec.secretName, or remove one of the two",
        )


def stands_for(renewal: Renewal, found: Secret | None) -> bool:
    """Whether it still stands for the Secret as it was read; always, where it was written by hand.

    The watch may show later that a Secret was deleted, replaced, or asks for nothing any more. Acting on what it
    showed before would bring back one that was deleted, with a key that nobody asked for.
    """
    if renewal.owner_uid is None:
        return True
    return found is not None and found.uid == renewal.owner_uid and is_opted_in(found.annotations)


def _precedence(renewal: Renewal) -> tuple[bool, str, str]:
    """The oldest written by hand first."""
    return renewal.owner_uid is not None, renewal.created, renewal.key.name


def _says(renewal: Renewal, wish: Wish) -> bool:
    """Whether the CertRenewal already says what the annotations say."""
    try:
        return parse_spec(renewal.key.name, renewal.spec) == parse_spec(renewal.key.name, wish.spec)
    except InvalidSpec:
        return False
