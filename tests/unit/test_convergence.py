"""Guards: whatever goes wrong, once it ends the Secret holds what is wanted; and nothing is asked of the CA in vain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import certrenewal.stepca.authority
from certrenewal.domain import annotation
from certrenewal.domain.certificate import dump_certificates, dump_key, load_key
from certrenewal.domain.spec import Percent, parse_spec
from certrenewal.domain.status import condition_of, moment_of
from certrenewal.domain.timing import LONGEST_RETRY, plan_renewal
from certrenewal.kube.errors import Conflict, Rejected, Unavailable
from certrenewal.kube.store import Secret
from certrenewal.stepca.errors import BadAnswer, Refused, Unreachable
from tests.unit.builders import DAY, NOON, a_root, a_workload, an_intermediate, key_of
from tests.unit.simulation import SECRET, Replica, Shown, Trouble, Wish, World

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
YEAR = 365 * DAY
LONGEST_WAIT = HOUR + 2 * LONGEST_RETRY  # a CA may ask for an hour, and a clear no is believed as long
MOST_LOOKS = 12  # to the goal, once nothing goes wrong any more


@pytest.fixture(scope="module", autouse=True)
def _shown_certificates() -> Iterator[None]:
    """A TLS context does not tell which certificate it shows: one that does takes its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certrenewal.stepca.authority, "client_context", Shown)
        yield


# -- the laws ------------------------------------------------------------------------------------------------------


def is_matched(data: Mapping[str, bytes]) -> bool:
    """Whether the key is the certificate's, which leads to the root that lies beside it."""
    return _is_matched(*(data.get(key, b"") for key in ("tls.crt", "tls.key", "ca.crt")))


@functools.lru_cache(1000)
def _is_matched(crt: bytes, key: bytes, roots: bytes) -> bool:
    try:
        chain, private = x509.load_pem_x509_certificates(crt), load_key(key)
        for subject, issuer in zip(chain, [*chain[1:], *x509.load_pem_x509_certificates(roots)], strict=True):
            subject.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return chain[0].public_key() == private.public_key()


