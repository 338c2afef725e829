"""Guards: the token endpoint shows a certificate that its CA's roots verify, before and after they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

from certrenewal import metrics
from certrenewal.controller.identity import Serving
from certrenewal.controller.obtaining import Authorities
from certrenewal.domain.authority import AuthorityView
from certrenewal.domain.certificate import fingerprint, parse_chain
from certrenewal.domain.routes import Route
from certrenewal.stepca.authority import Authority, Issued
from certrenewal.stepca.errors import Unreachable
from tests.unit.builders import DAY, NOON, a_root, an_asker, an_authority, an_intermediate, key_of, names


class World:
    """A CA with the roots of that name."""

    def __init__(self) -> None:
        self.now = NOON
        self.root = "Root"
        self.known: tuple[str, ...] = ("Root",)
        self.down = False
        self.signed: list[str] = []
        self.news = asyncio.Event()
        self.serving = Serving(
            names=names("certrenewal.certrenewal.svc"),
            authority="default",
            authorities=cast("Authorities", self),
            asker=lambda: an_asker(namespace="certrenewal"),
            identity="pod-1",
            clock=lambda: self.now,
        )

    def view(self, name: str) -> AuthorityView:
        return an_authority(roots=tuple(a_root(root).certificate for root in self.known))

    def use(self, name: str) -> Authority:
        return cast("Authority", self)

    def report(self, name: str, failure: Unreachable) -> None:
        """Nothing follows from it here."""

    async def sign(self, key: Any, **_: Any) -> Issued:
        self.news.set()
        if self.down:
            raise Unreachable("it does not answer")
        issuer = an_intermediate(self.root)
        leaf = issuer.leaf(("certrenewal.certrenewal.svc",), not_before=self.now)
        self.signed.append(fingerprint(leaf))
        return Issued(chain=parse_chain(issuer.bundle(leaf)), root=a_root().certificate, key=key_of(), route=Route.SIGN)

    async def asked(self) -> None:
        """Wait until the CA is asked."""
        async with asyncio.timeout(10):
            await self.news.wait()
            self.news.clear()
        for _ in range(20):
            await asyncio.sleep(0)

    async def rotate(self, *known: str, signs: str) -> None:
        """The CA names other roots, and signs by one of them."""
        self.known, self.root = known, signs
        self.serving.authority_changed("default")
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.serving.run())
    await world.asked()
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_another_root_beside_the_old_one_changes_nothing_until_the_old_one_goes() -> None:
    async with running() as world:
        await world.rotate("Root", "Other", signs="Other")
        beside = len(world.signed)
        await world.rotate("Other", signs="Other")
        await world.asked()

        assert beside == 1
        assert len(world.signed) == 2
        await world.rotate("Other", signs="Other")
        assert len(world.signed) == 2


async def test_an_authority_that_is_not_the_endpoints_is_no_news() -> None:
    async with running() as world:
        world.known = ("Other",)
        world.serving.authority_changed("elsewhere")
        for _ in range(20):
            await asyncio.sleep(0)

        assert len(world.signed) == 1


async def test_a_ca_that_is_down_leaves_the_certificate_at_hand_in_use() -> None:
    async with running() as world:
        expiry = metrics.TOKEN_ENDPOINT_EXPIRY._value.get()
        world.down, world.now = True, NOON + timedelta(hours=16)
        await world.rotate("Root", signs="Root")
        await world.asked()
        during = metrics.TOKEN_ENDPOINT_EXPIRY._value.get()
        world.down, world.now = False, world.now + timedelta(minutes=1)
        await world.rotate("Root", signs="Root")
        await world.asked()

        assert world.serving.ready.is_set()
        assert expiry == during == (NOON + DAY).timestamp()
        assert metrics.TOKEN_ENDPOINT_EXPIRY._value.get() > during
