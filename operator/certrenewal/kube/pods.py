"""Which pods run for a workload, and how are they touched: metadata alone, one list and one small patch each."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.domain.rollout import Workload
from certrenewal.kube.client import MERGE, Client
from certrenewal.kube.errors import Conflict, NotFound

PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One running pod."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]


class Pods:
    """Reads and touches pods."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def running(self, workload: Workload, *, every: bool) -> list[Pod]:
        """The running pods of a workload; not ``every``: the first hundred of them."""
        if not workload.consumption.selector:
            return []
        query = {
            "labelSelector": workload.consumption.selector,
            "fieldSelector": "status.phase=Running",
            "limit": str(PAGE),
        }
        path = f"/api/v1/namespaces/{workload.namespace}/pods"
        found: list[Pod] = []
        while True:
            answer = await self._client.metadata("GET", path, query=query)
            listed = [item["metadata"] for item in answer.get("items") or ()]
            found += [_pod(about) for about in listed if _is_in_service(about, workload)]
            token = (answer.get("metadata") or {}).get("continue")
            if not token or not every:
                return found
            query["continue"] = token

    async def bare(self, namespace: str) -> list[Mapping[str, Any]]:
        """The Pods of a namespace that no controller has made and that have not ended, as a whole."""
        query = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed", "limit": str(PAGE)}
        found: list[Mapping[str, Any]] = []
        while True:
            answer = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/pods", query=query)
            for body in answer.get("items") or ():
                about = body["metadata"]
                if not about.get("ownerReferences") and not about.get("deletionTimestamp"):
                    found.append(body)
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def touch(self, pod: Pod, marks: Mapping[str, str]) -> None:
        """Annotate a pod, which makes its kubelet look at once whether its Secrets changed."""
        if all(pod.annotations.get(key) == mark for key, mark in marks.items()):
            return
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}?fieldManager=certrenewal"
        body = {"metadata": {"uid": pod.uid, "annotations": dict(marks)}}
        with contextlib.suppress(NotFound, Conflict):  # it is gone: the next one begins with the new files
            await self._client.metadata("PATCH", path, body=body, content_type=MERGE)


def _pod(about: Mapping[str, Any]) -> Pod:
    return Pod(
        namespace=about["namespace"],
        name=about["name"],
        uid=about["uid"],
        annotations=about.get("annotations") or {},
    )


def _is_in_service(about: Mapping[str, Any], workload: Workload) -> bool:
    """Whether a workload controls a pod, itself or by a set of replicas that is named after it, and goes on with it.

    Labels alone could lead a command into somebody else's pods.
    """
    if about.get("deletionTimestamp"):
        return False
    for owner in about.get("ownerReferences") or ():
        if owner.get("controller"):
            return bool(owner["uid"] == workload.uid or owner["name"].startswith(f"{workload.ref.name}-"))
    return False
