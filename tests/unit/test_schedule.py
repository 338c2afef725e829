"""Guards: keys come when they are due, the most urgent first, one worker each; news is never lost and never doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certrenewal.controller.cache import Key
from certrenewal.controller.schedule import Schedule


class Clock:
    """A clock that stands until somebody sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


A, B, C, D = (Key("shop", name) for name in "abcd")
URGENCY = {A: 1.0, B: 2.0, C: 3.0, D: 4.0}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def schedule(clock: Clock) -> Schedule:
    return Schedule(lambda key: URGENCY.get(key, 9.0), clock)


async def settled() -> None:
    """Let every task go on until it waits for news or time."""
    for _ in range(10):
        await asyncio.sleep(0)


async def taken(schedule: Schedule) -> Key | None:
    """The key that is handed out now, None where a worker would have to wait."""
    worker = asyncio.create_task(schedule.next())
    await settled()
    if worker.done():
        return worker.result()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    return None


async def drained(schedule: Schedule) -> list[Key]:
    """All keys that are due, in the order in which they are handed out."""
    keys: list[Key] = []
    while (key := await taken(schedule)) is not None:
        keys.append(key)
        assert len(keys) < 100, "handed out without end"
    return keys


async def rest_until(schedule: Schedule, key: Key, due: float | None) -> None:
    """Look at ``key`` once, so that its next look is at ``due``."""
    schedule.poke(key)
    assert await taken(schedule) == key
    schedule.finish(key, due)


async def test_an_empty_schedule_hands_out_nothing(schedule: Schedule) -> None:
    assert await taken(schedule) is None
    assert len(schedule) == 0


async def test_of_those_that_are_due_the_most_urgent_comes_first(schedule: Schedule) -> None:
    for key in (C, A, D, B):
        schedule.poke(key)

    assert await drained(schedule) == [A, B, C, D]


async def test_work_that_is_late_comes_by_urgency_and_not_by_due_time(schedule: Schedule, clock: Clock) -> None:
    """After an outage the nearest expiry comes first, however long others have been due (contract §5)."""
    await rest_until(schedule, D, clock.now + 1)
    await rest_until(schedule, B, clock.now + 2)
    await rest_until(schedule, A, clock.now + 3)
    clock.now += 3600

    assert await drained(schedule) == [A, B, D]


async def test_who_becomes_due_later_and_is_more_urgent_comes_first(schedule: Schedule, clock: Clock) -> None:
    schedule.poke(C)
    schedule.poke(D)
    assert await taken(schedule) == C

    schedule.poke(A)

    assert await drained(schedule) == [A, D]


async def test_a_key_waits_until_it_is_due(schedule: Schedule, clock: Clock) -> None:
    await rest_until(schedule, A, clock.now + 60)

    clock.now += 59
    assert await taken(schedule) is None
    clock.now += 1
    assert await taken(schedule) == A


async def test_a_key_without_a_next_look_is_forgotten(schedule: Schedule, clock: Clock) -> None:
    await rest_until(schedule, A, None)

    clock.now += 1e9
    assert len(schedule) == 0
    assert await taken(schedule) is None


async def test_a_poke_brings_a_waiting_key_forward(schedule: Schedule, clock: Clock) -> None:
    await rest_until(schedule, A, clock.now + 60)

    schedule.poke(A)

    assert await drained(schedule) == [A]


async def test_a_key_brought_forward_does_not_come_again_at_its_old_time(schedule: Schedule, clock: Clock) -> None:
    await rest_until(schedule, A, clock.now + 60)
    schedule.poke(A)
    assert await taken(schedule) == A
    schedule.finish(A, clock.now + 600)

    clock.now += 60
    assert await taken(schedule) is None
    clock.now += 540
    assert await drained(schedule) == [A]


async def test_many_pokes_are_one_look(schedule: Schedule) -> None:
    for _ in range(5):
        schedule.poke(A)

    assert await drained(schedule) == [A]


async def test_of_equal_urgency_who_waits_longest_comes_first_however_often_it_is_poked(schedule: Schedule) -> None:
    first, second = Key("shop", "y"), Key("shop", "x")

    for key in (first, second, first):
        schedule.poke(key)

    assert await drained(schedule) == [first, second]


async def test_a_key_is_with_one_worker_at_a_time(schedule: Schedule) -> None:
    schedule.poke(A)
    assert await taken(schedule) == A

    schedule.poke(A)

    assert await taken(schedule) is None


