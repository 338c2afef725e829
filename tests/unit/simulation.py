"""How does one certificate fare over simulated years: the real parts, between an API server and a CA of memory?

The operator's own code runs from `Reconciler` down to the request: only `Client` and `Transport` are replaced, the
loop around the looks, and the clock. What goes wrong is told beforehand, for the next request of a kind.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from certrenewal.controller.assembly import Choices, Surroundings, assemble
from certrenewal.controller.cache import Cache, Key, Renewal, parse_renewal, parse_secret_meta
from certrenewal.controller.reconcile import Reconciler
from certrenewal.domain import annotation
from certrenewal.domain.authority import AuthoritySpec, AuthorityView
from certrenewal.domain.certificate import PrivateKey, dump_certificates, dump_key
from certrenewal.domain.durations import format_duration, parse_duration
from certrenewal.domain.reasons import Reason
from certrenewal.domain.spec import WorkloadRef
from certrenewal.domain.status import Condition, Status
from certrenewal.domain.timing import LONGEST_RETRY
from certrenewal.kube.client import JSON, TIMEOUT, Client, Object
from certrenewal.kube.errors import ClusterError, Conflict, NotFound
from certrenewal.kube.lease import NotLeading
from certrenewal.kube.store import Store
from certrenewal.stepca.authority import Authority
from certrenewal.stepca.errors import Refused, Unreachable
from certrenewal.stepca.provisioner import Provisioner
from certrenewal.stepca.transport import Transport
from tests.unit.builders import a_root, an_authority, an_intermediate, general_name, key_of, new_key, subject

NAMESPACE = "shop"
SECRET = Key(NAMESPACE, "web-tls")
BY_HAND = Key(NAMESPACE, "web")
PAUSE = timedelta(milliseconds=10)  # what a request takes
PROBE = timedelta(seconds=30)  # the keeper's longest pause
FOREIGN = {"password.txt": b"not ours"}

T = TypeVar("T")


class Killed(BaseException):
    """The process ended at this await."""


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What happens at one request: before it takes effect, or when only its answer can still get lost."""

    act: Callable[[World], object]
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user wants, and of which CA."""

    annotated: bool = True
    names: tuple[str, ...] = ("web.shop.svc",)
    told: bool = True  # whether the user says the names, or leaves them to the certificate at hand
    duration: timedelta | None = None
    usual: timedelta = timedelta(hours=24)  # what the CA gives where nobody asks
    renew_before: str | None = None
    rotation: str = "Never"
    can_sign: bool = True
    backdate: timedelta = timedelta(minutes=1)
    uid: str = "6f1c"
    formats: tuple[str, ...] = ()
    revoke: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """The CertRenewal that stands for it."""
        return SECRET if self.annotated else BY_HAND

    @property
    def lifetime(self) -> timedelta:
        """How long a new certificate lives, backdating included."""
        return (self.duration or self.usual) + self.backdate

    def annotations(self) -> dict[str, str]:
        """In the short form."""
        words = {annotation.RENEW: "true", annotation.KEY_ROTATION: self.rotation}
        if self.told:
            words[annotation.NAMES] = ",".join(self.names)
        if self.duration:
            words[annotation.DURATION] = format_duration(self.duration)
        if self.renew_before:
            words[annotation.RENEW_BEFORE] = self.renew_before
        lists = {annotation.FORMATS: self.formats, annotation.REVOKE: self.revoke}
        return words | {key: ",".join(values) for key, values in lists.items() if values}

    def spec(self) -> dict[str, Any]:
        """In the long form."""
        return {
            "secretName": SECRET.name,
            "key": {"rotation": self.rotation},
            **({"names": list(self.names)} if self.told else {}),
            **({"duration": format_duration(self.duration)} if self.duration else {}),
            **({"renewBefore": self.renew_before} if self.renew_before else {}),
            **({"formats": list(self.formats)} if self.formats else {}),
            **({"revoke": list(self.revoke)} if self.revoke else {}),
        }


# -- the API server ------------------------------------------------------------------------------------------------


def merged(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class Objects:
    """Secrets and CertRenewals with their versions. Each change is news."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._versions = itertools.count(2)
        self.kept: dict[tuple[str, str], Object] = {}

    def get(self, plural: str, name: str) -> Object | None:
        """A copy of one object."""
        return _copied(self.kept.get((plural, name)))

    def put(self, plural: str, name: str, body: Object) -> Object:
        """Make it so; where that changes nothing, it is no news."""
        before = self.kept.get((plural, name))
        if before is not None and _content(before) == _content(body):
            return _copied(before)
        body = _copied(body)
        number = next(self._versions)
        metadata = body["metadata"]
        metadata["resourceVersion"] = str(number)
        if before is None:
            metadata |= {"namespace": NAMESPACE, "name": name, "generation": 1}
            metadata.setdefault("uid", f"uid-{number}")
            metadata["creationTimestamp"] = "2026-03-01T12:00:00Z"
        elif before.get("spec") != body.get("spec"):
            metadata["generation"] += 1
        self.kept[plural, name] = body
        self._world.tell(None, plural, body)
        return _copied(body)

    def delete(self, plural: str, name: str) -> None:
        """It is gone."""
        self._world.tell("DELETED", plural, self.kept.pop((plural, name)))


