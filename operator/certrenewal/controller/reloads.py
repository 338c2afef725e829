"""How does a workload take a new certificate in without a restart: its files first, then a signal, then the mark.

The mark on the workload is what counts: whoever dies before it is written leaves a signal to be sent once more, which
is harmless. A pod that goes meanwhile needs none, and one that comes begins with the new files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from certrenewal.controller.owed import Debt
from certrenewal.controller.touches import Touches
from certrenewal.domain.certificate import Malformed, parse_chain
from certrenewal.domain.reload import Reload
from certrenewal.domain.rollout import Workload, mark, mark_key
from certrenewal.kube.errors import NotFound, Unavailable
from certrenewal.kube.exec import CommandFailed, Outcome
from certrenewal.kube.pods import Pod

AT_ONCE = 16  # workloads
PODS_AT_ONCE = 4  # of one workload
GLANCE = 2.0  # seconds between two looks at a file
PATIENCE = timedelta(minutes=3)  # the kubelet brings files within 70 s by itself
BLIND = timedelta(seconds=90)  # what is waited where no container can be asked
LONGEST_LOOK = 8.0
LONGEST_COMMAND = 30.0
MOST_WORDS = 200


class Runs(Protocol):
    """Who runs commands in containers."""

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str], *, limit: float) -> Outcome:
        """Run one and wait for its end."""


class Finds(Protocol):
    """Who knows the pods of a workload."""

    async def running(self, workload: Workload, *, every: bool) -> list[Pod]:
        """Those that run."""


class Abandoned(Exception):
    """Something else is wanted of the workload by now, or of somebody else."""


@dataclass(slots=True)
class _Job:
    """One workload that is brought to new certificates."""

    workload: Workload
    reload: Reload
    debts: tuple[Debt, ...]
    still: Callable[[], bool]
    began: datetime
    told: set[str]
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PODS_AT_ONCE))


class Reloads:
    """Brings workloads to new certificates by running a command in their containers."""

    def __init__(
        self,
        *,
        pods: Finds,
        executor: Runs,
        touches: Touches | None,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pods = pods
        self._executor = executor
        self._touches = touches
        self._leads = leads
        self._clock = clock
        self._sleep = sleep
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._told: dict[str, tuple[dict[str, str], set[str]]] = {}

    async def bring(self, workload: Workload, debts: tuple[Debt, ...], still: Callable[[], bool]) -> None:
        """Have every pod of ``workload`` reload these certificates.

        CommandFailed where a container did not; Abandoned where ``still`` says that they are not wanted any more.
        """
        assert workload.reload is not None  # else it would be restarted
        async with self._slots:
            job = _Job(workload, workload.reload, debts, still, self._clock(), self._told_before(workload, debts))
            self._go_on(job)
            pods = await self._pods.running(workload, every=True)
            if self._touches is not None:
                await self._touches.touch(pods, _marks(debts))
            untold = [pod for pod in pods if pod.uid not in job.told]
            outcomes = await asyncio.gather(*(self._reload(job, pod) for pod in untold), return_exceptions=True)
        # One pod that fails keeps none of the others from its signal.
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        self._told.pop(workload.uid, None)

    def _told_before(self, workload: Workload, debts: tuple[Debt, ...]) -> set[str]:
        """The pods that an attempt before this one has told: each is told once for a certificate."""
        known = self._told.get(workload.uid)
        if known is None or known[0] != _marks(debts):
            known = self._told[workload.uid] = (_marks(debts), set())
        return known[1]

    async def _reload(self, job: _Job, pod: Pod) -> None:
        async with job.slots:
            try:
                for debt in job.debts:
                    await self._until_delivered(job, pod, debt)
                for container in job.workload.consumption.chosen(job.reload, {debt.secret for debt in job.debts}):
                    self._go_on(job)
                    await self._tell(job, pod, container)
            except NotFound:
                return  # the pod or its container ended: what follows begins with the new files
            job.told.add(pod.uid)

    async def _until_delivered(self, job: _Job, pod: Pod, debt: Debt) -> None:
        """Wait until a container of the pod sees the new certificate: its containers see the same files."""
        for container, file in _files(job.workload, debt):
            while True:
                self._go_on(job)
                outcome = await self._run(pod, container, ("cat", file), limit=LONGEST_LOOK)
                if outcome.missing:
                    break  # the next container may have the program
                if outcome.exit_code == 0 and _holds(outcome.stdout, debt.mark):
                    return
                if self._clock() >= job.began + PATIENCE:
                    minutes = PATIENCE // timedelta(minutes=1)
                    raise CommandFailed(f"pod {pod.name}: {file} was not renewed within {minutes} minutes")
                await self._sleep(GLANCE)
        while (left := (job.began + BLIND - self._clock()).total_seconds()) > 0:
            self._go_on(job)
            await self._sleep(min(left, GLANCE))

    async def _tell(self, job: _Job, pod: Pod, container: str) -> None:
        program = job.reload.command[0]
        outcome = await self._run(pod, container, job.reload.command, limit=LONGEST_COMMAND)
        if outcome.exit_code == 0:
            return
        if outcome.exit_code is not None:
            words = f"{program} ended with exit code {outcome.exit_code}{_quoted(outcome.stderr)}"
        elif outcome.missing:
            words = f"there is no program {program}"
        else:
            words = f"{program} failed{_quoted(outcome.stderr or outcome.message.encode())}"
        raise CommandFailed(f"{_place(pod, container)}: {words}")

    async def _run(self, pod: Pod, container: str, command: Sequence[str], *, limit: float) -> Outcome:
        try:
            return await self._executor.run(pod.namespace, pod.name, container, command, limit=limit)
        except (CommandFailed, Unavailable) as failure:
            # A kubelet that does not answer is no reason to be back in seconds: the other pods were told.
            raise CommandFailed(f"{_place(pod, container)}: {command[0]}: {failure}") from None

    def _go_on(self, job: _Job) -> None:
        if not self._leads() or not job.still():
            raise Abandoned


def _files(workload: Workload, debt: Debt) -> list[tuple[str, str]]:
    """Containers, and where each finds the certificate. No other file is ever read."""
    mounts = workload.consumption.mounts_of(debt.secret)
    return [(mount.container, file) for mount in mounts if (file := mount.file(debt.crt))]


def _holds(pem: bytes, wanted: str) -> bool:
    try:
        return mark(parse_chain(pem).leaf.fingerprint) == wanted
    except Malformed:
        return False  # caught while it was written, or the older one's place


def _quoted(output: bytes) -> str:
    """What a command of the user's printed, for status alone: in a line of its own, which no log and no Event has."""
    text = re.sub(r"\s+", " ", output.decode(errors="replace"))
    text = "".join(letter for letter in text if letter.isprintable()).strip()[:MOST_WORDS]
    return f"\n{text}" if text and "PRIVATE KEY" not in text else ""


def _marks(debts: tuple[Debt, ...]) -> dict[str, str]:
    return {mark_key(debt.secret): debt.mark for debt in debts}


def _place(pod: Pod, container: str) -> str:
    return f"pod {pod.name}, container {container}"