class Lawful(World):
    """A world that stops where a law is broken."""

    def problem(self) -> str | None:
        """What is wrong with the Secret, None where it holds what the user wants."""
        data, now = self.data(), self.clock.now
        if not is_matched({**data, "ca.crt": a_root().pem}):
            return "no pair of this CA"
        leaf = self.leaf()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if {str(name.value) for name in names} != set(self.wish.names):
            return "other names"
        if self.wish.duration and abs(_life(leaf) - self.wish.duration) > MINUTE + 2 * SECOND:
            return "another duration"
        return None if now < leaf.not_valid_after_utc else "expired"

    def leaf(self) -> x509.Certificate:
        """The certificate in the Secret."""
        return x509.load_pem_x509_certificates(self.data()["tls.crt"])[0]

    def is_settled(self) -> bool:
        """Whether the user has what was promised, and can read it."""
        status = self.status()
        return (
            self.problem() is None
            and self.data().get("ca.crt") == a_root().pem
            and condition_of(status, "Ready").get("status") == "True"
            and "failure" not in status
            and status["certificate"]["serial"] == str(self.leaf().serial_number)
        )

    def settle(self) -> None:
        """Go on until it is settled, which takes a few looks and no longer than an hour."""
        until, looks = self.clock.now + LONGEST_WAIT, 0
        while not self.is_settled():
            assert self.clock.now < until, f"not settled in time: {self.problem()}, {self.status()}"
            looks += self.step(until)
            assert looks <= MOST_LOOKS, f"not settled after {looks} looks: {self.problem()}, {self.status()}"

    def planned(self, leaf: x509.Certificate) -> datetime:
        """When ``leaf`` is due: what status shows, else what the contract says."""
        status, renewal = self.status(), self.objects.get("certrenewals", self.wish.key.name) or {}
        known = (status.get("certificate") or {}).get("serial") == str(leaf.serial_number)
        shown = moment_of(status.get("renewalTime"))
        if known and shown and status["observedGeneration"] == renewal["metadata"]["generation"]:
            return shown
        return plan_renewal(
            leaf.not_valid_before_utc,
            leaf.not_valid_after_utc,
            renew_before=parse_spec(SECRET.name, self.wish.spec()).renew_before,
            uid=self.wish.uid,
            serial=str(leaf.serial_number),
        ).due

    def requested(self, replica: Replica) -> bool:
        """Whether renew-now has a value that was not honoured, as far as this replica's watches have come."""
        seen, secret = replica.cache.renewals[self.wish.key], replica.cache.secrets.get(SECRET)
        asked = (secret.annotations.get(annotation.RENEW_NOW, "") if secret else "") + seen.renew_now
        return asked not in ("", seen.status.get("renewNow"))

    def is_informed(self, replica: Replica) -> bool:
        """Whether the watches of a replica have shown it the user's latest wish."""
        secret, renewal = replica.cache.secrets.get(SECRET), replica.cache.renewals.get(self.wish.key)
        if self.wish.annotated:
            return secret is not None and self.wish.annotations().items() <= secret.annotations.items()
        return renewal is not None and renewal.spec == self.wish.spec()

    def acted(self, replica: Replica, operation: str) -> None:
        assert replica is self.leader, f"{operation} by one that does not lead"

    def asked(self, replica: Replica) -> None:
        if not self.is_informed(replica):
            return
        reason = self.problem() or ("renew-now" if self.requested(replica) else None)
        assert reason or self.clock.now >= self.planned(self.leaf()), "asked before the planned time"
        usable = [one for one in replica.unwritten if self._is_wanted(one) and not self._is_outdone(one)]
        assert not usable, "asked again while a certificate waits to be written"

    def _is_outdone(self, certificate: x509.Certificate) -> bool:
        """Whether the Secret holds one that the other replica got later."""
        return is_matched(self.data()) and self.leaf().serial_number > certificate.serial_number

    def _is_wanted(self, certificate: x509.Certificate) -> bool:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        wish, life = self.wish, _life(certificate)
        return (
            {str(name.value) for name in names} == set(wish.names)
            and abs(life - (wish.duration or life)) <= MINUTE + 2 * SECOND
            and self.clock.now < certificate.not_valid_before_utc + life * 0.6
            and wish.renew_before is None
        )

    def issued(self, replica: Replica, certificate: x509.Certificate) -> None:
        if not self.jumped:  # else it begins in what its asker takes for the future, and is not used
            replica.unwritten.append(certificate)

    def written(self, replica: Replica, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        ours = {"tls.crt", "tls.key", "ca.crt"}
        assert is_matched(after), "wrote a pair that does not match"
        assert {k: v for k, v in before.items() if k not in ours} == {k: v for k, v in after.items() if k not in ours}
        if is_matched(before) and self.is_informed(replica):
            replaced = x509.load_pem_x509_certificates(before["tls.crt"])[0]
            is_older = self.leaf().serial_number < replaced.serial_number
            assert not (is_older and self._is_wanted(replaced)), "put back an older certificate"
        self.unsure |= not replica.unwritten  # a repair: what else is wanted shows in the next look
        replica.unwritten = [c for c in replica.unwritten if c.serial_number != self.leaf().serial_number]

    def ended(self, due: datetime | None) -> None:
        """A look said when to look again."""
        now, view = self.clock.now, self.leader.contact.view("default")
        if self.is_settled() and not self.unsure and now < self.planned(self.leaf()):
            self.leader.unwritten.clear()  # it found what is wanted
        if view is None:
            return  # the first contact with the CA is news
        if due is None:
            assert not view.ready, "waits for news while time alone would do"
            assert self.problem() is not None, "does not wait for the end of a good certificate"
            return
        if self.unsure and due == now:
            return  # somebody wrote in between, or the Secret was mended: once more, at once
        is_late = due == moment_of(self.status().get("renewalTime"))  # a repair came first
        assert due > now or is_late or self.jumped, "wants to look again at once"
        if self.problem() is None:
            assert due <= self.leaf().not_valid_after_utc, "waits beyond the end of a good certificate"

    def looked(self, replica: Replica, began: datetime) -> None:
        assert replica.contact.places == 0, "keeps a place at the authority"


def _life(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


# -- without a fault -----------------------------------------------------------------------------------------------

STARTS = st.integers(0, 10**12).map(lambda microseconds: NOON + timedelta(microseconds=microseconds))
LIVES = st.one_of(st.integers(60, 600), st.integers(600, 86400), st.integers(86400, 10 * 365 * 86400)).map(
    lambda seconds: timedelta(seconds=seconds)
)
UIDS = st.integers(0, 10**6).map(str)


class Renewals(Lawful):
    """Notes at which share of its life each certificate was replaced."""

    def __init__(self, wish: Wish, start: datetime, *, holds: bool) -> None:
        self.shares: list[float] = []
        self.left: list[timedelta] = []
        super().__init__(wish, start, holds=holds)

    def asked(self, replica: Replica) -> None:
        super().asked(replica)
        if self.problem() is None:
            leaf, now = self.leaf(), self.clock.now
            self.shares.append((now - leaf.not_valid_before_utc) / _life(leaf))
            self.left.append(leaf.not_valid_after_utc - now)

    def looked(self, replica: Replica, began: datetime) -> None:
        super().looked(replica, began)
        assert self.is_settled() or replica.contact.view("default") is None


@st.composite
def quiet_wishes(draw: st.DrawFn) -> Wish:
    life = draw(LIVES)
    asks = draw(st.booleans())
    return Wish(
        annotated=draw(st.booleans()),
        duration=life if asks else None,
        usual=DAY if asks else life,
        backdate=draw(st.sampled_from([timedelta(0), MINUTE])),
        rotation=draw(st.sampled_from(["Never", "Always"])),
        uid=draw(UIDS),
    )


@settings(max_examples=40, derandomize=True)
@given(quiet_wishes(), STARTS, st.booleans(), st.booleans())
def test_without_a_fault_every_certificate_is_renewed_before_two_thirds_of_its_life(
    wish: Wish, start: datetime, holds: bool, can_sign: bool
) -> None:
    with Renewals(replace(wish, can_sign=can_sign or not holds), start, holds=holds) as world:
        looks = world.run(wish.lifetime * 4)

        assert len(world.shares) >= 4
        assert all(0.6 < share <= 2 / 3 for share in world.shares)
        assert looks <= 3 + 2 * len(world.shares)


RENEW_BEFORE = st.integers(1, 99).map(lambda share: f"{share}%") | st.integers(1, 98).map(lambda share: share / 100)


@settings(max_examples=20, derandomize=True)
@given(quiet_wishes(), STARTS, RENEW_BEFORE)
def test_without_a_fault_renew_before_is_kept_and_no_certificate_ends_unused(
    wish: Wish, start: datetime, before: str | float
) -> None:
    text = before if isinstance(before, str) else f"{max(int(before * wish.lifetime.total_seconds()) - 60, 1)}s"
    with Renewals(replace(wish, renew_before=text), start, holds=False) as world:
        world.run(wish.lifetime * 3)

        wanted = parse_spec("web", wish.spec() | {"renewBefore": text}).renew_before
        assert wanted is not None
        span = wish.lifetime * (wanted.value / 100) if isinstance(wanted, Percent) else wanted
        used = wish.lifetime / 10  # what comes of a certificate's life before its renewal, at least
        assert world.left
        assert all(min(span, wish.lifetime - wish.backdate - used) - SECOND <= left for left in world.left)


# -- with faults ---------------------------------------------------------------------------------------------------


def _raise(error: Callable[[], Exception]) -> Callable[[World], None]:
    def act(_: World) -> None:
        raise error()

    return act


def _contradict(world: World) -> None:
    world.unsure = True
    raise Conflict("409")


def _touch(world: World) -> None:
    world.edit({"touched.txt": str(world.clock.now).encode()})


def _forge(what: str) -> Callable[[World], None]:
    return lambda world: setattr(world.ca, "forgery", what)


def _cut_off(share: float) -> Callable[[World], None]:
    def act(world: World) -> None:
        world.ca.back = world.clock.now + world.wish.lifetime * share

    return act


ANYWHERE: dict[str, Callable[[World], object]] = {
    "kill": World.kill,
    "hand over": World.hand_over,
    "suspend for long": lambda world: world.suspend(world.wish.lifetime / 2),
    "suspend": lambda world: world.suspend(MINUTE),
}
BY_THE_SERVER = ANYWHERE | {
    "unavailable": _raise(lambda: Unavailable("503")),
    "conflict": _contradict,
    "rejected": _raise(lambda: Rejected("422")),
    "somebody writes": _touch,
}
BY_THE_CA = ANYWHERE | {
    "no answer": _raise(lambda: Unreachable("cut")),
    "down for a while": _cut_off(0.01),
    "down for long": _cut_off(0.9),
    "later": _raise(lambda: Unreachable("503", status=503)),
    "in an hour": _raise(lambda: Unreachable("503", status=503, retry_after=HOUR)),
    "refused": _raise(lambda: Refused(401, "no")),
    "another word": _raise(lambda: BadAnswer("HTML")),
    **{forgery: _forge(forgery) for forgery in ("another key", "other names", "ended", "another CA")},
}
OPERATIONS = (
    "PATCH secrets",
    "PATCH secrets",
    "PATCH certrenewals/status",
    "PATCH certrenewals/status",
    "POST secrets",
    "GET secrets",
    "PATCH certrenewals",
    "POST events",
)
EDITS: dict[str, Callable[[Lawful], Mapping[str, bytes | None]]] = {
    "a garbled certificate": lambda _: {"tls.crt": b"garbled"},
    "a garbled key": lambda _: {"tls.key": b"garbled"},
    "another key": lambda _: {"tls.key": dump_key(key_of(which=7))},
    "no roots": lambda _: {"ca.crt": None},
    "other roots": lambda _: {"ca.crt": a_root("Other").pem},
    "no certificate": lambda _: {"tls.crt": None},
    "nothing": lambda _: {"tls.crt": None, "tls.key": None, "ca.crt": None},
    "a leaf without its chain": lambda world: (
        {"tls.crt": dump_certificates([world.leaf()])} if world.problem() is None else {}
    ),
    "another CA's": lambda world: {
        "tls.crt": an_intermediate("Other").bundle(an_intermediate("Other").leaf(world.wish.names))
    },
    "a new pair": lambda world: world.pair(),
    "a new pair with other names": lambda world: world.pair(("db.shop.svc",)) if world.wish.told else {},
    "something else": lambda _: {"password.txt": b"changed"},
}
SHARES = st.sampled_from([0.0, 0.0001, 0.01, 0.2, 0.4, 0.62, 0.7, 1.1])


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    asks = draw(st.booleans())
    life = draw(st.sampled_from([MINUTE, 5 * MINUTE, DAY, 90 * DAY, 10 * YEAR]))
    return Wish(
        annotated=draw(st.booleans()),
        duration=life if asks else None,
        usual=DAY if asks else life,
        renew_before=draw(st.sampled_from([None, None, "40%", "10s", "90%"])),
        backdate=draw(st.sampled_from([timedelta(0), MINUTE])),
        rotation=draw(st.sampled_from(["Never", "Never", "Always"])),
        uid=draw(UIDS),
    )


@pytest.fixture
def world() -> Iterator[Lawful]:
    """A certificate of a day, half of which has passed."""
    with Lawful(Wish(annotated=False, backdate=timedelta(0)), NOON) as one:
        one.settle()
        one.run(DAY / 2)
        yield one


def test_a_status_whose_answer_got_lost_leaves_no_failure_behind(world: Lawful) -> None:
    """The watch shows it after the next look, which ends well and knows of no failure to take away."""
    world.lag = 5 * SECOND
    world.troubles["/renew"].append(Trouble(act=BY_THE_CA["later"]))
    world.troubles["PATCH certrenewals/status"].append(Trouble(act=BY_THE_SERVER["unavailable"], late=True))

    world.run(DAY / 4)

    assert world.leaf().serial_number == 2
    assert world.is_settled()


# The schema's no to what annotations say: the user has to change them, which is news.
FINAL = ("PATCH certrenewals", "rejected")
ONE_FAULT = [
    *(
        (operation, what, late)
        for operation in sorted({*OPERATIONS})
        for what in BY_THE_SERVER
        for late in (False, True)
    ),
    *((operation, what, False) for operation in ("/sign", "/renew") for what in BY_THE_CA),
    *((operation, what, True) for operation in ("/sign", "/renew") for what in (*ANYWHERE, "no answer")),
]


@pytest.mark.parametrize("calm", [False, True], ids=["at the first certificate", "at a renewal"])
@pytest.mark.parametrize("annotated", [False, True], ids=["by hand", "annotated"])
def test_any_one_fault_is_healed(calm: bool, annotated: bool) -> None:
    for number, (operation, what, late) in enumerate(ONE_FAULT):
        if (number + annotated) % 2 or (operation, what) == FINAL:
            continue
        with Lawful(Wish(annotated=annotated), NOON) as world:
            if calm:
                world.settle()
            world.troubles[operation].append(Trouble(act=(BY_THE_SERVER | BY_THE_CA)[what], late=late))
            world.run(DAY * 0.7)
            world.mend()
            world.settle()


@pytest.mark.parametrize("what", ["conflict", "somebody writes", "rejected", "unavailable"])
def test_a_certificate_that_could_not_be_written_is_kept_for_the_next_attempt(world: Lawful, what: str) -> None:
    world.troubles["PATCH secrets"].extend([Trouble(act=BY_THE_SERVER[what])] * 3)

    world.run(DAY / 4)

    assert world.is_settled()
    assert world.leaf().serial_number == 2


def test_a_renewal_is_told_of_even_where_its_first_status_was_not_written(world: Lawful) -> None:
    world.troubles["PATCH certrenewals/status"].append(Trouble(act=BY_THE_SERVER["unavailable"]))

    world.run(DAY / 4)

    assert [entry["serial"] for entry in world.status()["history"]] == ["2", "1"]


def test_a_pair_that_comes_while_a_chain_is_mended_is_not_mixed_with_the_other(world: Lawful) -> None:
    world.edit(EDITS["a leaf without its chain"](world))
    world.troubles["PATCH secrets"].append(Trouble(act=lambda world: world.edit(world.pair())))

    world.run(MINUTE)

    assert world.is_settled()


def test_a_route_that_is_refused_gives_way_to_the_next_at_once(world: Lawful) -> None:
    world.troubles["/renew"].extend([Trouble(act=BY_THE_CA["refused"])] * 2)

    world.run(DAY / 4)

    assert world.status()["lastRenewal"]["route"] == "Sign"
    assert "AuthorityRefused" not in [reason for reason, _ in world.events]


def test_a_clear_no_is_believed_for_an_hour() -> None:
    with Lawful(Wish(annotated=False), NOON) as world:
        world.troubles["/sign"].extend([Trouble(act=BY_THE_CA["refused"])] * 100)
        world.run(10 * MINUTE)
        assert len(world.troubles["/sign"]) >= 98
        world.mend()
        world.settle()


def test_who_leads_again_puts_no_older_certificate_back(world: Lawful) -> None:
    world.troubles["PATCH secrets"].append(Trouble(act=World.hand_over, late=True))
    world.run(DAY / 4)
    for expected in (3, 4):
        world.annotate({annotation.RENEW_NOW: str(expected)})
        world.run(HOUR)
        assert world.leaf().serial_number == expected
        world.hand_over()


@pytest.mark.parametrize("what", EDITS)
def test_any_edit_is_healed_at_once_and_without_the_ca_where_that_is_possible(world: Lawful, what: str) -> None:
    world.annotate({annotation.RENEW_NOW: "1"})
    world.run(MINUTE)
    before = world.leaf().serial_number
    world.edit(EDITS[what](world))
    is_held = world.problem() is None and what != "a new pair"

    world.run(MINUTE)

    assert world.is_settled()
    assert (world.leaf().serial_number == before) is (is_held or what == "a leaf without its chain")


@pytest.mark.parametrize("change", [{"names": ("web.shop.svc", "api.shop.svc")}, {"duration": HOUR}], ids=str)
def test_another_wish_is_met_at_once(world: Lawful, change: dict[str, Any]) -> None:
    world.want(**change)

    world.run(MINUTE)

    assert world.is_settled()


@pytest.mark.parametrize("late", [False, True])
def test_a_renewal_that_is_asked_for_is_had_once_although_its_status_was_not_written(world: Lawful, late: bool) -> None:
    world.lag = SECOND
    world.annotate({annotation.RENEW_NOW: "1"})
    failing = Trouble(act=BY_THE_SERVER["unavailable"], late=late)
    world.troubles["PATCH certrenewals/status"].extend([failing] * 3)

    world.run(MINUTE)

    assert world.is_settled()
    assert world.leaf().serial_number == 2
    assert world.status()["renewNow"] == "1"


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.want(names=("web.shop.svc", "api.shop.svc")),
        lambda world: world.want(duration=HOUR),
        lambda world: world.annotate({annotation.RENEW_NOW: "2"}),
    ],
    ids=["names", "duration", "renew-now"],
)
def test_a_wish_that_the_answer_to_a_status_shows_before_the_watch_does_is_met(
    world: Lawful, change: Callable[[World], object]
) -> None:
    world.lag = SECOND
    world.annotate({annotation.RENEW_NOW: "1"})
    world.troubles["PATCH certrenewals/status"].append(Trouble(act=change))

    world.run(MINUTE)

    assert world.is_settled()
    assert world.leaf().serial_number == 3


