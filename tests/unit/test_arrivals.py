"""Guards: a kind that is not installed keeps nobody waiting, and is watched once it is."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from certrenewal.controller import arrivals
from certrenewal.controller.arrivals import Arrivals
from certrenewal.domain.kinds import Resource
from certrenewal.kube.errors import ClusterError, Forbidden, NotFound, Unavailable
from certrenewal.kube.store import Store

ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts")
CLONES = Resource("apps.kruise.io", "v1", "clonesets")


class Server:
    """Answers for each kind with an error, or without."""

    def __init__(self, answers: dict[Resource, list[ClusterError | None]]) -> None:
        self.answers = answers
        self.namespaces: set[str] = set()

    async def probe(self, resource: Resource, namespace: str) -> None:
        """As `Store` does; the last answer stays."""
        self.namespaces.add(namespace)
        answers = self.answers[resource]
        if answer := answers.pop(0) if len(answers) > 1 else answers[0]:
            raise answer


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "PAUSE", 0.001)
    monkeypatch.setattr(arrivals, "RETRY", 0.001)


def looking(answers: dict[Resource, list[ClusterError | None]], namespace: str = "") -> tuple[Arrivals, Server]:
    server = Server(answers)
    return Arrivals(cast("Store", server), answers, namespace), server


async def next_change(found: Arrivals) -> Resource:
    """What comes of going on looking."""
    task = asyncio.create_task(found.run())
    try:
        async with asyncio.timeout(5):
            return await found.changed()
    finally:
        task.cancel()


async def test_what_is_there_is_not_waited_for() -> None:
    found, _ = looking({ROLLOUTS: [None]})

    await found.look()

    assert found.absent == set()


async def test_without_kinds_there_is_nothing_to_look_for() -> None:
    found, _ = looking({})

    await found.look()
    await found.run()


@pytest.mark.parametrize("refusal", [NotFound("404"), Forbidden("403")], ids=["not installed", "not allowed"])
async def test_what_comes_later_is_told(refusal: ClusterError) -> None:
    found, _ = looking({ROLLOUTS: [refusal, refusal, None], CLONES: [None]})
    await found.look()
    assert found.absent == {ROLLOUTS}

    assert await next_change(found) == ROLLOUTS
    assert found.absent == set()


async def test_what_goes_is_told_once_and_may_come_again() -> None:
    found, _ = looking({ROLLOUTS: [None, NotFound("404"), None]})
    await found.look()

    found.lose(ROLLOUTS)
    found.lose(ROLLOUTS)

    assert await found.changed() == ROLLOUTS
    assert found.absent == {ROLLOUTS}
    assert await next_change(found) == ROLLOUTS
    assert found.absent == set()


async def test_an_absence_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = looking({ROLLOUTS: [NotFound("404"), NotFound("404"), NotFound("404"), None]})
    await found.look()
    await next_change(found)

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "a kind of extraWorkloads cannot be watched, and is asked for again"
    ]


async def test_a_server_that_does_not_answer_is_asked_again_before_anything_is_built_on_it() -> None:
    found, _ = looking({ROLLOUTS: [Unavailable("503"), Unavailable("503"), None]})

    async with asyncio.timeout(5):
        await found.look()

    assert found.absent == set()


async def test_it_is_asked_for_where_the_account_may() -> None:
    found, server = looking({ROLLOUTS: [None]}, "shop")

    await found.look()

    assert server.namespaces == {"shop"}