@pytest.mark.parametrize("wait", [None, 0.0, 60.0], ids=["never again", "due at once", "due later"])
async def test_news_during_a_look_brings_the_key_back_at_once(
    schedule: Schedule, clock: Clock, wait: float | None
) -> None:
    schedule.poke(A)
    assert await taken(schedule) == A
    schedule.poke(A)

    schedule.finish(A, None if wait is None else clock.now + wait)

    assert await drained(schedule) == [A]


async def test_news_counts_for_one_look(schedule: Schedule, clock: Clock) -> None:
    schedule.poke(A)
    assert await taken(schedule) == A
    schedule.poke(A)
    schedule.finish(A, clock.now + 60)
    assert await taken(schedule) == A

    schedule.finish(A, clock.now + 60)

    assert await taken(schedule) is None
    assert len(schedule) == 1


async def test_a_worker_that_waits_is_woken_by_news(schedule: Schedule) -> None:
    worker = asyncio.create_task(schedule.next())
    await settled()

    schedule.poke(A)
    await settled()

    assert worker.done()
    assert await worker == A


async def test_two_workers_that_wait_both_get_their_key(schedule: Schedule) -> None:
    workers = [asyncio.create_task(schedule.next()) for _ in range(2)]
    await settled()

    schedule.poke(B)
    schedule.poke(A)
    await settled()

    assert all(worker.done() for worker in workers)
    assert {worker.result() for worker in workers} == {A, B}


async def test_a_clock_that_was_set_back_delays_no_news(schedule: Schedule, clock: Clock) -> None:
    schedule.poke(B)
    clock.now -= 3600

    schedule.poke(A)
    schedule.poke(B)

    assert await drained(schedule) == [A, B]


async def test_thousands_of_moves_leave_no_trace(schedule: Schedule, clock: Clock) -> None:
    for number in range(5000):
        await rest_until(schedule, A, clock.now + 60 + number)

    assert len(schedule) == 1
    assert len(schedule._waiting) < 200


async def test_a_closed_schedule_hands_out_nothing_more(schedule: Schedule) -> None:
    schedule.poke(A)
    await schedule.close()

    assert await taken(schedule) is None


async def test_closing_waits_for_the_looks_under_way(schedule: Schedule) -> None:
    schedule.poke(A)
    schedule.poke(B)
    assert {await taken(schedule), await taken(schedule)} == {A, B}
    closing = asyncio.create_task(schedule.close())

    await settled()

    schedule.finish(A, None)
    await settled()
    assert not closing.done()

    schedule.finish(B, None)
    await settled()
    assert closing.done()


async def test_a_worker_that_is_stopped_leaves_its_turn_to_the_next(schedule: Schedule) -> None:
    stopped, waiting = (asyncio.create_task(schedule.next()) for _ in range(2))
    await settled()

    stopped.cancel()
    schedule.poke(A)
    await settled()

    assert stopped.cancelled()
    assert waiting.done()
    assert waiting.result() == A


MOVES = st.lists(
    st.tuples(st.sampled_from(["poke", "take", "finish", "forget", "tick"]), st.sampled_from([A, B, C, D])), max_size=40
)


@given(MOVES, st.randoms(use_true_random=False))
async def test_a_poke_is_always_followed_by_a_look_that_begins_after_it(
    moves: list[tuple[str, Key]], chance: random.Random
) -> None:
    """The law that the operator's promptness rests on, for any order of events."""
    clock = Clock()
    schedule = Schedule(lambda key: URGENCY[key], clock)
    running: set[Key] = set()
    owed: set[Key] = set()

    async def take() -> Key | None:
        if (key := await taken(schedule)) is not None:
            assert key not in running
            running.add(key)
            owed.discard(key)
        return key

    def poke(key: Key) -> None:
        owed.add(key)
        schedule.poke(key)

    def finish(key: Key, due: float | None) -> None:
        running.discard(key)
        schedule.finish(key, due)

    act: dict[str, Callable[[Key], None]] = {
        "poke": poke,
        "finish": lambda key: finish(key, clock.now + chance.randint(0, 5)) if key in running else None,
        "forget": lambda key: finish(key, None) if key in running else None,
        "tick": lambda _: setattr(clock, "now", clock.now + chance.randint(0, 3)),
    }
    for move, key in moves:
        if move == "take":
            await take()
        else:
            act[move](key)
    for key in list(running):
        finish(key, None)
    for _ in URGENCY:
        if (late := await take()) is not None:
            finish(late, None)

    assert owed == set()
