"""Guards: signals have their turn among restarts, hold up none of them, and write no pod template."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest

from certrenewal.controller.cache import Key
from certrenewal.controller.owed import Debt
from certrenewal.controller.reloads import Abandoned, Reloads
from certrenewal.controller.restarts import AT_ONCE, REFUSED_RETRY
from certrenewal.domain.reasons import Reason
from certrenewal.domain.rollout import Workload
from certrenewal.kube.exec import CommandFailed
from tests.unit.fleet import NAMESPACE, Fleet

WEB = Key(NAMESPACE, "web-tls")
SIGNAL = {"restart": "Signal"}


class Signalled(Fleet):
    """A fleet some of whose workloads reload on a signal."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.signals: list[str] = []
        self.failure: Exception | None = None
        self.delivered = asyncio.Event()  # whether the kubelet has brought the files
        self.delivered.set()
        self.queue._reloads = cast("Reloads", self)

    async def bring(self, workload: Workload, debts: tuple[Debt, ...], still: Callable[[], bool]) -> None:
        """As `Reloads` does."""
        while not self.delivered.is_set():
            await asyncio.sleep(0)
            if not still():
                raise Abandoned
        if self.failure is not None:
            raise self.failure
        self.signals.append(workload.ref.name)

    async def mark_workload(self, workload: Workload, marks: Mapping[str, str]) -> dict[str, Any]:
        """As `Store` does."""
        target = workload.namespace, workload.ref
        metadata = self._bodies[target]["metadata"]
        annotations = {**metadata["annotations"], **marks}
        body = self._bodies[target] = {**self._bodies[target], "metadata": {**metadata, "annotations": annotations}}
        return body


@pytest.fixture
async def fleet() -> AsyncIterator[Signalled]:
    """One with a certificate, whose queue runs."""
    made = Signalled()
    made.certificate()
    task = asyncio.create_task(made.queue.run())
    yield made
    assert not task.done(), "the queue has ended"
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_signal_comes_instead_of_a_restart_once_for_each_certificate(fleet: Signalled) -> None:
    fleet.deploy("web", wish=SIGNAL)
    fleet.look(WEB)
    await fleet.pause()

    fleet.renew()

    assert await fleet.pause() == []
    assert fleet.signals == ["web"]
    assert fleet.states() == {"web": ("Healthy", "")}
    assert [(name, reason) for name, reason, _ in fleet.told] == [("web", Reason.RELOADED)]
    await fleet.pause(REFUSED_RETRY)
    assert fleet.signals == ["web"]


async def test_workloads_that_wait_for_files_hold_up_no_restart(fleet: Signalled) -> None:
    names = [f"slow-{number}" for number in range(3 * AT_ONCE)]
    for name in names:
        fleet.deploy(name, wish=SIGNAL)
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.delivered.clear()

    fleet.renew()

    assert await fleet.pause() == ["web"]
    assert fleet.signals == []
    fleet.delivered.set()
    await fleet.pause()
    assert sorted(fleet.signals) == sorted(names)


async def test_waves_hold_for_signals_too(fleet: Signalled) -> None:
    fleet.deploy("first", wish={**SIGNAL, "restart-order": "-1"})
    fleet.deploy("web")
    fleet.look(WEB)
    fleet.delivered.clear()

    fleet.renew()

    assert await fleet.pause() == []
    assert fleet.states()["web"] == ("Pending", "after Deployment/first (wave -1)")
    fleet.delivered.set()
    assert await fleet.pause() == ["web"]


async def test_a_newer_certificate_takes_the_place_of_the_one_that_is_waited_for(fleet: Signalled) -> None:
    fleet.deploy("web", wish=SIGNAL)
    fleet.look(WEB)
    fleet.delivered.clear()
    fleet.renew()
    await fleet.pause()

    fleet.renew()
    await fleet.pause()
    fleet.delivered.set()
    await fleet.pause()

    assert fleet.signals == ["web"]
    assert fleet.states() == {"web": ("Healthy", "")}


async def test_who_is_to_be_restarted_instead_is(fleet: Signalled) -> None:
    fleet.deploy("web", wish=SIGNAL)
    fleet.look(WEB)
    fleet.delivered.clear()
    fleet.renew()
    await fleet.pause()

    fleet.annotate("web")

    assert await fleet.pause() == ["web"]
    assert fleet.signals == []


async def test_a_failure_is_told_without_what_the_command_printed_and_tried_again(fleet: Signalled) -> None:
    fleet.deploy("web", wish=SIGNAL)
    fleet.deploy("other")
    fleet.look(WEB)
    fleet.failure = CommandFailed("pod web-1, container main: exit code 3\nits own words")

    fleet.renew()
    restarted = await fleet.pause()
    failed = fleet.states()["web"]
    fleet.failure = CommandFailed("pod web-1, container main: exit code 3\nother words")
    await fleet.pause(REFUSED_RETRY)
    failed_again = fleet.states()["web"]
    fleet.failure = None
    await fleet.pause(REFUSED_RETRY)

    assert restarted == ["other"]
    assert failed == ("Failed", "pod web-1, container main: exit code 3\nits own words")
    assert failed_again == ("Failed", "pod web-1, container main: exit code 3\nother words")
    assert fleet.warnings(Reason.RESTART_FAILED) == ["pod web-1, container main: exit code 3"]
    assert fleet.states()["web"] == ("Healthy", "")
    assert fleet.signals == ["web"]


async def test_the_condition_leaves_out_what_the_command_printed(fleet: Signalled) -> None:
    fleet.deploy("web", wish=SIGNAL)
    fleet.look(WEB)
    fleet.failure = CommandFailed("exit code 3\nits own words")

    fleet.renew()
    await fleet.pause()

    (message,) = [c["message"] for c in fleet.status(WEB)["conditions"] if c["type"] == "RolledOut"]
    assert message == "the rollout failed: Deployment/web (exit code 3)"