def test_a_former_leader_mends_nothing(world: Lawful) -> None:
    world.edit(EDITS["no roots"](world))
    world.troubles["GET secrets"].append(Trouble(act=World.hand_over, late=True))

    world.run(MINUTE)

    assert world.is_settled()


@pytest.mark.parametrize("what", ["another key", "other names", "ended", "another CA"])
def test_an_answer_that_must_not_be_believed_is_told_and_never_written(world: Lawful, what: str) -> None:
    world.troubles["/renew"].append(Trouble(act=BY_THE_CA[what]))
    messages = len(world.events)

    world.run(DAY / 4)

    assert world.is_settled()
    assert world.leaf().serial_number == 3
    assert "BadCertificate" in [reason for reason, _ in world.events[messages:]]


@pytest.mark.parametrize("change", [{"names": ("web.shop.svc", "api.shop.svc")}, {"duration": HOUR}], ids=str)
def test_what_is_wanted_while_a_chain_is_broken_is_not_forgotten(world: Lawful, change: dict[str, Any]) -> None:
    world.edit(EDITS["a leaf without its chain"](world))
    world.want(**change)

    world.settle()


def test_a_renewal_that_is_wanted_while_a_chain_is_broken_is_not_forgotten(world: Lawful) -> None:
    world.edit(EDITS["a leaf without its chain"](world))
    world.annotate({annotation.RENEW_NOW: "1"})

    world.run(MINUTE)

    assert world.leaf().serial_number == 2


