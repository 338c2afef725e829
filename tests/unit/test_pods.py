"""Guards: a pod is taken for a workload's own only where the workload controls it, and is patched once for a mark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from certrenewal.domain.reload import Consumption
from certrenewal.domain.rollout import Workload
from certrenewal.kube.client import Client
from certrenewal.kube.errors import ClusterError, Conflict, NotFound, Rejected
from certrenewal.kube.pods import Pod, Pods
from tests.unit.builders import a_workload


class Api:
    """An API server with pages of pods."""

    def __init__(self, *pages: list[dict[str, Any]], failure: ClusterError | None = None) -> None:
        self._pages = pages
        self._failure = failure
        self.requests: list[tuple[str, str, Any]] = []

    async def metadata(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "",
    ) -> dict[str, Any]:
        self.requests.append((method, path, dict(query) if query else body))
        if self._failure is not None:
            raise self._failure
        if method != "GET":
            return {}
        page = int((query or {}).get("continue", "0"))
        more = {"continue": str(page + 1)} if page + 1 < len(self._pages) else {}
        return {"metadata": more, "items": [{"metadata": about} for about in self._pages[page]] or None}

    @property
    def pods(self) -> Pods:
        return Pods(cast("Client", self))


def a_pod(name: str = "web-1", *, owner: tuple[str, str] = ("web-5f7", "r1"), **more: Any) -> dict[str, Any]:
    owners = [{"kind": "ReplicaSet", "name": owner[0], "uid": owner[1], "controller": True}]
    return {"namespace": "shop", "name": name, "uid": f"uid-{name}", "ownerReferences": owners, **more}


def selecting(text: str = "app=web") -> Workload:
    return a_workload(consumption=Consumption(selector=text))


@pytest.mark.parametrize(
    ("about", "own"),
    [
        pytest.param(a_pod(), True, id="by a ReplicaSet"),
        pytest.param(a_pod(owner=("whatever", "w1")), True, id="directly"),
        pytest.param(a_pod(owner=("other-5f7", "r9")), False, id="another's"),
        pytest.param(a_pod(ownerReferences=None), False, id="nobody's"),
        pytest.param(a_pod(ownerReferences=[{"name": "web-5f7", "uid": "r1"}]), False, id="owned but not controlled"),
        pytest.param(a_pod(deletionTimestamp="2026-03-01T12:00:00Z"), False, id="on its way out"),
    ],
)
async def test_whose_pod_it_is(about: dict[str, Any], own: bool) -> None:
    found = await Api([about]).pods.running(selecting(), every=True)

    assert [pod.name for pod in found] == (["web-1"] if own else [])


async def test_running_pods_are_asked_for_by_the_workloads_selector() -> None:
    api = Api([])

    assert await api.pods.running(selecting("app=web,!old"), every=True) == []

    query = {"labelSelector": "app=web,!old", "fieldSelector": "status.phase=Running", "limit": "100"}
    assert api.requests == [("GET", "/api/v1/namespaces/shop/pods", query)]


async def test_a_workload_without_selector_has_no_pods_rather_than_all() -> None:
    api = Api([a_pod()])

    assert await api.pods.running(selecting(""), every=True) == []
    assert api.requests == []


@pytest.mark.parametrize(("every", "names"), [(True, ["web-1", "web-2"]), (False, ["web-1"])])
async def test_pages_are_read_where_every_pod_is_wanted(every: bool, names: list[str]) -> None:
    found = await Api([a_pod("web-1")], [a_pod("web-2")]).pods.running(selecting(), every=every)

    assert [pod.name for pod in found] == names


async def test_a_pod_is_patched_once_for_a_mark() -> None:
    api = Api()
    pod = Pod(namespace="shop", name="web-1", uid="u1", annotations={"a": "1"})

    await api.pods.touch(pod, {"a": "1"})
    await api.pods.touch(pod, {"a": "2"})

    path = "/api/v1/namespaces/shop/pods/web-1?fieldManager=certrenewal"
    assert api.requests == [("PATCH", path, {"metadata": {"uid": "u1", "annotations": {"a": "2"}}})]


@pytest.mark.parametrize("failure", [NotFound("gone"), Conflict("another of that name")])
async def test_a_pod_that_is_gone_is_no_failure(failure: ClusterError) -> None:
    pod = Pod(namespace="shop", name="web-1", uid="u1", annotations={})

    await Api(failure=failure).pods.touch(pod, {"a": "1"})


async def test_a_pod_that_may_not_be_touched_is_one() -> None:
    pod = Pod(namespace="shop", name="web-1", uid="u1", annotations={})

    with pytest.raises(Rejected):
        await Api(failure=Rejected("403")).pods.touch(pod, {"a": "1"})
