"""Which kinds have pods from a template: where each is served, where its template lies, and is it restarted?

Deployments, StatefulSets and DaemonSets are, and each custom resource with a pod template that the administrator names.
CronJobs, Jobs and bare Pods are known and never restarted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from certrenewal.domain.spec import WorkloadRef

POD = "Pod"
ARGO = "argoproj.io"

# Only custom resources have a dot in their group: what Kubernetes itself has is known, or is no workload.
_RESOURCE = re.compile(
    r"(?P<group>(?=.{1,253}/)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+)"
    r"/(?P<version>v[0-9]+((alpha|beta)[0-9]+)?)"
    r"/(?P<plural>[a-z]([-a-z0-9]{0,61}[a-z0-9])?)"
)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A kind as the API server serves it."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.api_version}/{self.plural}"

    @property
    def api_version(self) -> str:
        """As objects of the kind name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of one object or, without a name, of the collection."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True, slots=True)
class Owner:
    """The object whose controller made a workload and would undo what is changed in it."""

    ref: WorkloadRef
    uid: str


BUILT_IN: Mapping[str, Resource] = {
    "Deployment": Resource("apps", "v1", "deployments"),
    "StatefulSet": Resource("apps", "v1", "statefulsets"),
    "DaemonSet": Resource("apps", "v1", "daemonsets"),
    "CronJob": Resource("batch", "v1", "cronjobs"),
    "Job": Resource("batch", "v1", "jobs"),
    POD: Resource("", "v1", "pods"),
}

# Pods are too many to be watched.
WATCHED = tuple(resource for kind, resource in BUILT_IN.items() if kind != POD)

NOT_RESTARTED: Mapping[str, str] = {
    "CronJob": "takes the certificate at its next run",
    "Job": "a Job is not restarted: its next run takes the new certificate",
    POD: "a bare Pod is not restarted: delete it and create it again",
}


def parse_resource(text: str) -> Resource:
    """Read ``argoproj.io/v1alpha1/rollouts``; ValueError says what would be right."""
    match = _RESOURCE.fullmatch(text)
    if match is None:
        remedy = "write group/version/resource of a custom resource, such as argoproj.io/v1alpha1/rollouts"
        raise ValueError(f"{text[:200]!r} cannot be read: {remedy}")
    return Resource(match["group"], match["version"], match["plural"])


def kind_word(kind: str, group: str) -> str:
    """The kind as users read and write it: with its group where Kubernetes has another kind of that name."""
    return f"{kind}.{group}" if kind in BUILT_IN and BUILT_IN[kind].group != group else kind


def template_of(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod template of a workload; empty where it has none."""
    spec = body.get("spec") or {}
    if kind == POD:
        return {"metadata": body["metadata"], "spec": spec}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = spec.get("template")
    return template if isinstance(template, Mapping) else {}


def owner_of(metadata: Mapping[str, Any]) -> Owner | None:
    """The controller that a workload belongs to."""
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            group = str(reference["apiVersion"]).rpartition("/")[0]
            return Owner(WorkloadRef(kind_word(reference["kind"], group), reference["name"]), reference["uid"])
    return None


def is_over(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether a Job or Pod need not be named: nothing of it runs, or the object that made it is named in its place."""
    owner, status = owner_of(body["metadata"]), body.get("status") or {}
    if kind == "Job":
        return not status.get("active") or (owner is not None and owner.ref.kind == "CronJob")
    return kind == POD and (owner is not None or status.get("phase") in ("Succeeded", "Failed"))