def test_a_certificate_that_ends_while_the_ca_asks_for_patience_is_told_of(world: Lawful) -> None:
    world.troubles["/renew"].extend([Trouble(act=BY_THE_CA["in an hour"])] * 100)

    world.run(DAY / 2 + 2 * SECOND)

    assert world.problem() == "expired"
    assert condition_of(world.status(), "Ready")["status"] == "False"


class Faults(RuleBasedStateMachine):
    """Anything goes wrong, in any order, and ends; time passes between."""

    world: Lawful

    @initialize(wish=wishes(), start=STARTS, holds=st.booleans(), calm=st.booleans(), told=st.booleans())
    def begin(self, wish: Wish, start: datetime, holds: bool, calm: bool, told: bool) -> None:
        leave_names = holds and calm and not told
        self.world = Lawful(replace(wish, told=not leave_names), start, holds=holds)
        if calm:
            self.it_ends()

    @rule(
        operation=st.sampled_from(OPERATIONS),
        what=st.sampled_from(sorted(BY_THE_SERVER)),
        times=st.sampled_from([1, 1, 3]),
        late=st.booleans(),
        share=SHARES,
    )
    def the_server(self, operation: str, what: str, times: int, late: bool, share: float) -> None:
        assume((operation, what) != FINAL)
        trouble = Trouble(act=BY_THE_SERVER[what], late=late)
        self.world.troubles[operation].extend([trouble] * times)
        self.world.run(self.world.wish.lifetime * share)

    @rule(
        operation=st.sampled_from(["/sign", "/renew", "/rekey"]),
        what=st.sampled_from(sorted(BY_THE_CA)),
        times=st.sampled_from([1, 1, 3]),
        late=st.booleans(),
        share=SHARES,
    )
    def the_ca(self, operation: str, what: str, times: int, late: bool, share: float) -> None:
        trouble = Trouble(act=BY_THE_CA[what], late=late)
        self.world.troubles[operation].extend([trouble] * times)
        self.world.run(self.world.wish.lifetime * share)

    @rule(what=st.sampled_from(sorted(EDITS)))
    def somebody_writes(self, what: str) -> None:
        self.world.edit(EDITS[what](self.world))

    @precondition(lambda self: not self.world.wish.annotated and self.world.wish.told)
    @rule()
    def somebody_deletes_the_secret(self) -> None:
        if self.world.data():
            self.world.objects.delete("secrets", SECRET.name)

    @precondition(lambda self: self.world.wish.told)
    @rule(names=st.sampled_from([("web.shop.svc",), ("web.shop.svc", "api.shop.svc")]))
    def other_names_are_wanted(self, names: tuple[str, ...]) -> None:
        self.world.want(names=names)

    @precondition(lambda self: self.world.wish.duration is not None)
    @rule(factor=st.sampled_from([4, 5]))
    def another_duration_is_wanted(self, factor: int) -> None:
        assert self.world.wish.duration is not None
        self.world.want(duration=self.world.wish.duration * factor if self.world.wish.duration < 10 * YEAR else DAY)

    @rule()
    def a_renewal_is_wanted_now(self) -> None:
        self.world.annotate({annotation.RENEW_NOW: self.world.clock.now.isoformat()})

    @rule(share=SHARES)
    def time_passes(self, share: float) -> None:
        self.world.run(self.world.wish.lifetime * share)

    @rule(share=SHARES)
    def the_host_sleeps(self, share: float) -> None:
        self.world.suspend(self.world.wish.lifetime * share)

    @rule(lag=st.sampled_from([timedelta(0), timedelta(milliseconds=7), 5 * SECOND, 3 * MINUTE]))
    def the_watches_lag(self, lag: timedelta) -> None:
        self.world.lag = lag

    @rule()
    def the_process_ends(self) -> None:
        self.world.restart()

    @rule()
    def the_other_replica_leads(self) -> None:
        self.world.hand_over()

    @rule()
    def it_ends(self) -> None:
        """Nothing goes wrong any more: in a few looks all is well."""
        self.world.mend()
        self.world.settle()

    def teardown(self) -> None:
        """And it stays well for a life."""
        if not hasattr(self, "world"):
            return
        try:
            self.it_ends()
            before = self.world.leaf().serial_number
            self.world.run(self.world.wish.lifetime)
            assert self.world.is_settled()
            assert self.world.leaf().serial_number > before
        finally:
            self.world.close()


