"""What does this replica know of the cluster? Small values, kept warm by the watches on every replica."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from certrenewal.domain import annotation
from certrenewal.domain.kinds import NOT_RESTARTED, Resource
from certrenewal.domain.rollout import Workload
from certrenewal.domain.spec import InvalidSpec, Spec, WorkloadRef, is_opted_in, parse_spec
from certrenewal.domain.status import Status, compact, moment_of
from certrenewal.kube.store import Secret


class Key(NamedTuple):
    """A namespace and a name: of a CertRenewal, or of the Secret that asks for one."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A CertRenewal as last seen or written."""

    key: Key
    uid: str
    version: int = field(compare=False)
    generation: int
    created: str
    owner_uid: str | None  # of the Secret whose annotations it stands for; None: written by hand
    spec: Mapping[str, Any]
    status: Status
    renew_now: str
    revoke_now: str = ""
    finalizers: tuple[str, ...] = ()
    deleting: datetime | None = None  # since when it is to go, and waits for its finalizers
    token_now: str = ""
    secret: Key = field(init=False, repr=False, compare=False)  # that it fills
    urgency: float = field(init=False, repr=False, compare=False)  # when its certificate ends; 0: it has none

    def __post_init__(self) -> None:
        """Work out what is asked for most often."""
        name = self.spec.get("secretName")
        secret = Key(self.key.namespace, name) if name and name != self.key.name else self.key
        object.__setattr__(self, "secret", secret)
        ends = moment_of((self.status.get("certificate") or {}).get("notAfter"))
        object.__setattr__(self, "urgency", ends.timestamp() if ends else 0.0)

    @property
    def authority(self) -> str:
        """The CertAuthority that it asks."""
        return str(self.spec.get("authority") or "default")

    @property
    def wish(self) -> tuple[object, ...]:
        """All that others change in it."""
        return self.uid, self.generation, self.renew_now, self.revoke_now, self.token_now, self.deleting

    @property
    def is_token(self) -> bool:
        """Whether it asks for a one-time token, and for no certificate."""
        return self.spec.get("token") is not None

    @property
    def password_secret(self) -> Key | None:
        """The Secret with the password of its key stores."""
        name = ((self.spec.get("pkcs12") or {}).get("passwordSecretRef") or {}).get("name")
        return Key(self.key.namespace, name) if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretMeta:
    """The metadata of a Secret: its data is never kept."""

    key: Key
    uid: str
    version: str
    annotations: Mapping[str, str]

    @property
    def opted_in(self) -> bool:
        """Whether it asks to be kept fresh."""
        return is_opted_in(self.annotations)


def parse_renewal(body: Mapping[str, Any]) -> Renewal:
    """Read a CertRenewal as the API server gives it."""
    metadata = body["metadata"]
    owners = [o for o in metadata.get("ownerReferences") or () if o["kind"] == "Secret" and o.get("controller")]
    return Renewal(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 1),
        created=metadata["creationTimestamp"],
        owner_uid=owners[0]["uid"] if owners else None,
        spec=body.get("spec") or {},
        status=compact(body.get("status") or {}),
        renew_now=(metadata.get("annotations") or {}).get(annotation.RENEW_NOW, ""),
        revoke_now=(metadata.get("annotations") or {}).get(annotation.REVOKE_NOW, ""),
        finalizers=tuple(metadata.get("finalizers") or ()),
        deleting=moment_of(metadata.get("deletionTimestamp")),
        token_now=(metadata.get("annotations") or {}).get(annotation.TOKEN_NOW, ""),
    )


def spec_of(renewal: Renewal) -> Spec | None:
    """What a CertRenewal asks for; None where that cannot be read."""
    try:
        return parse_spec(renewal.key.name, renewal.spec)
    except InvalidSpec:
        return None


def secret_meta(secret: Secret) -> SecretMeta:
    """The metadata of a Secret that was read."""
    ours = {key: value for key, value in secret.annotations.items() if key.startswith(annotation.PREFIX)}
    return SecretMeta(
        key=Key(secret.namespace, secret.name), uid=secret.uid, version=secret.resource_version, annotations=ours
    )


def version_of(secret: Secret | SecretMeta) -> str:
    """Which state of which Secret this is."""
    version = secret.version if isinstance(secret, SecretMeta) else secret.resource_version
    return f"{secret.uid}/{version}"


def parse_secret_meta(body: Mapping[str, Any]) -> SecretMeta:
    """Read the metadata of a Secret."""
    metadata = body["metadata"]
    ours = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(annotation.PREFIX)}
    return SecretMeta(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        annotations=ours,
    )


_Place = tuple[str, WorkloadRef]