def _copied(body: T) -> T:
    """As another process would have it."""
    copied: T = json.loads(json.dumps(body))
    return copied


def _content(body: Object) -> Object:
    metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    return {**body, "metadata": metadata}


class Connection(Client):
    """The requests of one replica."""

    def __init__(self, world: World, replica: Replica) -> None:
        self._world = world
        self._replica = replica

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> Object:
        plural, name, *sub = [*path.partition("?")[0].partition(f"/namespaces/{NAMESPACE}/")[2].split("/"), ""][:3]
        kind = "/".join(filter(None, [plural, *sub]))
        if method != "GET" and plural != "events":
            self._world.acted(self._replica, f"{method} {kind}")
        await self._world.meet(f"{method} {kind}", late=False)
        answer = self._answer(method, kind, name, body or {})
        await self._world.meet(f"{method} {kind}", late=True)
        return answer

    def _answer(self, method: str, kind: str, name: str, body: Object) -> Object:
        plural, objects = kind.partition("/")[0], self._world.objects
        before = objects.get(plural, name)
        match method, kind:
            case "POST", "events":
                self._world.events.append((body["reason"], body["message"]))
                return {}
            case "POST", "secrets":
                if objects.get(plural, body["metadata"]["name"]):
                    raise self._conflict("it exists")
                return self._written(body["metadata"]["name"], body)
            case "PATCH", "certrenewals" if "spec" in body:
                owned = {"metadata": {"ownerReferences": body["metadata"]["ownerReferences"], "uid": self._uid(before)}}
                return objects.put(plural, name, {**merged(before, owned), "spec": body["spec"]})
        if before is None:
            self._world.unsure = True
            raise NotFound(f"{kind} {name}")
        given = (body.get("metadata") or body.get("preconditions") or {}).items()
        if any(before["metadata"][field] != value for field, value in given if field != "finalizers"):
            raise self._conflict(f"it is not {dict(given)}")
        match method, kind:
            case "GET", "secrets":
                return before
            case "DELETE", "certrenewals" if not before["metadata"].get("finalizers"):
                objects.delete(plural, name)
                return before
            case "PATCH", "secrets":
                return self._written(name, merged(before, {"data": body["data"]}))
            case "PATCH", "certrenewals":
                return objects.put(plural, name, merged(before, {"metadata": body["metadata"]}))
            case "PATCH", "certrenewals/status":
                return objects.put(plural, name, merged(before, {"status": body["status"]}))
        raise AssertionError(f"{method} {kind}")

    def _written(self, name: str, body: Object) -> Object:
        before = self._world.data()
        answer = self._world.objects.put("secrets", name, body)
        self._world.written(self._replica, before, self._world.data())
        return answer

    def _uid(self, before: Object | None) -> str:
        return str(before["metadata"]["uid"]) if before else self._world.wish.uid

    def _conflict(self, words: str) -> Conflict:
        self._world.unsure = True
        return Conflict(words)


# -- the CA --------------------------------------------------------------------------------------------------------