Faults.TestCase.settings = settings(max_examples=100, stateful_step_count=12, derandomize=True)
TestConvergence = Faults.TestCase


def test_an_annotation_that_the_watch_has_not_shown_is_not_hidden_by_a_write_of_ours() -> None:
    with World(Wish(annotated=True), NOON) as world:
        world.run(MINUTE)
        known = world.leader.cache.secrets[SECRET]
        read = Secret(
            namespace=SECRET.namespace,
            name=SECRET.name,
            uid=known.uid,
            resource_version=f"{known.version}1",
            immutable=False,
            annotations={**known.annotations, annotation.RENEW_NOW: "new"},
            data={},
        )

        world.leader.reconciler._saw_own_write(read, f"{known.version}2")

        assert world.leader.cache.secrets[SECRET] == known


# -- restarts that are owed ----------------------------------------------------------------------------------------


def deny(world: World) -> None:
    world.want(names=("www.example.com",))


def refuse(world: World) -> None:
    world.ca.back = world.clock.now + DAY
    world.annotate({annotation.RENEW_NOW: "2"})


@pytest.mark.parametrize("trouble", [deny, refuse], ids=["a name that is denied", "a CA that is away"])
def test_who_is_owed_a_restart_is_so_for_the_next_leader_whatever_keeps_it_from_renewing(
    trouble: Callable[[World], None],
) -> None:
    with World(Wish(annotated=True), NOON) as world:
        world.run(MINUTE)
        for replica in world.replicas:
            replica.cache.see_workload(a_workload())
        world.annotate({annotation.RENEW_NOW: "1"})
        world.run(MINUTE)
        (entry,) = world.status()["workloads"]
        trouble(world)
        world.run(MINUTE)
        world.hand_over()
        world.leader.restarts.owed.clear()
        world.run(MINUTE)

        assert entry["state"] == "Pending"
        assert world.leader.restarts.owed
        assert world.status()["failure"]