@dataclass(slots=True)
class Cache:
    """The warm state. Each method that takes news returns the keys that deserve a look."""

    renewals: dict[Key, Renewal] = field(default_factory=dict)
    secrets: dict[Key, SecretMeta] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)  # of the namespaces that are there to stay
    _namespaces: dict[str, str] = field(default_factory=dict)  # the uids of these
    _claims: defaultdict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _workloads: dict[_Place, Workload] = field(default_factory=dict)
    _passwords: defaultdict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _users: defaultdict[Key, set[WorkloadRef]] = field(default_factory=lambda: defaultdict(set))
    _owned: defaultdict[_Place, set[WorkloadRef]] = field(default_factory=lambda: defaultdict(set))

    def claims(self, secret: Key) -> set[Key]:
        """The CertRenewals that name this Secret."""
        return set(self._claims.get(secret, ()))

    def places(self, resource: Resource) -> list[tuple[str, str]]:
        """Namespaces and names of the known workloads of one kind."""
        found = self._workloads.values()
        return [(workload.namespace, workload.ref.name) for workload in found if workload.resource == resource]

    def renewals_of(self, authority: str) -> list[Renewal]:
        """The CertRenewals that ask this authority."""
        return [renewal for renewal in self.renewals.values() if renewal.authority == authority]

    def renew_now(self, renewal: Renewal) -> str:
        """The renew-now values of a CertRenewal and of its Secret; "" where there is none."""
        return self._asked(renewal, annotation.RENEW_NOW, renewal.renew_now)

    def token_now(self, renewal: Renewal) -> str:
        """As renew_now, for token-now."""
        return self._asked(renewal, annotation.TOKEN_NOW, renewal.token_now)

    def _asked(self, renewal: Renewal, key: str, own: str) -> str:
        secret = self.secrets.get(renewal.secret)
        asked = secret.annotations.get(key, "") if secret else ""
        return f"{asked} {own}" if asked and own else asked or own

    def revoke_now(self, renewal: Renewal) -> str:
        """As renew_now, for revoke-now."""
        return self._asked(renewal, annotation.REVOKE_NOW, renewal.revoke_now)

    def dependents(self, secret: Key) -> list[Workload]:
        """The workloads that use this Secret, and the owners that are restarted in their place."""
        if secret not in self._users:
            return []
        users = [self._workloads[secret.namespace, ref] for ref in self._users[secret]]
        found = {workload.ref: workload for user in users for workload in (user, self._top(user))}
        return [self._whole(found[ref]) for ref in sorted(found)]

    def workload(self, namespace: str, ref: WorkloadRef) -> Workload | None:
        """One workload, None where it is gone."""
        known = self._workloads.get((namespace, ref))
        return self._whole(known) if known else None

    def see_renewal(self, renewal: Renewal) -> set[Key]:
        """A CertRenewal as the API server shows it; news older than what is known counts for nothing."""
        known = self.renewals.get(renewal.key)
        if known and known.uid != renewal.uid:
            self.lose_renewal(renewal.key)
            known = None
        if known and known.version >= renewal.version:
            return set()
        self.put_renewal(renewal)
        if known is None:
            return {renewal.key, *self.claims(renewal.secret)}
        rivals = self.claims(renewal.secret) | self.claims(known.secret) if known.secret != renewal.secret else set()
        # A status that is not ours is news too: a former leader's last write may have come late.
        return {renewal.key, *rivals} if known != renewal else set()

    def answer_renewal(self, renewal: Renewal) -> None:
        """As `put_renewal`, of one that was there before: the watch may have shown meanwhile that it is gone."""
        known = self.renewals.get(renewal.key)
        if known is not None and known.uid == renewal.uid:
            self.put_renewal(renewal)

    def put_renewal(self, renewal: Renewal) -> None:
        """Remember what the API server answered to a write of ours, unless the watch showed something newer."""
        if known := self.renewals.get(renewal.key):
            if known.uid == renewal.uid and known.version > renewal.version:
                return
            self._unlink(known)
        self.renewals[renewal.key] = renewal
        self._claims[renewal.secret].add(renewal.key)
        if password := renewal.password_secret:
            self._passwords[password].add(renewal.key)

    def _unlink(self, renewal: Renewal) -> None:
        _discard(self._claims, renewal.secret, renewal.key)
        if password := renewal.password_secret:
            _discard(self._passwords, password, renewal.key)

    def lose_renewal(self, key: Key) -> set[Key]:
        """A CertRenewal is gone: its rivals and the Secret that may ask for it again."""
        known = self.renewals.pop(key, None)
        if known is None:
            return set()
        self._unlink(known)
        return {key, *self.claims(known.secret)}

    def see_secret(self, secret: SecretMeta) -> set[Key]:
        """A Secret's metadata; only Secrets that ask or are claimed are kept."""
        known = self.secrets.get(secret.key)
        claims = self.claims(secret.key) | self._passwords.get(secret.key, set())
        if known is not None and known.version == secret.version:
            return set()
        if secret.opted_in or claims:
            self.secrets[secret.key] = secret
        else:
            self.secrets.pop(secret.key, None)
        asks = secret.opted_in or (known is not None and known.opted_in)
        return claims | ({secret.key} if asks else set())

    def lose_secret(self, key: Key) -> set[Key]:
        """A Secret is gone."""
        known = self.secrets.pop(key, None)
        claims = self.claims(key) | self._passwords.get(key, set())
        return claims | ({key} if known and known.opted_in else set())

    def know_secret(self, secret: SecretMeta) -> None:
        """A Secret with a password, as it was read, unless the watch tells of it: others are to hear its news, too."""
        self.secrets.setdefault(secret.key, secret)

    def see_workload(self, workload: Workload) -> set[Key]:
        """A workload: every CertRenewal whose Secret it uses, or used, may stand differently now.

        News older than what is known counts for nothing: the watch may be faster than the answer to a write of ours.
        """
        known = self._workloads.get((workload.namespace, workload.ref))
        if known and known.uid == workload.uid and known.version > workload.version:
            return set()
        if not workload.secrets and workload.ref.kind in NOT_RESTARTED:
            return self.lose_workload(workload.namespace, workload.ref)
        self._workloads[workload.namespace, workload.ref] = workload
        if known == workload:
            return set()
        secrets = workload.secrets | (known.secrets if known else frozenset())
        self._index_owner(known, workload)
        return self._reindex(workload.namespace, workload.ref, secrets, workload.secrets) | self._below(workload)

    def lose_workload(self, namespace: str, ref: WorkloadRef) -> set[Key]:
        """A workload is gone."""
        known = self._workloads.pop((namespace, ref), None)
        if known is None:
            return set()
        self._index_owner(known, None)
        return self._reindex(namespace, ref, known.secrets, frozenset()) | self._below(known)

    def see_namespace(self, name: str, uid: str, labels: Mapping[str, str]) -> bool:
        """Whether a namespace is new, or its labels are, which a policy may select by."""
        known = self.labels.get(name)
        self.labels[name], self._namespaces[name] = labels, uid
        return known != labels

    def lose_namespace(self, name: str, uid: str) -> bool:
        """A namespace is gone or about to go; False where another one has its name by now, or it was never seen."""
        if self._namespaces.get(name) != uid:
            return False
        del self.labels[name], self._namespaces[name]
        return True

    def _reindex(self, namespace: str, ref: WorkloadRef, touched: Iterable[str], used: frozenset[str]) -> set[Key]:
        keys: set[Key] = set()
        for name in touched:
            secret = Key(namespace, name)
            (self._users[secret].add if name in used else self._users[secret].discard)(ref)
            if not self._users[secret]:
                del self._users[secret]
            keys |= self.claims(secret)
        return keys

    # -- owners ------------------------------------------------------------------------------------------------

    def _whole(self, workload: Workload) -> Workload:
        """A workload with what it takes over from those that it owns, or the owner that stands in for it."""
        top = self._top(workload)
        if top is not workload:
            return replace(workload, through=top.ref)
        secrets = {name for owned in self._owned_by(workload) if self._top(owned) is workload for name in owned.secrets}
        return workload if secrets <= workload.secrets else replace(workload, secrets=workload.secrets | secrets)

    def _top(self, workload: Workload) -> Workload:
        """The topmost known owner that can be restarted; the workload itself where there is none."""
        if not workload.leans_on_owner:
            return workload
        top, passed = workload, {workload.ref}
        owner = self._owner(workload)
        while owner is not None:
            if owner.ref in passed:
                return workload  # they own each other, says somebody
            passed.add(owner.ref)
            top = owner if owner.can_be_restarted else top
            owner = self._owner(owner)
        return top

    def _owner(self, workload: Workload) -> Workload | None:
        owner = self._workloads.get((workload.namespace, workload.owner.ref)) if workload.owner else None
        return owner if owner and workload.owner and owner.uid == workload.owner.uid else None

    def _owned_by(self, workload: Workload) -> Iterator[Workload]:
        """All that it owns, and what those own."""
        passed, ahead = {workload.ref}, [workload.ref]
        while ahead:
            owned = self._owned.get((workload.namespace, ahead.pop()), set()) - passed
            passed |= owned
            ahead += owned
            yield from (self._workloads[workload.namespace, ref] for ref in sorted(owned))

    def _below(self, workload: Workload) -> set[Key]:
        """The CertRenewals of what it owns: they stand differently with another owner."""
        secrets = {name for owned in self._owned_by(workload) for name in owned.secrets}
        return {key for name in secrets for key in self.claims(Key(workload.namespace, name))}

    def _index_owner(self, known: Workload | None, workload: Workload | None) -> None:
        for one, change in ((known, set.discard), (workload, set.add)):
            if one is not None and one.owner is not None:
                place = (one.namespace, one.owner.ref)
                change(self._owned[place], one.ref)
                if not self._owned[place]:
                    del self._owned[place]


def _discard(index: dict[Key, set[Key]], name: Key, key: Key) -> None:
    """Take a key out of an index, and with the last one the name."""
    index[name].discard(key)
    if not index[name]:
        del index[name]
