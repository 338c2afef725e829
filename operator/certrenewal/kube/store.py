"""What is read from and written to the cluster: Secrets, CertRenewals, CertAuthorities, pod templates, Events."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from certrenewal.domain.authority import SecretKeyRef
from certrenewal.domain.kinds import Resource
from certrenewal.domain.rollout import Workload
from certrenewal.domain.status import timestamp
from certrenewal.kube.client import APPLY, MERGE, Client, Object
from certrenewal.kube.errors import Conflict, NotFound

GROUP = "certrenewal.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "certrenewal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One Secret as it was read. Its data stays out of the repr."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    immutable: bool
    annotations: Mapping[str, str]
    data: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The object that an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class Store:
    """Reads and writes, each of them safe to repeat."""

    def __init__(self, client: Client, *, reporter: str) -> None:
        self._client = client
        self._reporter = reporter

    async def read_secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret, None where it does not exist."""
        try:
            return _secret(await self._client.request("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}"))
        except NotFound:
            return None

    async def read_password(self, reference: SecretKeyRef) -> bytes | None:
        """The value that a reference points to, without a trailing newline; None where there is none."""
        secret = await self.read_secret(reference.namespace, reference.name)
        value = secret.data.get(reference.key) if secret else None
        return value.rstrip(b"\r\n") if value else None

    async def write_secret(self, secret: Secret, data: Mapping[str, bytes | None]) -> str:
        """Set these keys (None: remove) in one patch and nothing else; the new resourceVersion.

        Conflict if it changed since it was read: what it holds already need not be sent.
        """
        body = {
            "metadata": {"uid": secret.uid, "resourceVersion": secret.resource_version},
            "data": _encoded({key: value for key, value in data.items() if secret.data.get(key) != value}),
        }
        path = f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}?fieldManager={MANAGER}"
        answer = await self._client.request("PATCH", path, body=body, content_type=MERGE)
        return str(answer["metadata"]["resourceVersion"])

    async def create_secret(self, namespace: str, name: str, data: Mapping[str, bytes | None], *, tls: bool) -> Secret:
        """A new Secret, of type kubernetes.io/tls where it has that type's keys; Conflict where it exists."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/tls" if tls else "Opaque",
            "data": _encoded(data),
        }
        path = f"/api/v1/namespaces/{namespace}/secrets?fieldManager={MANAGER}"
        return _secret(await self._client.request("POST", path, body=body))

    async def review_token(self, token: str, audience: str) -> str | None:
        """The name of the user whose token this is, for this audience; None where it is nobody's."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        answer = await self._client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body)
        status = answer.get("status") or {}
        # An authenticator that knows no audiences answers without them: its word is for the API server alone.
        if not status.get("authenticated") or audience not in (status.get("audiences") or ()):
            return None
        return str((status.get("user") or {}).get("username", ""))

    async def apply_renewal(self, namespace: str, name: str, *, owner_uid: str, spec: Mapping[str, Any]) -> Object:
        """The CertRenewal of an annotated Secret, owned by it (server-side apply)."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "CertRenewal",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": owner_uid, "controller": True}
                ],
            },
            "spec": spec,
        }
        query = {"fieldManager": MANAGER, "force": "true"}
        path = _renewal(namespace, name)
        return await self._client.request("PATCH", path, query=query, body=body, content_type=APPLY)

    async def delete_renewal(self, namespace: str, name: str, uid: str) -> None:
        """Delete just this CertRenewal; nothing where it is gone or another has its name."""
        with contextlib.suppress(NotFound, Conflict):
            await self._client.request("DELETE", _renewal(namespace, name), body={"preconditions": {"uid": uid}})

    async def put_config_map(self, namespace: str, name: str, content: Object, *, uid: str | None) -> Object:
        """Create a ConfigMap, or change the one of that uid; Conflict where it is another by now."""
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        metadata = {**content["metadata"], "name": name, **({"uid": uid} if uid else {})}
        body = {**content, "metadata": metadata}
        if uid is None:
            whole = {"apiVersion": "v1", "kind": "ConfigMap", **body}
            return await self._client.request("POST", f"{path}?fieldManager={MANAGER}", body=whole)
        return await self._client.request(
            "PATCH", f"{path}/{name}?fieldManager={MANAGER}", body=body, content_type=MERGE
        )

    async def delete_config_map(self, namespace: str, name: str, uid: str) -> None:
        """Delete just this ConfigMap."""
        with contextlib.suppress(NotFound, Conflict):
            path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
            await self._client.request("DELETE", path, body={"preconditions": {"uid": uid}})

    async def set_finalizers(self, namespace: str, name: str, uid: str, version: int, finalizers: list[str]) -> Object:
        """Set the finalizers of this very CertRenewal; Conflict if it changed since."""
        body = {"metadata": {"uid": uid, "resourceVersion": str(version), "finalizers": finalizers}}
        path = f"{_renewal(namespace, name)}?fieldManager={MANAGER}"
        return await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def write_status(self, namespace: str, name: str, uid: str, patch: Mapping[str, Any]) -> Object:
        """Merge a patch into the status of this very CertRenewal."""
        body = {"metadata": {"uid": uid}, "status": patch}
        path = f"{_renewal(namespace, name)}/status?fieldManager={MANAGER}"
        return await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def write_authority_status(self, name: str, uid: str, patch: Mapping[str, Any]) -> Object:
        """Merge a patch into the status of this very CertAuthority."""
        path = f"/apis/{API_VERSION}/certauthorities/{name}/status?fieldManager={MANAGER}"
        body = {"metadata": {"uid": uid}, "status": patch}
        return await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def mark_template(self, workload: Workload, marks: Mapping[str, str]) -> Object:
        """Write certificate marks into a pod template: a rollout where they are new, nothing where they are not."""
        path = f"{_workload(workload)}?fieldManager={MANAGER}"
        body = {"metadata": {"uid": workload.uid}, "spec": {"template": {"metadata": {"annotations": dict(marks)}}}}
        return await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def probe(self, resource: Resource, namespace: str) -> None:
        """Whether objects of a kind can be listed; NotFound where it is not installed."""
        await self._client.metadata("GET", resource.path(namespace), query={"limit": "1"})

    async def read_service(self, namespace: str, name: str) -> Object | None:
        """The Service, None where it does not exist."""
        try:
            return await self._client.request("GET", f"/api/v1/namespaces/{namespace}/services/{name}")
        except NotFound:
            return None

    async def list_endpoint_slices(self, namespace: str, service: str) -> list[Object]:
        """The EndpointSlices of a Service."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        query = {"labelSelector": f"kubernetes.io/service-name={service}"}
        answer = await self._client.request("GET", path, query=query)
        return list(answer.get("items") or ())

    async def mark_workload(self, workload: Workload, marks: Mapping[str, str]) -> Object:
        """Write certificate marks on a workload itself, beside its pod template: nothing is rolled out."""
        path = f"{_workload(workload)}?fieldManager={MANAGER}"
        body = {"metadata": {"uid": workload.uid, "annotations": dict(marks)}}
        return await self._client.request("PATCH", path, body=body, content_type=MERGE)

    async def post_event(self, subject: Subject, *, warning: bool, reason: str, message: str, at: datetime) -> None:
        """One Event about an object; that of a cluster-wide object goes to namespace default."""
        namespace = subject.namespace or "default"
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{subject.name[:200]}.", "namespace": namespace},
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "name": subject.name,
                "uid": subject.uid,
                **({"namespace": subject.namespace} if subject.namespace else {}),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:1024],
            "source": {"component": MANAGER, "host": self._reporter},
            "reportingComponent": GROUP,
            "reportingInstance": self._reporter,
            "firstTimestamp": timestamp(at),
            "lastTimestamp": timestamp(at),
            "count": 1,
        }
        await self._client.request("POST", f"/api/v1/namespaces/{namespace}/events", body=body)


def _workload(workload: Workload) -> str:
    return workload.resource.path(workload.namespace, workload.ref.name)


def _renewal(namespace: str, name: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/certrenewals/{name}"


def _encoded(data: Mapping[str, bytes | None]) -> dict[str, str | None]:
    return {key: None if value is None else base64.b64encode(value).decode() for key, value in data.items()}


def _secret(body: Object) -> Secret:
    metadata = body["metadata"]
    return Secret(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        immutable=bool(body.get("immutable", False)),
        annotations=metadata.get("annotations") or {},
        data={key: _decoded(value) for key, value in (body.get("data") or {}).items()},
    )


def _decoded(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except binascii.Error:
        return b""