class StepCA:
    """Issues in whole seconds, backdated, by a counter."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._serials = itertools.count(1)
        self.back: datetime | None = None  # when it answers again
        self.revoked: list[str] = []
        self.forgery: str | None = None

    @property
    def is_down(self) -> bool:
        """Whether nobody answers."""
        return self.back is not None and self._world.clock.now < self.back

    def issue(self, key: Any, names: list[str], duration: timedelta, *, root: str = "Root") -> x509.Certificate:
        """A certificate from now on."""
        now, issuer = self._world.clock.now.replace(microsecond=0), an_intermediate(root)
        return (
            x509.CertificateBuilder()
            .subject_name(subject(names[0]))
            .issuer_name(issuer.certificate.subject)
            .public_key(key)
            .serial_number(next(self._serials))
            .not_valid_before(now - self._world.wish.backdate)
            .not_valid_after(now + duration)
            .add_extension(_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )

    def sign(self, body: Mapping[str, Any]) -> x509.Certificate:
        """POST /sign."""
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        wish = self._world.wish
        duration = parse_duration(body["notAfter"]) if "notAfter" in body else wish.usual
        return self._answer(csr.public_key(), list(_part(body["ott"], 1)["sans"]), duration)

    def renew(self, old: x509.Certificate, key: Any = None) -> x509.Certificate:
        """POST /renew, or /rekey with another key: the lifetime stays."""
        if old.issuer != an_intermediate().certificate.subject:
            raise Refused(401, "the certificate was not issued by this CA")
        if self._world.clock.now >= old.not_valid_after_utc:
            raise Refused(401, "the certificate has expired")
        names = [str(name.value) for name in old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        lifetime = old.not_valid_after_utc - old.not_valid_before_utc
        return self._answer(key or old.public_key(), names, lifetime - self._world.wish.backdate)

    def _answer(self, key: Any, names: list[str], duration: timedelta) -> x509.Certificate:
        forgery, self.forgery = self.forgery, None
        match forgery:
            case "another key":
                return self.issue(key_of(which=7).public_key(), names, duration)
            case "other names":
                return self.issue(key, ["db.shop.svc"], duration)
            case "ended":
                return self.issue(key, names, timedelta(0))
            case "another CA":
                return self.issue(key, names, duration, root="Other")
        return self.issue(key, names, duration)


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _part(token: str, place: int) -> dict[str, Any]:
    """Header (0) or claims (1) of a JWT."""
    part = token.split(".")[place]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


class Shown:
    """In the place of a TLS context: remembers the client certificate."""

    def __init__(self, roots: object) -> None:
        self.leaf: x509.Certificate | None = None

    def load_cert_chain(self, path: str) -> None:
        """As `ssl.SSLContext` has it."""
        self.leaf = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]


class Wire(Transport):
    """The calls of one replica to the CA."""

    def __init__(self, world: World, replica: Replica) -> None:
        self.skew = None
        self._world = world
        self._replica = replica

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        context: Any = None,
    ) -> dict[str, Any]:
        ca, operation = self._world.ca, path.removeprefix("/1.0")
        if method == "POST":
            self._world.acted(self._replica, operation)
        if method == "POST" and operation != "/revoke":
            self._world.asked(self._replica)
        await self._world.meet(operation, late=False)
        if ca.is_down:
            raise Unreachable("the CA cannot be reached")
        if method == "GET":
            return {"status": "ok"}
        if operation == "/revoke":
            ca.revoked.append((body or {})["serial"])
            return {"status": "ok"}
        forged = ca.forgery is not None
        certificate = self._certificate(operation, body or {}, headers or {}, context)
        await self._world.meet(operation, late=True)
        if not forged:
            self._world.issued(self._replica, certificate)
        return {"certChain": [dump_certificates([part]).decode() for part in (certificate, *an_intermediate().chain)]}

    def _certificate(
        self, operation: str, body: Mapping[str, Any], headers: Mapping[str, str], context: Shown | None
    ) -> x509.Certificate:
        ca = self._world.ca
        if operation == "/sign":
            return ca.sign(body)
        if context is None:
            shown = _part(headers["Authorization"].removeprefix("Bearer "), 0)["x5cInsecure"][0]
            return ca.renew(x509.load_der_x509_certificate(base64.b64decode(shown)))
        assert context.leaf is not None
        key = x509.load_pem_x509_csr(body["csr"].encode()).public_key() if operation == "/rekey" else None
        return ca.renew(context.leaf, key)


# -- the operator --------------------------------------------------------------------------------------------------


class Contact:
    """What one replica knows of the authority: a keeper and its probes, without their tasks."""

    def __init__(self, world: World, replica: Replica) -> None:
        self._world = world
        self._replica = replica
        self.places = 0  # taken
        self.is_full = False
        self._is_known = False
        self._view: AuthorityView | None = None
        self._authority = _authority(world, replica)
        world.later(PAUSE, self.probe)

    def view(self, name: str) -> AuthorityView | None:
        """As `Authorities` has it."""
        return self._view

    def use(self, name: str) -> Authority:
        """As `Authorities` has it."""
        return self._authority

    def report(self, name: str, failure: Unreachable) -> None:
        """As `Authorities` has it: nobody calls before a probe found the CA back."""
        if self._view is not None and self._view.ready:
            self._show(ready=False)
            self._world.later(PAUSE, self.probe)

    def knock(self, name: str, key: Key, urgency: float) -> bool:
        """As `Authorities` has it: there is a place, unless a test says otherwise."""
        return not self.is_full

    def enter(self, name: str, key: Key, urgency: float) -> bool:
        """As `Authorities` has it: there is always a place."""
        self.places += 1
        return True

    def leave(self, name: str, key: Key) -> None:
        """As `Authorities` has it."""
        self.places -= 1

    def forget(self, key: Key) -> None:
        """As `Authorities` has it: nobody waits for a place."""

    def doubt(self, name: str) -> None:
        """As `Authorities` has it: the CA is asked whether it is still the same."""
        self._world.later(PAUSE, self.probe)

    def probe(self) -> None:
        """Ask whether the CA answers; where it does not, again once it may (of years, no probe in vain is told)."""
        ca, now = self._world.ca, self._world.clock.now
        if ca.back is not None and ca.is_down:
            self._show(ready=False)
            self._world.later(ca.back - now + PROBE, self.probe)
            return
        self._is_known = True
        self._show(ready=True)

    def _show(self, *, ready: bool) -> None:
        before = self._view
        facts = {} if self._is_known else {"roots": (), "bundle": b"", "can_sign": False}
        trouble = {"reason": Reason.AUTHORITY_UNREACHABLE.value, "message": "the CA cannot be reached"}
        known = {"can_sign": self._world.wish.can_sign, "intermediates": (an_intermediate().certificate,)}
        self._view = an_authority(ready=ready, **{**known, **facts, **({} if ready else trouble)})
        if before != self._view:
            self._replica.poke({self._world.wish.key})


def _authority(world: World, replica: Replica) -> Authority:
    root = (a_root().certificate,)
    return Authority(
        AuthoritySpec(url="https://ca.test", requests_per_second=1_000_000),
        pinned=root,
        named=root,
        intermediates=(an_intermediate().certificate,),
        transport=Wire(world, replica),
        provisioner=Provisioner(name="p", kid="k", key=key_of(which=1), entry=""),
    )


class _NoHooks:
    """Nobody is told of anything."""

    def tell(self, renewal: Renewal, status: Status) -> tuple[Status, Condition | None]:
        """Nothing to add."""
        return status, None

    def want(self, renewal: Renewal) -> None:
        """Nothing is owed."""

    def forget(self, key: Key) -> None:
        """Nothing is known."""


class Restarts:
    """Notes who is owed a restart, and restarts nobody."""

    def __init__(self) -> None:
        self.owed: list[WorkloadRef] = []

    def want(self, namespace: str, ref: WorkloadRef, debt: object) -> None:
        """As `RestartQueue` has it."""
        self.owed.append(ref)

    def spare(self, namespace: str, ref: WorkloadRef, secret: str) -> None:
        """Nobody is restarted."""

    def refusals(self, namespace: str) -> Mapping[WorkloadRef, str]:
        """Nobody refused."""
        return {}


class Replica:
    """One process of the operator: what it remembers ends with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.due: datetime | None = None  # of the next look
        self.news = False  # came during a look
        self.looks = False
        self.failures = 0
        self.unwritten: list[x509.Certificate] = []
        self.cache = Cache()
        self.cache.see_namespace(NAMESPACE, "uid", {})
        self.restarts = Restarts()
        self.contact = Contact(world, self)
        self._store = Store(Connection(world, self), reporter="simulation")
        self.reconciler = self._made()
        for (plural, _), body in world.objects.kept.items():
            self.see(None, plural, body)

    def _made(self) -> Reconciler:
        around = Surroundings(
            cache=self.cache,
            store=self._store,
            authorities=self.contact,
            restarts=self.restarts,
            hooks=_NoHooks(),
            require=self.require,
            clock=self._world.clock,
        )
        return assemble(around, Choices())

    def require(self) -> None:
        """As `Elector` has it."""
        if self._world.leader is not self:
            raise NotLeading

    def see(self, event: str | None, plural: str, body: Object) -> None:
        """News from a watch."""
        match plural, event:
            case "secrets", "DELETED":
                self.poke(self.cache.lose_secret(parse_secret_meta(body).key))
            case "secrets", _:
                self.poke(self.cache.see_secret(parse_secret_meta(body)))
            case _:
                self.poke(self.cache.see_renewal(parse_renewal(body)))

    def poke(self, keys: set[Key]) -> None:
        """As `Schedule` has it, for the one key that there is."""
        if self._world.wish.key in keys:
            self.news = self.looks
            self.due = self._world.clock.now

    async def look(self) -> datetime | None:
        """As `Operator` does it: when to look again."""
        before = self._wish()
        try:
            due = await self.reconciler.look(self._world.wish.key)
        except NotLeading:
            return self._world.clock.now
        except ClusterError:
            self.failures += 1
            backoff = timedelta(seconds=0.2 * float(2 ** min(self.failures, 10)))
            return self._world.clock.now + min(backoff, LONGEST_RETRY)
        self.failures = 0
        self._world.unsure |= self._wish() != before
        self._world.ended(due)
        return due

    def _wish(self) -> object:
        known = self.cache.renewals.get(self._world.wish.key)
        return known.wish if known else None


