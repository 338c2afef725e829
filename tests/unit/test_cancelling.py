"""Guards: a token is burnt once, by whoever still knows it, and what nobody can tell is not told as known."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from certrenewal.controller.cache import Key
from certrenewal.controller.cancelling import Canceller, Live
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.bootstrap import Laid, digest
from certrenewal.domain.reasons import Reason
from certrenewal.kube.store import Subject
from certrenewal.stepca.authority import Authority
from certrenewal.stepca.errors import Unreachable
from tests.unit.builders import NOON, an_authority, names

KEY = Key("shop", "web-token")
ABOUT = Subject(api_version="v1", kind="Secret", namespace="shop", name="web-token", uid="")
LAID = Laid(
    digest=digest(b"token"),
    authority="default",
    names=names("web.shop.svc"),
    issued=NOON - timedelta(minutes=1),
    expires=NOON + timedelta(minutes=4),
)
LIVE = Live(secret=KEY, authority="default", token="token", expires=LAID.expires)


class CA:
    """A CA that notes which tokens it was shown, and knows which were used."""

    def __init__(self, *, used: tuple[str, ...] = (), down: bool = False, ready: bool = True) -> None:
        self.shown: list[str] = []
        self.trips: list[Unreachable] = []
        self._used = used
        self._down = down
        self._ready = ready

    async def burn(self, token: str) -> bool:
        if self._down:
            raise Unreachable("it does not answer")
        self.shown.append(token)
        return token not in self._used

    def view(self, name: str) -> AuthorityView:
        return an_authority(ready=self._ready)

    def use(self, name: str) -> Authority:
        return self  # type: ignore[return-value]

    def report(self, name: str, failure: Unreachable) -> None:
        self.trips.append(failure)


class Told:
    """What was told."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    async def tell(self, subject: Subject, reason: Reason, message: str, *, warning: bool = False) -> None:
        self.reasons.append(reason)


def a_canceller(ca: CA, told: Told | None = None, *, now: datetime = NOON) -> Canceller:
    """One that speaks to that CA."""
    reporter = told or Told()
    return Canceller(
        authorities=ca,
        reporter=reporter,  # type: ignore[arg-type]
        require=lambda: None,
        clock=lambda: now,
    )


@pytest.mark.parametrize("used", [False, True])
async def test_what_the_secret_holds_is_burnt(used: bool) -> None:
    ca, told = CA(used=("token",) if used else ()), Told()

    assert await a_canceller(ca, told).retire(KEY, LAID, b"token", ABOUT) is used
    assert ca.shown == ["token"]
    assert told.reasons == [Reason.TOKEN_CANCELLED]


async def test_what_somebody_else_put_there_is_not() -> None:
    ca = CA()

    assert await a_canceller(ca).retire(KEY, LAID, b"other", ABOUT) is None
    assert ca.shown == []


@pytest.mark.parametrize("held", [b"", b"other"])
async def test_what_is_gone_from_the_secret_is_burnt_by_its_signer(held: bytes) -> None:
    ca = CA()
    canceller = a_canceller(ca)
    canceller.remember(KEY, LIVE)

    assert await canceller.retire(KEY, LAID, held, ABOUT) is False
    assert ca.shown == ["token"]


async def test_a_token_is_burnt_once_however_often_the_rest_has_to_be_tried_again() -> None:
    ca, told = CA(), Told()
    canceller = a_canceller(ca, told)

    found = [await canceller.retire(KEY, LAID, b"token", ABOUT) for _ in range(3)]

    assert found == [False] * 3
    assert ca.shown == ["token"]
    assert told.reasons == [Reason.TOKEN_CANCELLED]


async def test_the_next_token_of_the_same_secret_is_another() -> None:
    ca = CA()
    canceller = a_canceller(ca)
    await canceller.retire(KEY, LAID, b"token", ABOUT)
    canceller.remember(KEY, Live(secret=KEY, authority="default", token="second", expires=LAID.expires))

    await canceller.retire(KEY, None, b"", ABOUT)

    assert ca.shown == ["token", "second"]


@pytest.mark.parametrize(("ended", "shown"), [(False, []), (True, ["token"])])
async def test_a_token_that_has_ended_is_burnt_only_where_the_ca_may_grant_it_a_minute(
    ended: bool, shown: list[str]
) -> None:
    ca, told = CA(), Told()

    await a_canceller(ca, told, now=LAID.expires).retire(KEY, LAID, b"token", ABOUT, ended=ended)

    assert ca.shown == shown
    assert told.reasons == []


@pytest.mark.parametrize(("ca", "trips"), [(CA(down=True), 1), (CA(ready=False), 0)], ids=["silent", "not ready"])
async def test_a_ca_that_does_not_say_leaves_a_warning(ca: CA, trips: int) -> None:
    told = Told()

    assert await a_canceller(ca, told).retire(KEY, LAID, b"token", ABOUT) is None
    assert told.reasons == [Reason.TOKEN_NOT_CANCELLED]
    assert len(ca.trips) == trips
