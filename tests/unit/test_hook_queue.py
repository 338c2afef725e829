"""Guards: one attempt at a time for each hook, the newest certificate, room for every namespace, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

from certrenewal.controller.cache import Cache, Key, Renewal
from certrenewal.controller.hooks import AT_ONCE_IN_NAMESPACE, CLUSTER_RETRY, DENIED_RETRY, Hooks
from certrenewal.domain.certificate import dump_key, fingerprint
from certrenewal.domain.deliveries import State, read_deliveries
from certrenewal.domain.request import Request
from certrenewal.kube.errors import ClusterError, Unavailable
from certrenewal.kube.lease import NotLeading
from certrenewal.kube.store import Secret, Store
from certrenewal.outbound import Denied, Outbound, Trust, Undelivered
from tests.unit.builders import NOON, a_root, an_intermediate, key_of

LEAVES = [an_intermediate().leaf() for _ in range(3)]


class World:
    """A cluster of Secrets and statuses, receivers that answer as told, and looks that write what they are told."""

    def __init__(self) -> None:
        self.now = NOON
        self.cache = Cache()
        self.held: dict[Key, int] = {}
        self.leading = True
        self.loses_the_lease = False
        self.failure: ClusterError | None = None
        self.denial: str | None = None
        self.answer: int | Exception = 204
        self.sent: list[str] = []
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.looks = True
        self.token = "1"
        self.reads = 0  # of that Secret
        self.in_between: Callable[[], None] = lambda: None
        self.hooks = Hooks(
            cache=self.cache,
            store=cast("Store", self),
            outbound=cast("Outbound", self),
            view=lambda _: None,
            leads=lambda: self.leading,
            require=self._require,
            poke=self.look,
            clock=lambda: self.now,
        )

    def _require(self) -> None:
        if not self.leading:
            raise NotLeading

    async def read_secret(self, namespace: str, name: str) -> Secret:
        if self.failure:
            raise self.failure
        if self.loses_the_lease:
            self.leading = False
        if name == "token":
            version = self.token
            self.reads += 1
            self.in_between()
            return Secret(
                namespace=namespace, name=name, uid="t", resource_version=version, immutable=False, annotations={},
                data={"value": version.encode()},
            )  # fmt: skip
        leaf = LEAVES[self.held[Key(namespace, name)]]
        crt = an_intermediate().bundle(leaf)
        data = {"tls.crt": crt, "tls.key": dump_key(key_of()), "ca.crt": a_root().pem}
        return Secret(
            namespace=namespace, name=name, uid="s", resource_version="1", immutable=False, annotations={}, data=data
        )

    def check(self, host: str, port: int) -> None:
        if self.denial:
            raise Denied(self.denial)

    async def send(self, request: Request, trust: Trust, timeout: timedelta) -> int:
        (key,) = (value for name, value in request.headers if name == "Idempotency-Key")
        place = request.url.rpartition("/")[0]
        self.sent.append(key)
        self.under_way[place] += 1
        self.most[place] = max(self.most[place], self.under_way[place])
        try:
            await self.gate.wait()
        finally:
            self.under_way[place] -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def certify(
        self, which: int, *, namespace: str = "shop", name: str = "web", hooks: int = 1, **more: Any
    ) -> Renewal:
        """Another certificate in the Secret, and a look that tells of it."""
        key, print_ = Key(namespace, name), fingerprint(LEAVES[which])
        url = f"https://h.example.com/{namespace}/{name}"
        spec = [{"name": f"ping{n or ''}", "url": f"{url}{n}", **more} for n in range(hooks)]
        known = self.cache.renewals.get(key)
        status: dict[str, Any] = {
            **(known.status if known else {}),
            "certificate": {"fingerprint": print_},
            "history": [{"fingerprint": print_}],
        }
        renewal = Renewal(
            key=key, uid="r", version=1, generation=1, created="", owner_uid=None, spec={"hooks": spec}, status=status,
            renew_now="",
        )  # fmt: skip
        self.held[key] = which
        self.cache.put_renewal(renewal)
        self.look(key)
        return renewal

    def look(self, key: Key) -> None:
        """As a look writes a status."""
        if self.looks:
            renewal = self.cache.renewals[key]
            status, _ = self.hooks.tell(renewal, renewal.status)
            renewal = replace(renewal, status=status)
            self.cache.put_renewal(renewal)
            self.hooks.want(renewal)

    def certify_with_token(self) -> None:
        """A hook with a header from the Secret ``token``."""
        header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}}
        self.certify(0, headers=[header])

    def correct(self) -> None:
        """Another value in the Secret ``token``, and news of it."""
        self.token = str(int(self.token) + 1)
        self.hooks.see_secret(Key("shop", "token"))

    def states(self, name: str = "web") -> dict[str, State]:
        status = self.cache.renewals[Key("shop", name)].status
        return {hook: delivery.state for hook, delivery in read_deliveries(status).items()}

    async def later(self, at: datetime) -> None:
        """Let time pass, and have the queue notice."""
        self.now = at
        self.hooks.forget(Key("nobody", "nothing"))
        self.hooks._news.set()
        await settled()


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    task = asyncio.create_task(world.hooks.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(condition: Callable[[], bool] = lambda: True) -> None:
    """Let every task run until none has more to do, and ``condition`` holds."""
    async with asyncio.timeout(10):
        for _ in range(50):
            await asyncio.sleep(0)
        while not condition():  # noqa: ASYNC110 - there is no event but that everybody had their turn
            await asyncio.sleep(0)


def key_of_hook(which: int, hook: str = "ping") -> str:
    return f"{fingerprint(LEAVES[which])[:16]}/{hook}"


async def test_each_certificate_is_delivered_once_however_often_it_is_looked_at() -> None:
    async with running() as world:
        world.certify(0)
        for _ in range(5):
            world.look(Key("shop", "web"))
        await settled()
        world.look(Key("shop", "web"))
        await settled()
        world.certify(1)
        await settled()

        assert world.sent == [key_of_hook(0), key_of_hook(1)]
        assert world.states() == {"ping": State.DELIVERED}


async def test_a_look_that_began_before_the_answer_asks_for_nothing_again() -> None:
    """Its status does not tell of the delivery yet when it is written."""
    async with running() as world:
        renewal = world.certify(0)
        world.looks = False
        await settled()
        world.hooks.want(renewal)
        await settled()

        assert world.sent == [key_of_hook(0)]


async def test_a_newer_certificate_takes_the_place_of_one_under_way_and_never_runs_beside_it() -> None:
    async with running() as world:
        world.gate.clear()
        world.certify(0)
        await settled()
        world.certify(1)
        await settled()
        world.certify(2)
        await settled()
        world.gate.set()
        await settled()

        assert world.sent == [key_of_hook(0), key_of_hook(1), key_of_hook(2)]
        assert set(world.most.values()) == {1}
        assert world.states() == {"ping": State.DELIVERED}


async def test_a_namespace_whose_receivers_hang_leaves_room_for_others() -> None:
    async with running() as world:
        world.gate.clear()
        for number in range(20):
            world.certify(0, namespace="greedy", name=f"web{number}", hooks=2)
        await settled()
        greedy = len(world.sent)
        world.certify(1, namespace="shop")
        await settled()
        shop = len(world.sent) - greedy
        world.gate.set()
        await settled(lambda: len(world.sent) == 41)

        assert (greedy, shop) == (AT_ONCE_IN_NAMESPACE, 1)
        assert set(world.most.values()) <= {1, AT_ONCE_IN_NAMESPACE}


async def test_a_failure_comes_back_when_it_is_due_and_not_before() -> None:
    async with running() as world:
        world.answer = Undelivered("h.example.com did not answer")
        world.certify(0)
        await settled()
        world.look(Key("shop", "web"))
        await settled()
        early = list(world.sent)
        world.answer = 204
        await world.later(NOON + timedelta(seconds=2))

        assert early == [key_of_hook(0)]
        assert world.sent == [key_of_hook(0)] * 2
        assert world.states() == {"ping": State.DELIVERED}


async def test_what_was_refused_is_sent_again_with_another_secret_and_only_then() -> None:
    async with running() as world:
        world.answer = 401
        world.certify_with_token()
        await settled()
        for _ in range(3):
            world.look(Key("shop", "web"))
            await settled()
        once, reads = list(world.sent), world.reads
        world.hooks.see_secret(Key("shop", "token"))  # as after each list
        await settled()
        same, world.answer = list(world.sent), 204
        world.correct()
        await settled()

        assert once == same == [key_of_hook(0)]
        assert reads == 2  # for the request, and to know what it was made of
        assert world.sent == [key_of_hook(0)] * 2
        assert world.states() == {"ping": State.DELIVERED}


async def test_a_secret_that_is_corrected_while_it_is_looked_at_is_not_missed() -> None:
    async with running() as world:
        world.answer = 403

        def in_between() -> None:
            if world.reads == 2:  # it was read for the request, and now to know whether it is another
                world.answer = 204
                world.correct()

        world.in_between = in_between
        world.certify_with_token()
        await settled()
        world.look(Key("shop", "web"))
        await settled()

        assert world.states() == {"ping": State.DELIVERED}
        assert world.sent == [key_of_hook(0)] * 2


async def test_what_the_secret_no_longer_holds_is_not_sent() -> None:
    async with running() as world:
        world.looks = False
        world.certify(0)
        world.held[Key("shop", "web")] = 1
        world.hooks.want(world.cache.renewals[Key("shop", "web")])
        await settled()

        assert world.sent == []


async def test_an_api_server_that_fails_puts_it_off() -> None:
    async with running() as world:
        world.failure = Unavailable("no answer")
        world.certify(0)
        await settled()
        early = list(world.sent)
        world.failure = None
        await world.later(NOON + CLUSTER_RETRY)

        assert early == []
        assert world.sent == [key_of_hook(0)]


async def test_a_denial_is_told_once_and_asked_again_later() -> None:
    async with running() as world:
        world.denial = "add it"
        world.certify(0)
        await settled()
        first = world.cache.renewals[Key("shop", "web")].status
        for _ in range(3):
            world.look(Key("shop", "web"))
            await settled()
        await world.later(NOON + DENIED_RETRY)
        again = world.cache.renewals[Key("shop", "web")].status
        world.denial = None
        await world.later(NOON + DENIED_RETRY * 2)

        assert read_deliveries(first)["ping"].state is State.DENIED
        assert again == first
        assert world.sent == [key_of_hook(0)]


async def test_a_replica_that_does_not_lead_sends_nothing_until_it_does() -> None:
    async with running() as world:
        world.leading = False
        world.certify(0)
        await settled()
        early = list(world.sent)
        world.leading = True
        await world.later(NOON)

        assert early == []
        assert world.sent == [key_of_hook(0)]


async def test_a_lease_that_is_lost_meanwhile_is_noticed_before_anything_is_sent() -> None:
    async with running() as world:
        world.loses_the_lease = True
        world.certify(0)
        await settled()
        early = list(world.sent)
        world.loses_the_lease, world.leading = False, True
        await world.later(NOON)

        assert early == []
        assert world.sent == [key_of_hook(0)]


async def test_a_hook_that_is_gone_is_given_up() -> None:
    async with running() as world:
        world.gate.clear()
        world.certify(0)
        await settled()
        world.hooks.forget(Key("shop", "web"))
        await settled()

        assert set(world.under_way.values()) == {0}


async def test_an_error_of_ours_is_told_without_its_words_and_stops_nothing() -> None:
    async with running() as world:
        world.answer = RuntimeError("hunter2")
        world.certify(0)
        await settled()
        (told,) = read_deliveries(world.cache.renewals[Key("shop", "web")].status).values()
        world.answer = 204
        world.certify(0, name="other")
        await settled()

        assert (told.state, told.message) == (State.FAILING, "the attempt failed (RuntimeError)")
        assert world.states("other") == {"ping": State.DELIVERED}


async def test_a_drained_queue_starts_nothing_and_has_told_everything() -> None:
    async with running() as world:
        world.gate.clear()
        world.certify(0)
        await settled()
        draining = asyncio.create_task(world.hooks.drain())
        await settled()
        world.certify(0, name="other")
        world.gate.set()
        async with asyncio.timeout(10):
            await draining

        assert world.sent == [key_of_hook(0)]
        assert world.states() == {"ping": State.DELIVERED}