@dataclass
class Clock:
    """A clock that stands until somebody sets it."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


@dataclass(order=True)
class _Later:
    when: datetime
    number: int
    action: Callable[[], None] = field(compare=False)


class World:
    """A cluster, a CA, and two replicas of which one leads. Tests of laws override what is under "what is seen"."""

    def __init__(self, wish: Wish, start: datetime, *, holds: bool = False) -> None:
        self.wish = wish
        self.clock = Clock(start)
        self.lag = timedelta(0)  # of the watches
        self.jumped = False  # the clock, during this look
        self.unsure = False  # somebody else wrote during this look
        self.events: list[tuple[str, str]] = []
        self.troubles: defaultdict[str, deque[Trouble]] = defaultdict(deque)
        self.ca = StepCA(self)
        self.objects = Objects(self)
        self._numbers = itertools.count()
        self._later: list[_Later] = []
        self._loop = asyncio.new_event_loop()
        self.replicas: list[Replica] = []
        self._set_up(holds)
        self.replicas = [Replica(self), Replica(self)]
        self.leader = self.replicas[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its loop."""
        self._loop.close()

    def _set_up(self, holds: bool) -> None:
        data = {**FOREIGN, **(self.pair() if holds else {})}
        if self.wish.annotated:
            metadata = {"annotations": self.wish.annotations()}
            self.objects.put("secrets", SECRET.name, {"metadata": metadata, "data": encoded(data)})
            return
        self.objects.put("certrenewals", BY_HAND.name, {"metadata": {"uid": self.wish.uid}, "spec": self.wish.spec()})
        if holds:
            self.objects.put("secrets", SECRET.name, {"metadata": {}, "data": encoded(data)})

    # -- what is there ---------------------------------------------------------------------------------------------

    def data(self) -> dict[str, bytes]:
        """What the Secret holds; nothing where there is none."""
        body = self.objects.get("secrets", SECRET.name) or {}
        return {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}

    def status(self) -> dict[str, Any]:
        """What users read."""
        body = self.objects.get("certrenewals", self.wish.key.name) or {}
        return dict(body.get("status") or {})

    def pair(self, names: tuple[str, ...] | None = None) -> dict[str, bytes]:
        """What somebody could put into the Secret by hand: a new certificate of this CA."""
        key: PrivateKey = new_key()
        wish = self.wish
        certificate = self.ca.issue(key.public_key(), list(names or wish.names), wish.duration or wish.usual)
        chain = dump_certificates([certificate, *an_intermediate().chain])
        return {"tls.crt": chain, "tls.key": dump_key(key), "ca.crt": a_root().pem}

    # -- what somebody does ----------------------------------------------------------------------------------------

    def edit(self, changes: Mapping[str, bytes | None]) -> None:
        """Somebody writes to the Secret, where there is one."""
        body = self.objects.get("secrets", SECRET.name)
        if body is not None:
            data = {key: None if value is None else encoded({key: value})[key] for key, value in changes.items()}
            self.objects.put("secrets", SECRET.name, merged(body, {"data": data}))

    def annotate(self, changes: Mapping[str, str | None]) -> None:
        """Somebody annotates the object that asks."""
        plural = "secrets" if self.wish.annotated else "certrenewals"
        body = self.objects.get(plural, self.wish.key.name)
        self.objects.put(plural, self.wish.key.name, merged(body, {"metadata": {"annotations": changes}}))

    def want(self, **changes: Any) -> None:
        """The user changes his mind."""
        before = self.wish.annotations()
        self.wish = replace(self.wish, **changes)
        if self.wish.annotated:
            self.annotate({**dict.fromkeys(before), **self.wish.annotations()})
        else:
            body = self.objects.get("certrenewals", BY_HAND.name) or {}
            self.objects.put("certrenewals", BY_HAND.name, {**body, "spec": self.wish.spec()})

    def hand_over(self) -> None:
        """The other replica leads from now on."""
        self.leader = next(replica for replica in self.replicas if replica is not self.leader)

    def kill(self) -> None:
        """The leading process ends where it stands; one that knows nothing takes its place."""
        raise Killed

    def restart(self) -> None:
        """The leading process ends between two looks, and another begins."""
        self._replace(self.leader)

    def mend(self) -> None:
        """All that was wrong is right again; the user's own doing stays."""
        self.troubles.clear()
        self.lag = timedelta(0)
        self.ca.back = self.ca.forgery = None
        for replica in self.replicas:
            self.later(PROBE, replica.contact.probe)

    def suspend(self, span: timedelta) -> None:
        """The host sleeps."""
        self.clock.now += span
        self.jumped = True

    # -- time ------------------------------------------------------------------------------------------------------

    def later(self, span: timedelta, action: Callable[[], None]) -> None:
        """Something will happen."""
        heapq.heappush(self._later, _Later(self.clock.now + span, next(self._numbers), action))

    def tell(self, event: str | None, plural: str, body: Object) -> None:
        """Show a change to every replica, as soon as its watches come to it."""
        for replica in self.replicas:
            if self.lag:
                self.later(self.lag, lambda replica=replica: replica.see(event, plural, _copied(body)))  # type: ignore[misc]
            else:
                replica.see(event, plural, _copied(body))

    def _catch_up(self) -> None:
        while self._later and self._later[0].when <= self.clock.now:
            heapq.heappop(self._later).action()

    async def meet(self, operation: str, *, late: bool) -> None:
        """Time passes, and what was told beforehand goes wrong."""
        self.clock.now += PAUSE / 2
        self._catch_up()
        troubles = self.troubles[operation]
        if troubles and troubles[0].late is late:
            troubles.popleft().act(self)

    def look(self) -> None:
        """The leader looks once, now."""
        replica = self.leader
        self.jumped = self.unsure = False
        replica.news, replica.looks = False, True
        began = self.clock.now
        try:
            due = self._run(replica.look())
        except Killed:
            self._replace(replica)
            return
        replica.looks = False
        replica.due = self.clock.now if replica.news else due
        self.looked(replica, began)

    def _run(self, looking: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(looking)

    def _replace(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.leader = Replica(self)
        self.replicas.append(self.leader)

    def step(self, until: datetime) -> bool:
        """Go on to the next thing that happens, at most to ``until``; whether that was a look."""
        self._catch_up()
        due = self.leader.due
        if due is not None and due <= self.clock.now:
            self.look()
            return True
        moments = [moment for moment in (due, self._later[0].when if self._later else None) if moment is not None]
        self.clock.now = max(self.clock.now, min([*moments, until]))
        self._catch_up()
        return False

    def run(self, span: timedelta, *, most: int = 1000) -> int:
        """Let time pass; how many looks that took."""
        until, looks = self.clock.now + span, 0
        while self.clock.now < until:
            looks += self.step(until)
            assert looks <= most, "looked without end"
        return looks

    # -- what is seen ----------------------------------------------------------------------------------------------

    def acted(self, replica: Replica, operation: str) -> None:
        """A replica sends a request that changes something."""

    def asked(self, replica: Replica) -> None:
        """A replica asks the CA for a certificate."""

    def issued(self, replica: Replica, certificate: x509.Certificate) -> None:
        """A replica has the CA's answer."""

    def written(self, replica: Replica, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        """A replica has written the Secret."""

    def ended(self, due: datetime | None) -> None:
        """A look came to its end, and said when to look again."""

    def looked(self, replica: Replica, began: datetime) -> None:
        """A look is over, one way or the other."""


def encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    """As Secrets hold it."""
    return {key: base64.b64encode(value).decode() for key, value in data.items()}
