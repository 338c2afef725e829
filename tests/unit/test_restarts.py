"""Guards: who is restarted when: by urgency within a budget, once for several certificates, and never too late.

Certificates of a day must be out of every pod an hour before their end; see `LATEST`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal import metrics
from certrenewal.controller.cache import Key
from certrenewal.controller.restarts import AT_ONCE, LONGEST_WAIT, QUIET, REFUSED_RETRY, RETRY
from certrenewal.domain.reasons import Reason
from certrenewal.domain.status import condition_of, timestamp, with_failure
from certrenewal.kube.errors import Rejected, Unavailable
from tests.unit.builders import DAY, NOON
from tests.unit.fleet import NAMESPACE, Fleet, settled

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LATEST = DAY - HOUR
WEB = Key(NAMESPACE, "web-tls")


@asynccontextmanager
async def running(**limits: Any) -> AsyncIterator[Fleet]:
    """A fleet whose queue runs."""
    fleet = Fleet(**limits)
    task = asyncio.create_task(fleet.queue.run())
    yield fleet
    assert not task.done(), "the queue has ended"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """One without limits."""
    async with running() as made:
        yield made


def fill(fleet: Fleet, **lives: timedelta) -> None:
    """One workload for each certificate, and all of them renewed a while later."""
    for name, life in lives.items():
        fleet.certificate(name, life=life)
        fleet.deploy(name, name)
        fleet.look(Key(NAMESPACE, name))
    fleet.clock.now += MINUTE
    for name, life in lives.items():
        fleet.renew(name, life=life)


# -- one certificate, one restart ----------------------------------------------------------------------------------


async def test_who_runs_an_older_certificate_is_restarted_once(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("web")
    fleet.look(WEB)
    assert await fleet.pause() == []

    fleet.renew()

    assert await fleet.pause() == ["web"]
    assert fleet.marks == [{"certificate.certrenewal.dev/web-tls": fleet.mark("web-tls")}]
    assert fleet.states() == {"web": ("Restarting", "")}
    fleet.roll("web")
    assert await fleet.pause(HOUR) == []
    assert fleet.states() == {"web": ("Healthy", "")}
    assert [reason for _, reason, _ in fleet.told] == [Reason.RESTARTED]


async def test_a_queue_that_waits_takes_no_time(fleet: Fleet) -> None:
    fleet.certificate(restartWindow="0 2 * * * for 1h")
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.renew()
    await fleet.pause()
    before = fleet.passes

    for _ in range(20):
        await settled()

    assert fleet.passes == before


async def test_a_certificate_that_comes_while_a_restart_is_written_is_brought_in_too(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.gate = asyncio.Event()
    fleet.renew()
    await fleet.pause()
    fleet.renew()

    fleet.gate.set()

    assert await fleet.pause() == ["web", "web"]
    assert fleet.marks[-1] == {"certificate.certrenewal.dev/web-tls": fleet.mark("web-tls")}


async def test_a_workload_that_is_spared_while_its_restart_is_written_ends_nothing(fleet: Fleet) -> None:
    """The watch may be faster than the answer: the look that follows finds nothing owed any more."""
    fleet.certificate()
    web = fleet.deploy("web")
    fleet.look(WEB)
    fleet.gate = asyncio.Event()
    fleet.renew()
    await fleet.pause()

    fleet.queue.spare(NAMESPACE, web, "web-tls")
    fleet.gate.set()

    assert await fleet.pause() == ["web"]


async def test_who_is_spared_is_not_restarted() -> None:
    async with running(cooldown=HOUR) as fleet:
        fleet.certificate()
        web = fleet.deploy("web")
        fleet.look(WEB)
        fleet.renew()
        assert await fleet.pause() == ["web"]
        fleet.renew()
        assert await fleet.pause() == []

        fleet.annotate("web", restart="Never")

        assert await fleet.pause(2 * HOUR) == []
        assert fleet.queue.refusals(NAMESPACE) == {}
        fleet.queue.spare(NAMESPACE, web, "unknown")


async def test_who_is_gone_is_forgotten() -> None:
    async with running(cooldown=HOUR) as fleet:
        fleet.certificate()
        fleet.deploy("web")
        fleet.deploy("other")
        fleet.look(WEB)
        fleet.renew()
        assert await fleet.pause() == ["other", "web"]
        fleet.renew()
        await fleet.pause()

        fleet.remove("web")

        assert await fleet.pause(HOUR) == ["other"]
        assert metrics.RESTART_QUEUE._value.get() == 0
        assert {ref.name for _, ref in fleet.queue._last} == {"other"}


async def test_who_is_gone_without_our_notice_stops_nobody(fleet: Fleet) -> None:
    fleet.certificate()
    for name in ("a", "web", "z"):
        fleet.deploy(name)
    fleet.look(WEB)
    fleet._bodies.pop((NAMESPACE, fleet.deploy("web")))
    fleet.renew()

    assert await fleet.pause() == ["a", "z"]
    assert await fleet.pause(HOUR) == []


# -- budget and urgency --------------------------------------------------------------------------------------------


async def test_the_nearest_expiry_comes_first_and_no_more_than_the_budget_goes() -> None:
    async with running(per_minute=4) as fleet:
        fill(fleet, a=5 * DAY, b=3 * DAY, c=4 * DAY, d=2 * DAY)

        order = [await fleet.pause()] + [await fleet.pause(15 * SECOND) for _ in range(4)]

        assert order == [["d"], ["b"], ["c"], ["a"], []]


async def test_who_runs_without_a_certificate_comes_before_all() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, a=2 * DAY, b=3 * DAY)
        fleet.write(
            Key(NAMESPACE, "b"),
            {
                **fleet.status(Key(NAMESPACE, "b")),
                "workloads": [{"kind": "Deployment", "name": "b", "state": "Pending", "fingerprint": ""}],
            },
        )
        fleet.look(Key(NAMESPACE, "b"))

        assert await fleet.pause() == ["b"]


async def test_each_namespace_has_its_own_budget() -> None:
    async with running(per_minute_in_namespace=1) as fleet:
        for namespace in ("one", "two"):
            for name in ("a", "b"):
                fleet.certificate(name, namespace=namespace)
                fleet.deploy(f"{namespace}-{name}", name, namespace=namespace)
                fleet.look(Key(namespace, name))
        for namespace in ("one", "two"):
            for name in ("a", "b"):
                fleet.renew(name, namespace=namespace)

        assert sorted(await fleet.pause()) == ["one-a", "two-a"]
        assert sorted(await fleet.pause(MINUTE)) == ["one-b", "two-b"]


async def test_the_queue_is_told_in_metrics() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, a=2 * DAY, b=3 * DAY, c=4 * DAY)
        await fleet.pause()

        assert metrics.RESTART_QUEUE._value.get() == 2
        assert metrics.RESTART_DEADLINE._value.get() == (NOON + 3 * DAY).timestamp()

        await fleet.pause(MINUTE)
        await fleet.pause(MINUTE)
        assert metrics.RESTART_QUEUE._value.get() == 0
        assert metrics.RESTART_DEADLINE._value.get() == 0


async def test_what_waits_is_pending_in_status() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, a=2 * DAY, b=3 * DAY)
        await fleet.pause()

        assert fleet.states("b") == {"b": ("Pending", "")}
        assert condition_of(fleet.status(Key(NAMESPACE, "b")), "RolledOut")["reason"] == Reason.RESTART_PENDING


async def test_only_a_few_are_written_at_the_same_time(fleet: Fleet) -> None:
    fleet.certificate()
    for number in range(AT_ONCE + 3):
        fleet.deploy(f"w{number:02}")
    fleet.look(WEB)
    fleet.gate = asyncio.Event()
    fleet.renew()
    await fleet.pause()

    assert len(fleet.queue._under_way) == AT_ONCE
    fleet.gate.set()
    assert len(await fleet.pause()) == AT_ONCE + 3


@given(
    lives=st.lists(st.integers(2, 60), min_size=1, max_size=8, unique=True),
    per_minute=st.sampled_from([1, 2, 4, 8, 30]),
)
async def test_whatever_the_certificates_the_order_is_that_of_their_ends(lives: list[int], per_minute: int) -> None:
    async with running(per_minute=per_minute) as fleet:
        names = {f"w{number}": life * DAY for number, life in enumerate(lives)}
        fill(fleet, **names)

        order: list[str] = []
        while len(order) < len(names):
            order += await fleet.pause(MINUTE / per_minute)

        assert order == sorted(names, key=names.__getitem__)


# -- must by -------------------------------------------------------------------------------------------------------


async def test_no_budget_holds_a_restart_until_the_certificate_ends() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, **{f"w{number:02}": DAY for number in range(30)})
        assert await fleet.pause() == ["w00"]

        late = await fleet.pause(LATEST - MINUTE)

        assert sorted(late) == [f"w{number:02}" for number in range(1, 30)]
        assert fleet.clock.now < NOON + DAY


async def test_no_cooldown_holds_a_restart_until_the_certificate_ends() -> None:
    async with running(cooldown=10 * DAY) as fleet:
        fleet.certificate()
        fleet.deploy("web")
        fleet.look(WEB)
        fleet.renew()
        assert await fleet.pause() == ["web"]
        fleet.renew()

        assert await fleet.pause(LATEST - SECOND) == []
        assert await fleet.pause(SECOND) == ["web"]
        assert "restarts.cooldown" in fleet.warnings(Reason.RESTART_DELAYED)[0]


async def test_no_window_holds_a_restart_until_the_certificate_ends(fleet: Fleet) -> None:
    fleet.certificate(restartWindow="0 2 * * SAT for 1h")
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.clock.now += HOUR
    fleet.renew()

    assert await fleet.pause(LATEST - HOUR - SECOND) == []
    assert fleet.states() == {"web": ("Pending", "its window opens at 2026-03-07T02:00:00Z")}
    assert fleet.warnings(Reason.WINDOW_MISSED) == []
    assert await fleet.pause(SECOND) == ["web"]
    assert fleet.warnings(Reason.WINDOW_MISSED) == [
        "restarted outside its window, which opens at 2026-03-07T02:00:00Z: a certificate that it ran ends at "
        "2026-03-02T12:00:00Z"
    ]


async def test_a_missed_window_is_told_even_where_not_all_certificates_are_known(fleet: Fleet) -> None:
    for name in ("a-tls", "b-tls"):
        fleet.certificate(name, restartWindow="0 2 * * SAT for 1h")
    fleet.deploy("web", "a-tls", "b-tls")
    entry = {"kind": "Deployment", "name": "web", "state": "Pending", "fingerprint": ""}
    fleet.write(Key(NAMESPACE, "b-tls"), {**fleet.status(Key(NAMESPACE, "b-tls")), "workloads": [entry]})
    fleet.renew("a-tls")
    fleet.look(Key(NAMESPACE, "b-tls"))

    assert await fleet.pause(LATEST) == ["web"]
    assert len(fleet.warnings(Reason.WINDOW_MISSED)) == 1


async def test_no_wave_holds_a_restart_until_the_certificate_ends(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("a")
    fleet.deploy("b", wish={"restart-order": "1"})
    fleet.look(WEB)
    fleet.clock.now += MINUTE
    fleet.renew()
    assert await fleet.pause() == ["a"]

    assert await fleet.pause(LATEST - MINUTE - SECOND) == []
    assert fleet.states()["b"] == ("Pending", "after Deployment/a (wave 0)")
    assert await fleet.pause(SECOND) == ["b"]


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param({"restart-window": "0 2 * * SAT for 1h"}, id="window"),
        pytest.param({"restart-order": "1"}, id="wave"),
    ],
)
async def test_the_queue_wakes_up_when_it_must(fleet: Fleet, wish: dict[str, str]) -> None:
    fleet.certificate()
    fleet.deploy("a")
    web = fleet.deploy("web", wish=wish)
    fleet.look(WEB)
    fleet.clock.now += MINUTE
    fleet.renew()
    assert await fleet.pause() == ["a"]

    assert fleet.queue._turn((NAMESPACE, web), fleet.clock.now) == NOON + LATEST


async def test_a_failed_canary_holds_the_others_whatever_ends(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("a", wish={"restart-canary": "true"})
    fleet.deploy("b")
    fleet.look(WEB)
    fleet.renew()
    assert await fleet.pause() == ["a"]

    fleet.fail("a")

    assert await fleet.pause(2 * DAY) == []
    assert fleet.states() == {
        "a": ("Failed", "stuck"),
        "b": ("Pending", "held back, as Deployment/a (the canary) failed"),
    }
    fleet.roll("a")
    assert await fleet.pause() == ["b"]


# -- cool-down -----------------------------------------------------------------------------------------------------


async def test_renewing_each_second_restarts_no_more_often_than_the_cooldown_and_says_so() -> None:
    async with running(cooldown=30 * SECOND) as fleet:
        fleet.certificate()
        fleet.deploy("web")
        fleet.look(WEB)
        restarts = []
        for second in range(100):
            fleet.renew(by=Reason.RENEWAL_REQUESTED)
            restarts += [second for _ in await fleet.pause(SECOND)]

        assert restarts == [0, 30, 60, 90]
        (warning,) = fleet.warnings(Reason.RESTART_DELAYED)
        assert warning == (
            "certificates in web-tls change more often than restarts.cooldown (30s) lets this workload restart"
        )


async def test_one_renewal_in_a_while_is_no_reason_to_warn() -> None:
    async with running(cooldown=30 * SECOND) as fleet:
        fleet.certificate()
        fleet.deploy("web")
        fleet.look(WEB)
        for _ in range(3):
            fleet.renew()
            assert await fleet.pause() == ["web"]
            await fleet.pause(MINUTE)

        assert fleet.warnings(Reason.RESTART_DELAYED) == []


@pytest.mark.parametrize("renewed", ["a-tls", "b-tls"])
async def test_the_cooldown_outlives_a_kill(renewed: str) -> None:
    """Also where the restart before the kill was for another certificate of the workload."""
    async with running(cooldown=HOUR) as fleet:
        for name in ("a-tls", "b-tls"):
            fleet.certificate(name)
        fleet.deploy("web", "a-tls", "b-tls")
        for name in ("a-tls", "b-tls"):
            fleet.look(Key(NAMESPACE, name))
        fleet.renew("a-tls")
        assert await fleet.pause() == ["web"]
        fleet.queue._last.clear()  # all that a process knows beside the objects

        fleet.clock.now += MINUTE
        fleet.renew(renewed)

        assert await fleet.pause(HOUR - 2 * MINUTE) == []
        assert await fleet.pause(2 * MINUTE) == ["web"]


# -- together ------------------------------------------------------------------------------------------------------


def several(fleet: Fleet, *names: str, **options: Any) -> None:
    """One workload that uses several certificates."""
    for name in names:
        fleet.certificate(name, **options)
    fleet.deploy("web", *names)
    for name in names:
        fleet.look(Key(NAMESPACE, name))


async def test_secrets_changed_by_hand_one_after_the_other_are_one_restart(fleet: Fleet) -> None:
    names = [f"s{number}" for number in range(5)]
    several(fleet, *names)
    for name in names:
        fleet.renew(name, by=Reason.RENEWAL_REQUESTED)
        assert await fleet.pause(2 * SECOND) == []

    assert await fleet.pause(QUIET - 2 * SECOND) == ["web"]
    assert fleet.marks == [{f"certificate.certrenewal.dev/{name}": fleet.mark(name) for name in names}]
    assert await fleet.pause(HOUR) == []


async def test_changes_without_end_are_not_waited_for_without_end(fleet: Fleet) -> None:
    several(fleet, "a", "b")
    waited = timedelta(0)
    while not await fleet.pause(SECOND):
        fleet.renew("a", by=Reason.RENEWAL_REQUESTED)
        waited += SECOND

    assert waited <= LONGEST_WAIT + SECOND


async def test_a_workload_with_one_certificate_waits_for_nothing(fleet: Fleet) -> None:
    several(fleet, "a")
    fleet.renew("a", by=Reason.RENEWAL_REQUESTED)

    assert await fleet.pause() == ["web"]


async def test_a_certificate_that_was_due_waits_for_nothing_where_no_other_is(fleet: Fleet) -> None:
    several(fleet, "a", "b")
    fleet.renew("a")

    assert await fleet.pause() == ["web"]


async def test_a_sibling_that_is_due_in_a_moment_is_waited_for(fleet: Fleet) -> None:
    several(fleet, "a", "b", due=HOUR)
    fleet.clock.now += HOUR - SECOND
    fleet.renew("a")
    assert await fleet.pause() == []
    assert await fleet.pause(SECOND) == []

    fleet.renew("b")

    assert await fleet.pause(SECOND) == ["web"]
    assert set(fleet.marks[0]) == {"certificate.certrenewal.dev/a", "certificate.certrenewal.dev/b"}


async def test_a_sibling_that_follows_is_woken_and_waited_for(fleet: Fleet) -> None:
    several(fleet, "a", "b", due=16 * HOUR)
    fleet.clock.now += 15 * HOUR
    fleet.renew("a")
    looked = dict(fleet._pokes)
    assert await fleet.pause() == []

    assert Key(NAMESPACE, "b") in looked
    fleet.renew("b", by=Reason.SIBLING_RENEWED)
    assert await fleet.pause(SECOND) == ["web"]


def failing(fleet: Fleet, key: Key) -> None:
    status = with_failure(
        fleet.status(key), reason=Reason.AUTHORITY_UNREACHABLE, message="", now=fleet.clock.now, attempt_at=None
    )
    fleet.write(key, status)


def unreadable(fleet: Fleet, key: Key) -> None:
    conditions = [
        {**c, "status": "False", "reason": "InvalidSpec"} if c["type"] == "Ready" else c
        for c in fleet.status(key)["conditions"]
    ]
    fleet.write(key, {**fleet.status(key), "conditions": conditions})


def never_restarts(fleet: Fleet, key: Key) -> None:
    renewal = fleet.cache.renewals[key]
    fleet.cache.put_renewal(replace(renewal, spec={**renewal.spec, "restart": "Never"}))


@pytest.mark.parametrize("state", [failing, unreadable, never_restarts])
async def test_a_sibling_that_will_not_follow_is_not_waited_for(
    fleet: Fleet, state: Callable[[Fleet, Key], None]
) -> None:
    several(fleet, "a", "b", due=16 * HOUR)
    fleet.clock.now += 15 * HOUR
    state(fleet, Key(NAMESPACE, "b"))

    fleet.renew("a")

    assert await fleet.pause() == ["web"]


async def test_a_sibling_that_does_not_follow_is_waited_for_only_so_long(fleet: Fleet) -> None:
    several(fleet, "a", "b", due=16 * HOUR)
    fleet.clock.now += 15 * HOUR
    fleet.renew("a")

    assert await fleet.pause(LONGEST_WAIT - SECOND) == []
    assert await fleet.pause(SECOND) == ["web"]


async def test_nobody_is_waited_for_until_it_is_too_late(fleet: Fleet) -> None:
    several(fleet, "a", "b", life=HOUR, due=45 * MINUTE)
    fleet.clock.now += 54 * MINUTE - SECOND
    fleet.renew("a", life=HOUR, by=Reason.RENEWAL_REQUESTED)

    assert await fleet.pause() == []
    assert await fleet.pause(SECOND) == ["web"]


# -- who cannot be restarted ---------------------------------------------------------------------------------------


async def test_a_refused_restart_stops_nobody_is_told_and_tried_again(fleet: Fleet) -> None:
    fleet.certificate()
    for name in ("a", "b", "c"):
        fleet.deploy(name)
    fleet.look(WEB)
    fleet.failures["b"] = Rejected("PATCH b: 403 frozen until Monday")
    fleet.renew()

    assert await fleet.pause() == ["a", "c"]
    assert fleet.states()["b"] == ("Failed", "PATCH b: 403 frozen until Monday")
    assert fleet.warnings(Reason.RESTART_FAILED) == ["PATCH b: 403 frozen until Monday"]
    assert await fleet.pause(REFUSED_RETRY) == []
    assert len(fleet.warnings(Reason.RESTART_FAILED)) == 1, "the same words once"
    del fleet.failures["b"]
    assert await fleet.pause(REFUSED_RETRY) == ["b"]
    assert fleet.states()["b"] == ("Restarting", "")


async def test_who_cannot_be_restarted_uses_up_nobodys_budget() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, a=2 * HOUR, b=3 * DAY, c=4 * DAY)
        fleet.failures["a"] = Rejected("no")
        assert await fleet.pause() == ["b"]

        # Its certificate ends, so that it is tried whatever the budget says, for hours.
        late = [await fleet.pause(MINUTE) for _ in range(300)]

        assert [name for names in late for name in names] == ["c"]
        fleet.renew("b")
        assert [await fleet.pause(MINUTE) for _ in range(2)] in ([["b"], []], [[], ["b"]])


async def test_who_cannot_be_restarted_holds_no_later_wave(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("a")
    fleet.deploy("b", wish={"restart-order": "1"})
    fleet.deploy("c", wish={"restart-order": "many"})
    fleet.deploy("d", wish={"restart-order": "2"})
    fleet.look(WEB)
    fleet.failures["a"] = Rejected("no")
    fleet.renew()

    assert await fleet.pause() == ["b"]
    assert fleet.states()["d"] == ("Pending", "after Deployment/b (wave 1)")
    fleet.roll("b")
    assert await fleet.pause() == ["d"]
    assert fleet.states()["c"][0] == "Failed"


async def test_who_would_need_a_signal_that_nobody_may_send_holds_no_later_wave(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("a", wish={"restart": "Signal"})
    fleet.deploy("b", wish={"restart-order": "1"})
    fleet.look(WEB)
    fleet.renew()

    assert await fleet.pause() == ["b"]
    assert fleet.states()["a"][0] == "Failed"


async def test_a_canary_that_cannot_be_restarted_holds_the_others_while_there_is_time(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("a", wish={"restart-canary": "true"})
    fleet.deploy("b")
    fleet.look(WEB)
    fleet.failures["a"] = Rejected("no")
    fleet.renew()

    assert await fleet.pause(LATEST - SECOND) == []
    assert fleet.states()["b"] == ("Pending", "after Deployment/a (the canary)")
    assert await fleet.pause(SECOND) == ["b"]


@pytest.mark.parametrize("healed", ["opted out for a while", "restarted by hand", "made anew"])
async def test_a_refusal_is_forgotten_with_what_it_was_about(fleet: Fleet, healed: str) -> None:
    fleet.certificate()
    web = fleet.deploy("web")
    fleet.look(WEB)
    fleet.failures["web"] = Rejected("no")
    fleet.renew()
    await fleet.pause()
    assert fleet.states()["web"] == ("Failed", "no")
    del fleet.failures["web"]

    match healed:
        case "opted out for a while":
            fleet.annotate("web", restart="Never")
            await fleet.pause()
            fleet.annotate("web")
            fleet.renew()
            assert await fleet.pause() == ["web"]
        case "restarted by hand":
            workload = fleet.cache.workload(NAMESPACE, web)
            assert workload is not None
            await fleet.mark_template(workload, {"certificate.certrenewal.dev/web-tls": fleet.mark("web-tls")})
            fleet.roll("web")
            assert fleet.states()["web"] == ("Healthy", "")
        case _:
            fleet.remove("web")
            await fleet.pause(REFUSED_RETRY)
            fleet.deploy("web", uid="another")
            fleet.renew()
            assert await fleet.pause() == ["web"]
    assert fleet.queue.refusals(NAMESPACE) == {}


async def test_a_restart_that_failed_is_tried_again_soon(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.failures["web"] = Unavailable("timed out")
    fleet.renew()
    assert await fleet.pause() == []
    assert fleet.states()["web"] == ("Pending", "")

    del fleet.failures["web"]

    assert await fleet.pause(RETRY - SECOND) == []
    assert await fleet.pause(SECOND) == ["web"]


async def test_who_must_be_restarted_and_cannot_is_not_tried_without_pause(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.clock.now += 2 * DAY
    fleet.failures["web"] = Unavailable("timed out")
    fleet.renew()

    await fleet.pause()  # fails where the queue finds no rest
    del fleet.failures["web"]

    assert await fleet.pause(RETRY - SECOND) == []
    assert await fleet.pause(SECOND) == ["web"]


# -- leadership ----------------------------------------------------------------------------------------------------


async def test_who_does_not_lead_restarts_nobody(fleet: Fleet) -> None:
    fleet.certificate()
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.leads = False
    fleet.renew()

    assert await fleet.pause() == []
    assert metrics.RESTART_QUEUE._value.get() == 0


async def test_who_leads_again_finds_again_what_is_owed() -> None:
    """The schedule does not look at everything anew then: the queue has to ask for it."""
    async with running(per_minute=1) as fleet:
        fill(fleet, a=2 * DAY, b=3 * DAY, c=4 * DAY)
        fleet.failures["c"] = Rejected("no")
        assert await fleet.pause() == ["a"]
        fleet.leads = False
        woken: dict[Key, None] = {}
        fleet.clock.now += MINUTE
        fleet.queue._news.set()
        await settled()
        woken.update(fleet._pokes)

        fleet.leads = True

        assert set(woken) >= {Key(NAMESPACE, "b"), Key(NAMESPACE, "c")}
        assert await fleet.pause() == ["b"]
        del fleet.failures["c"]
        assert await fleet.pause(2 * MINUTE) == ["c"]


# -- windows -------------------------------------------------------------------------------------------------------


async def test_a_workloads_own_window_goes_before_that_of_the_certificate(fleet: Fleet) -> None:
    fleet.certificate(restartWindow="0 2 * * * for 1h")
    fleet.deploy("web", wish={"restart-window": "0 14 * * * for 1h"})
    fleet.look(WEB)
    fleet.renew()
    assert await fleet.pause() == []
    assert fleet.states() == {"web": ("Pending", "its window opens at 2026-03-01T14:00:00Z")}

    assert await fleet.pause(2 * HOUR) == ["web"]
    assert fleet.warnings(Reason.WINDOW_MISSED) == []


async def test_a_restart_that_did_not_come_in_its_window_waits_for_the_next() -> None:
    async with running(per_minute=1) as fleet:
        fill(fleet, a=5 * DAY, b=6 * DAY)
        fleet.annotate("b", restart_window="0 12 * * * for 2m")
        assert await fleet.pause() == ["a"]

        assert await fleet.pause(50 * SECOND) == []
        assert await fleet.pause(5 * MINUTE) == []
        assert await fleet.pause(DAY - 6 * MINUTE - 51 * SECOND) == []
        assert await fleet.pause(2 * SECOND) == ["b"]
        assert timestamp(fleet.clock.now) == "2026-03-02T12:00:01Z"
