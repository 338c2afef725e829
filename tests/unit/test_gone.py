"""Guards: a Secret that was deleted stays deleted, and one that took its place is none of ours, before the watch says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from certrenewal.domain import annotation
from tests.unit.builders import NOON
from tests.unit.simulation import SECRET, Replica, Trouble, Wish, World

LAG = timedelta(seconds=5)
MINUTE = timedelta(minutes=1)


class Counted(World):
    """Counts what the CA is asked for, and what is written to the Secret."""

    def __init__(self, *, annotated: bool = True) -> None:
        self.asks = self.writes = 0
        super().__init__(Wish(annotated=annotated), NOON)

    def asked(self, replica: Replica) -> None:
        self.asks += 1

    def written(self, replica: Replica, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        self.writes += 1

    def delete(self) -> None:
        """The Secret is gone, and the watch does not say so yet."""
        self.lag = LAG
        self.objects.delete("secrets", SECRET.name)

    def ask(self) -> None:
        """Somebody asks for a renewal, on the CertRenewal, and no look has come to it."""
        body = self.objects.get("certrenewals", self.wish.key.name) or {}
        body["metadata"]["annotations"] = {annotation.RENEW_NOW: "1"}
        self.objects.put("certrenewals", self.wish.key.name, body)


def test_a_secret_that_was_deleted_is_not_made_again_while_the_watch_lags() -> None:
    with Counted() as world:
        world.run(MINUTE)
        asks = world.asks
        world.ask()
        world.delete()
        world.run(MINUTE)

        assert world.asks == asks
        assert world.objects.get("secrets", SECRET.name) is None
        assert world.objects.get("certrenewals", SECRET.name) is None


def test_a_secret_that_goes_while_the_ca_is_asked_is_not_made_again() -> None:
    with Counted() as world:
        world.troubles["/sign"].append(Trouble(act=lambda _: world.delete(), late=True))
        world.run(MINUTE)

        assert world.asks == 1
        assert world.objects.get("secrets", SECRET.name) is None


@pytest.mark.parametrize("words", [{}, {annotation.RENEW: "false"}], ids=["silent", "opted out"])
def test_a_secret_that_took_its_place_is_not_written_while_the_watch_lags(words: dict[str, str]) -> None:
    with Counted() as world:
        world.run(MINUTE)
        asks, writes = world.asks, world.writes
        world.ask()
        world.delete()
        world.objects.put("secrets", SECRET.name, {"metadata": {"annotations": words}, "data": {}})
        world.run(MINUTE)

        assert (world.asks, world.writes) == (asks, writes)
        assert world.data() == {}


def test_a_secret_that_was_ordered_by_hand_is_made_again() -> None:
    with Counted(annotated=False) as world:
        world.run(MINUTE)
        asks = world.asks
        world.ask()
        world.delete()
        world.run(MINUTE)

        assert world.asks == asks + 1
        assert {"tls.crt", "tls.key"} <= world.data().keys()


def test_a_secret_that_goes_before_its_token_is_laid_is_not_made_again() -> None:
    with Counted() as world:
        world.annotate({annotation.RENEW: None, annotation.KEY_ROTATION: None, annotation.TOKEN: "true"})
        world.troubles["PATCH certrenewals/status"].append(Trouble(act=lambda _: world.delete(), late=True))
        world.run(MINUTE)

        assert {reason for reason, _ in world.events} <= {"TokenIssued"}
        assert world.objects.get("secrets", SECRET.name) is None
