"""Guards: who is due waits for a place without a look, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from certrenewal.domain import annotation
from tests.unit.builders import DAY, NOON
from tests.unit.simulation import SECRET, Wish, World

MINUTE = timedelta(minutes=1)


@pytest.fixture
def world() -> Iterator[World]:
    """A certificate that was just issued, and an authority that has no place for another."""
    with World(Wish(), NOON) as made:
        made.run(MINUTE)
        made.leader.contact.is_full = True
        yield made


def must_wait(world: World) -> bool:
    """What the loop around the looks asks first."""
    return world.leader.reconciler.must_wait(SECRET)


def test_one_that_is_due_waits(world: World) -> None:
    world.clock.now += 16 * timedelta(hours=1)
    assert must_wait(world)

    world.leader.contact.is_full = False
    assert not must_wait(world)


def test_one_that_is_asked_for_waits(world: World) -> None:
    world.annotate({annotation.RENEW_NOW: "1"})

    assert must_wait(world)


def test_one_that_is_not_due_is_looked_at(world: World) -> None:
    assert not must_wait(world)


def test_one_that_has_ended_is_looked_at_as_users_are_to_be_told(world: World) -> None:
    world.clock.now += 2 * DAY

    assert not must_wait(world)


def test_one_whose_authority_is_down_is_looked_at_as_users_are_to_be_told(world: World) -> None:
    world.clock.now += 16 * timedelta(hours=1)
    world.ca.back = world.clock.now + DAY
    world.leader.contact.probe()

    assert not must_wait(world)


def test_one_that_is_unknown_or_to_go_is_looked_at(world: World) -> None:
    world.clock.now += 16 * timedelta(hours=1)
    body = world.objects.get("certrenewals", SECRET.name) or {}
    body["metadata"]["deletionTimestamp"] = "2026-03-02T04:00:00Z"
    world.objects.put("certrenewals", SECRET.name, body)
    assert not must_wait(world)

    world.leader.cache.lose_renewal(SECRET)
    assert not must_wait(world)
