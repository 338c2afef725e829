"""Guards: a command runs in each pod once its files are there, one failure keeps no other pod from it, and is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from certrenewal.controller import reloads
from certrenewal.controller.owed import Debt
from certrenewal.controller.reloads import Abandoned, Reloads
from certrenewal.controller.touches import Touches
from certrenewal.domain.certificate import parse_chain
from certrenewal.domain.reload import Consumption, Mount, Reload
from certrenewal.domain.rollout import State, Workload, mark, mark_key
from certrenewal.domain.status import Ran, Standing
from certrenewal.kube.errors import ClusterError, NotFound, Rejected, Unavailable
from certrenewal.kube.exec import CommandFailed, Outcome
from certrenewal.kube.pods import Pod
from tests.unit.builders import NOON, WEB, a_workload, an_intermediate

OLD, NEW = (an_intermediate().bundle(an_intermediate().leaf()) for _ in range(2))
MARK = mark(parse_chain(NEW).leaf.fingerprint)
NO_CAT = Outcome(exit_code=None, message='exec: "cat": executable file not found in $PATH')
DONE = Outcome(exit_code=0)


@dataclass
class Cluster:
    """Pods, what their containers say, and time that passes only while somebody waits."""

    pods: list[str] = field(default_factory=lambda: ["web-1", "web-2"])
    delivered: timedelta = timedelta(seconds=5)  # when the kubelet brings the files
    cat: Outcome | None = None  # instead of the files
    says: dict[str, Outcome | ClusterError] = field(default_factory=dict)  # to the command, by pod
    leads: bool = True
    now: datetime = NOON
    ran: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    looked: list[tuple[str, str, str]] = field(default_factory=list)
    touched: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    most: int = 0
    _running: int = 0

    async def running(self, workload: Workload, *, every: bool) -> list[Pod]:
        return [Pod(namespace="shop", name=name, uid=f"uid-{name}", annotations={}) for name in self.pods]

    async def touch(self, pod: Pod, marks: Mapping[str, str]) -> None:
        self.touched.append((pod.name, dict(marks)))

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str], *, limit: float) -> Outcome:
        self._running += 1
        self.most = max(self.most, self._running)
        await asyncio.sleep(0)
        self._running -= 1
        if pod not in self.pods:
            raise NotFound(f"pods {pod} not found")
        if command[0] == "cat":
            self.looked.append((pod, container, command[1]))
            return self.cat or Outcome(exit_code=0, stdout=NEW if self.now >= NOON + self.delivered else OLD)
        self.ran.append((pod, container, tuple(command)))
        answer = self.says.get(pod, DONE)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    def told(self) -> list[str]:
        """The pods that a command ran in."""
        return sorted(pod for pod, _, _ in self.ran)

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    def reloads(self, *, touch: bool = True) -> Reloads:
        return Reloads(
            pods=self,
            executor=self,
            touches=Touches(self, lambda: self.leads) if touch else None,
            leads=lambda: self.leads,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def signalled(**changes: Any) -> Workload:
    consumption = {
        "selector": "app=web",
        "containers": ("main", "side"),
        "mounts": (Mount(secret="web-tls", container="main", path="/certs"),),
        **changes,
    }
    return a_workload(reload=Reload(command=("kill", "-s", "HUP", "1")), consumption=Consumption(**consumption))


def a_debt(secret: str = "web-tls", crt: str = "tls.crt") -> Debt:
    standing = Standing(ref=WEB, state=State.PENDING, runs=Ran("a"))
    return Debt(secret=secret, mark=MARK, standing=standing, by_hand=False, crt=crt)


async def bring(
    parts: Reloads, workload: Workload | None = None, *debts: Debt, still: Callable[[], bool] = lambda: True
) -> None:
    await parts.bring(workload or signalled(), debts or (a_debt(),), still)


# -- what is done, in which order --------------------------------------------------------------------------------------


async def test_every_pod_is_touched_then_waited_for_then_told(cluster: Cluster) -> None:
    await bring(cluster.reloads())

    assert cluster.touched == [(pod, {mark_key("web-tls"): MARK}) for pod in ("web-1", "web-2")]
    assert set(cluster.looked) == {(pod, "main", "/certs/tls.crt") for pod in ("web-1", "web-2")}
    assert sorted(cluster.ran) == [(pod, "main", ("kill", "-s", "HUP", "1")) for pod in ("web-1", "web-2")]
    assert cluster.now >= NOON + cluster.delivered


async def test_no_pod_is_touched_where_that_is_not_granted(cluster: Cluster) -> None:
    await bring(cluster.reloads(touch=False))

    assert cluster.touched == []
    assert len(cluster.ran) == 2


async def test_the_key_is_never_read(cluster: Cluster) -> None:
    mounts = (Mount(secret="web-tls", container="main", path="/certs", items=(("tls.key", "key"), ("chain.pem", "c"))),)

    await bring(cluster.reloads(), signalled(mounts=mounts), a_debt(crt="chain.pem"))

    assert {file for _, _, file in cluster.looked} == {"/certs/c"}


async def test_a_workload_without_pods_has_nobody_to_tell(cluster: Cluster) -> None:
    cluster.pods = []

    await bring(cluster.reloads())

    assert cluster.ran == []


async def test_all_certificates_are_waited_for_before_one_signal(cluster: Cluster) -> None:
    mounts = tuple(Mount(secret=name, container="main", path=f"/{name}") for name in ("web-tls", "db-tls"))
    cluster.pods = ["web-1"]

    await bring(cluster.reloads(), signalled(mounts=mounts), a_debt(), a_debt("db-tls"))

    assert {file for _, _, file in cluster.looked} == {"/web-tls/tls.crt", "/db-tls/tls.crt"}
    assert len(cluster.ran) == 1


async def test_pods_are_asked_a_few_at_a_time(cluster: Cluster) -> None:
    cluster.pods = [f"web-{number}" for number in range(40)]

    await bring(cluster.reloads())

    assert len(cluster.ran) == 40
    assert cluster.most <= reloads.PODS_AT_ONCE


async def test_workloads_do_not_wait_for_one_another(cluster: Cluster) -> None:
    parts = cluster.reloads()

    await asyncio.gather(*(bring(parts) for _ in range(3)))

    assert len(cluster.ran) == 6


# -- files that do not come --------------------------------------------------------------------------------------------


async def test_files_that_do_not_come_are_told(cluster: Cluster) -> None:
    cluster.delivered = timedelta(hours=1)

    with pytest.raises(CommandFailed, match=r"pod web-1: /certs/tls\.crt was not renewed within 3 minutes"):
        await bring(cluster.reloads())

    assert cluster.ran == []
    assert cluster.now < NOON + timedelta(minutes=4)


@pytest.mark.parametrize("output", [b"", b"-----BEGIN CERTIFICATE-----\nhalf", b"\xff\xfe"])
async def test_a_file_that_cannot_be_read_is_not_there_yet(cluster: Cluster, output: bytes) -> None:
    cluster.cat = Outcome(exit_code=0, stdout=output)

    with pytest.raises(CommandFailed, match="was not renewed"):
        await bring(cluster.reloads())


async def test_a_container_without_cat_gives_the_kubelet_its_time_once(cluster: Cluster) -> None:
    cluster.cat = NO_CAT
    cluster.pods = [f"web-{number}" for number in range(12)]

    await bring(cluster.reloads())

    assert len(cluster.ran) == 12
    assert NOON + reloads.BLIND <= cluster.now < NOON + 2 * reloads.BLIND


async def test_another_container_may_have_the_program(cluster: Cluster) -> None:
    mounts = tuple(Mount(secret="web-tls", container=name, path="/certs") for name in ("main", "side"))
    plain = cluster.run

    async def run(namespace: str, pod: str, container: str, command: Sequence[str], *, limit: float) -> Outcome:
        return (
            NO_CAT
            if command[0] == "cat" and container == "main"
            else await plain(namespace, pod, container, command, limit=limit)
        )

    cluster.run = run  # type: ignore[method-assign]
    cluster.pods = ["web-1"]

    await bring(cluster.reloads(), signalled(mounts=mounts))

    assert [container for _, container, _ in cluster.ran] == ["main", "side"]
    assert cluster.now < NOON + timedelta(seconds=10)


# -- what fails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Outcome(exit_code=3), "kill ended with exit code 3"),
        (Outcome(exit_code=3, stderr=b"no\n such\tprocess\x07\n"), "kill ended with exit code 3\nno such process"),
        (Outcome(exit_code=1, stderr=b"x" * 999), f"kill ended with exit code 1\n{'x' * 200}"),
        (Outcome(exit_code=1, stderr=b"-----BEGIN PRIVATE KEY-----\nMIG"), "kill ended with exit code 1"),
        (Outcome(exit_code=None, message='exec: "kill": executable file not found'), "there is no program kill"),
        (Outcome(exit_code=None, message="not now"), "kill failed\nnot now"),
        (CommandFailed("it did not end within 30 s"), "kill: it did not end within 30 s"),
        (Unavailable("GET …/exec: 500 dial tcp"), "kill: GET …/exec: 500 dial tcp"),
    ],
)
async def test_a_command_that_fails_names_its_place_and_keeps_no_pod_from_its_signal(
    cluster: Cluster, answer: Outcome | ClusterError, words: str
) -> None:
    cluster.says["web-1"] = answer

    with pytest.raises(CommandFailed) as failure:
        await bring(cluster.reloads())

    assert str(failure.value) == f"pod web-1, container main: {words}"
    assert cluster.told() == ["web-1", "web-2"]


async def test_a_right_that_is_missing_is_told_in_the_servers_words(cluster: Cluster) -> None:
    cluster.says["web-1"] = Rejected("GET …/exec: 403 forbidden")

    with pytest.raises(Rejected, match="403 forbidden"):
        await bring(cluster.reloads())


async def test_another_attempt_tells_only_those_that_were_not_told(cluster: Cluster) -> None:
    parts = cluster.reloads()
    cluster.says["web-1"] = Outcome(exit_code=1)
    with pytest.raises(CommandFailed):
        await bring(parts)
    cluster.ran.clear()
    cluster.says.clear()

    await bring(parts)
    again = [pod for pod, _, _ in cluster.ran]
    await bring(parts)

    assert again == ["web-1"]
    assert cluster.told() == ["web-1", "web-1", "web-2"]


async def test_pods_that_go_meanwhile_need_no_signal(cluster: Cluster) -> None:
    async def sleep(seconds: float) -> None:
        cluster.now += timedelta(seconds=seconds)
        cluster.pods = ["web-2", "web-3"]
        await asyncio.sleep(0)

    cluster.sleep = sleep  # type: ignore[method-assign]

    await bring(cluster.reloads())

    assert [pod for pod, _, _ in cluster.ran] == ["web-2"]


async def test_a_pod_that_cannot_be_touched_is_waited_for_all_the_same(cluster: Cluster) -> None:
    async def touch(pod: Pod, marks: Mapping[str, str]) -> None:
        raise Rejected("PATCH …: 403")

    cluster.touch = touch  # type: ignore[method-assign]

    await bring(cluster.reloads())

    assert len(cluster.ran) == 2


# -- what is wanted no more --------------------------------------------------------------------------------------------


async def test_who_leads_no_more_tells_nobody(cluster: Cluster) -> None:
    async def sleep(seconds: float) -> None:
        cluster.leads = False

    cluster.sleep = sleep  # type: ignore[method-assign]

    with pytest.raises(Abandoned):
        await bring(cluster.reloads())

    assert cluster.ran == []


async def test_a_newer_certificate_ends_the_wait_for_an_older_one(cluster: Cluster) -> None:
    cluster.delivered = timedelta(hours=1)

    with pytest.raises(Abandoned):
        await bring(cluster.reloads(), still=lambda: cluster.now < NOON + timedelta(seconds=10))

    assert cluster.ran == []
    assert cluster.now < NOON + timedelta(seconds=15)


# -- touching in the background ----------------------------------------------------------------------------------------


async def settled(parts: Touches) -> None:
    """Wait until nothing is under way."""
    await asyncio.gather(*parts._tasks)


async def test_pods_with_files_of_the_secret_are_touched(cluster: Cluster) -> None:
    parts = Touches(cluster, lambda: True)

    parts.soon(signalled(), "web-tls", MARK)
    parts.soon(signalled(), "another-tls", MARK)
    parts.soon(a_workload(), "web-tls", MARK)
    await settled(parts)

    assert cluster.touched == [(pod, {mark_key("web-tls"): MARK}) for pod in ("web-1", "web-2")]


async def test_a_list_that_fails_is_no_more_than_logged(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    async def running(workload: Workload, *, every: bool) -> list[Pod]:
        raise Rejected("GET …: 403")

    cluster.running = running  # type: ignore[method-assign]
    parts = Touches(cluster, lambda: True)

    parts.soon(signalled(), "web-tls", MARK)
    await settled(parts)

    assert [record.getMessage() for record in caplog.records] == ["pods not touched"]


async def test_who_leads_no_more_touches_nothing(cluster: Cluster) -> None:
    parts = Touches(cluster, lambda: False)

    parts.soon(signalled(), "web-tls", MARK)
    await settled(parts)

    assert cluster.touched == []


async def test_closing_leaves_the_rest_untouched(cluster: Cluster) -> None:
    parts = Touches(cluster, lambda: True)
    for _ in range(20):
        parts.soon(signalled(), "web-tls", MARK)

    await parts.close()

    assert cluster.touched == []
