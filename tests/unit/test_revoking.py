"""Guards: a CertRenewal goes only when its certificates are revoked, or after a while; what others keep is left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.controller.obtaining import Authorities
from certrenewal.controller.reporter import Reporter
from certrenewal.controller.revoking import FINALIZER, LONGEST_HOLD, RETRY, Revoker
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import parse_chain
from certrenewal.domain.reasons import Reason
from certrenewal.domain.retired import Retired, with_retired
from certrenewal.domain.status import Condition, Status, with_certificate, with_condition
from certrenewal.kube.errors import Conflict
from certrenewal.kube.store import Secret, Store, Subject
from certrenewal.stepca.authority import Authority
from certrenewal.stepca.errors import Refused, Unreachable
from tests.unit.builders import DAY, NOON, a_leaf, an_authority, an_intermediate, good_certificate

KEY = Key("shop", "web")
GRACE = timedelta(minutes=5)
CHAIN = an_intermediate().bundle(good_certificate())
HELD = parse_chain(CHAIN).leaf.serial


class World:
    """One CertRenewal, its Secret and its CA."""

    def __init__(self, **facts: Any) -> None:
        self.now = NOON
        self.view_: AuthorityView | None = an_authority()
        self.failure: Exception | None = None
        self.secret: bytes | None = None
        self.revoked: list[str] = []
        self.asked: list[str] = []
        self.gone: set[str] = set()
        self.conflicts = False
        self.events: list[tuple[Reason, bool]] = []
        self.cache = Cache()
        self.put(**facts)
        self.revoker = Revoker(
            cache=self.cache,
            store=cast("Store", self),
            authorities=cast("Authorities", self),
            reporter=cast("Reporter", self),
            publish=self,
            require=lambda: None,
            clock=lambda: self.now,
            grace=GRACE,
        )

    def put(self, key: Key = KEY, **facts: Any) -> None:
        given: dict[str, Any] = {
            "key": key, "uid": key.name, "version": 1, "generation": 1, "created": "", "owner_uid": None,
            "spec": {"revoke": ["OnDelete"]}, "status": {}, "renew_now": "", "finalizers": (FINALIZER,),
        }  # fmt: skip
        self.cache.put_renewal(Renewal(**{**given, **facts}))

    @property
    def renewal(self) -> Renewal:
        return self.cache.renewals[KEY]

    # -- what the Revoker asks -------------------------------------------------------------------------------------

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        if self.secret is None:
            return None
        return Secret(
            namespace=namespace, name=name, uid="s", resource_version="1", immutable=False, annotations={},
            data={"tls.crt": self.secret},
        )  # fmt: skip

    async def set_finalizers(
        self, namespace: str, name: str, uid: str, version: int, finalizers: list[str]
    ) -> dict[str, Any]:
        if self.conflicts:
            raise Conflict("409")
        known = replace(self.renewal, finalizers=tuple(finalizers))
        self.cache.put_renewal(known)
        return {
            "metadata": {
                "namespace": namespace, "name": name, "uid": uid, "resourceVersion": version + 1,
                "creationTimestamp": "", "finalizers": finalizers,
                **({"deletionTimestamp": known.deleting.isoformat()} if known.deleting else {}),
            },
            "spec": known.spec,
            "status": known.status,
        }  # fmt: skip

    async def publish(self, renewal: Renewal, status: Status) -> Renewal:
        changed = replace(renewal, status=status)
        self.cache.put_renewal(changed)
        return changed

    async def tell(self, subject: Subject, reason: Reason, message: str, *, warning: bool = False) -> None:
        self.events.append((reason, warning))

    def view(self, name: str) -> AuthorityView | None:
        if name in self.gone:
            return an_authority(ready=False, reason=Reason.AUTHORITY_NOT_FOUND.value)
        return self.view_

    def use(self, name: str) -> Authority:
        self.asked.append(name)
        return cast("Authority", self)

    def report(self, name: str, failure: Unreachable) -> None:
        """Nothing follows from it here."""

    async def revoke(self, serial: str, *, reason: str, now: datetime) -> None:
        if self.failure is not None:
            raise self.failure
        self.revoked.append(serial)


def certified(serial: str = "1", *, rolled_out: bool = True) -> Status:
    status = with_certificate({}, a_leaf(serial=serial, not_after=NOON + DAY), due=NOON, duration=None)
    condition = Condition(type="RolledOut", status=str(rolled_out), reason=Reason.ROLLED_OUT, message="")
    return with_condition(status, condition, generation=1, now=NOON)


def waiting(serial: str = "1") -> Retired:
    return Retired(serial=serial, not_after=NOON + DAY, since=NOON)


async def test_what_is_retired_and_what_is_in_use_is_revoked_before_it_goes() -> None:
    world = World(status=with_retired(certified("2"), [waiting("1")]), deleting=NOON)

    assert await world.revoker.release(world.renewal) is None
    assert world.revoked == ["1", "2"]
    assert world.renewal.finalizers == ()


async def test_a_certificate_of_which_status_does_not_tell_is_revoked_too() -> None:
    world = World(status=certified("2"), deleting=NOON)
    world.secret = CHAIN

    await world.revoker.release(world.renewal)

    assert world.revoked == ["2", HELD]


@pytest.mark.parametrize(
    ("data", "roots"), [(b"garbage", None), (CHAIN, ()), (None, None)], ids=["garbage", "another CA's", "no Secret"]
)
async def test_what_is_not_of_this_authority_is_none_of_its_business(data: bytes | None, roots: Any) -> None:
    world = World(deleting=NOON)
    world.secret = data
    world.view_ = an_authority(**({} if roots is None else {"roots": roots}))

    assert await world.revoker.release(world.renewal) is None
    assert world.revoked == []


async def test_what_another_certrenewal_keeps_is_not_revoked() -> None:
    """The annotation gave way to a CertRenewal by hand, which took the certificate over."""
    status = with_retired(certified("2"), [waiting("1")])
    world = World(status=status, deleting=NOON)
    world.secret = CHAIN
    world.put(Key("shop", "by-hand"), spec={"secretName": "web"}, status=certified("2"))

    await world.revoker.release(world.renewal)

    assert world.revoked == ["1"]


async def test_it_waits_for_its_ca_and_is_let_go_with_a_warning() -> None:
    world = World(status=certified(), deleting=NOON)
    world.failure = Unreachable("it does not answer")

    assert await world.revoker.release(world.renewal) == NOON + RETRY
    held = world.renewal.finalizers
    world.now = NOON + LONGEST_HOLD - timedelta(seconds=10)
    last = await world.revoker.release(world.renewal)
    world.now = NOON + LONGEST_HOLD
    over = await world.revoker.release(world.renewal)

    assert held == (FINALIZER,)
    assert last == NOON + LONGEST_HOLD
    assert over is None
    assert world.renewal.finalizers == ()
    assert world.events == [(Reason.NOT_REVOKED, True)]


async def test_a_ca_that_was_not_asked_yet_is_waited_for() -> None:
    """After a restart: the Secret may hold a certificate of which nobody can tell yet whose it is."""
    world = World(deleting=NOON)
    world.secret, world.view_ = CHAIN, None

    assert await world.revoker.release(world.renewal) == NOON + LONGEST_HOLD
    world.view_ = an_authority()
    await world.revoker.release(world.renewal)

    assert world.revoked == [HELD]
    assert world.renewal.finalizers == ()


async def test_a_clear_no_lets_it_go_at_once_with_a_warning() -> None:
    world = World(status=certified(), deleting=NOON)
    world.failure = Refused(501, "it keeps no database")

    assert await world.revoker.release(world.renewal) is None
    assert world.renewal.finalizers == ()
    assert world.events == [(Reason.NOT_REVOKED, True)]


async def test_a_spec_that_cannot_be_read_forgets_nothing_that_was_asked_before() -> None:
    status = with_retired(certified("2"), [waiting()])
    world = World(spec={"revoke": ["OnDelete", "OnRenew"], "duration": "a day"}, status=status)

    await world.revoker.settle(KEY)
    before = world.renewal
    world.now = NOON + GRACE
    await world.revoker.settle(KEY)

    assert before.status == status
    assert before.finalizers == (FINALIZER,)
    assert world.revoked == ["1"]


@pytest.mark.parametrize("rolled_out", [True, False])
async def test_a_replaced_certificate_is_revoked_after_rollout_and_grace(rolled_out: bool) -> None:
    status = with_retired(certified("2", rolled_out=rolled_out), [waiting()])
    world = World(spec={"revoke": ["OnRenew"]}, status=status)

    due = await world.revoker.settle(KEY)
    world.now = NOON + GRACE - timedelta(seconds=1)
    await world.revoker.settle(KEY)
    early = list(world.revoked)
    world.now = NOON + GRACE
    await world.revoker.settle(KEY)

    assert due == (NOON + GRACE if rolled_out else None)
    assert early == []
    assert world.revoked == (["1"] if rolled_out else [])
    assert world.renewal.finalizers == ()


async def test_a_certificate_is_revoked_by_the_authority_that_issued_it() -> None:
    status = with_retired(certified("2"), [replace(waiting(), authority="old", at_once=True)])
    world = World(spec={"authority": "new", "revoke": ["OnRenew"]}, status=status)

    await world.revoker.settle(KEY)

    assert world.revoked == ["1"]
    assert world.asked == ["old"]


async def test_one_that_could_not_be_let_go_is_looked_at_again() -> None:
    world = World(deleting=NOON, status=certified("1"))
    world.conflicts = True

    due = await world.revoker.release(world.renewal)

    assert due == NOON + RETRY


async def test_an_authority_that_was_not_asked_yet_is_come_back_to() -> None:
    status = with_retired(certified("2"), [replace(waiting(), authority="old", at_once=True)])
    world = World(spec={"authority": "new", "revoke": ["OnRenew"]}, status=status)
    world.view_ = None

    assert await world.revoker.settle(KEY) == NOON + RETRY
    assert world.revoked == []


async def test_in_the_place_of_an_authority_that_is_gone_the_one_of_now_is_asked() -> None:
    status = with_retired(certified("2"), [replace(waiting(), authority="old", at_once=True)])
    world = World(spec={"authority": "new", "revoke": ["OnRenew"]}, status=status)
    world.gone.add("old")

    await world.revoker.settle(KEY)

    assert world.asked == ["new"]
