"""How do tests talk to the Kubernetes API: a small synchronous JSON client on the standard library alone."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Manifest = dict[str, Any]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class ApiError(RuntimeError):
    """The API server refused: HTTP status and body."""

    def __init__(self, status: int, body: str, request: str = "") -> None:
        """Keep both for the test to look at."""
        super().__init__(f"{request}: {status} {body}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind that the API serves."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of one object or, without a name, of the collection."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{base}{scope}/{self.plural}" + (f"/{name}" if name else "")


class Api:
    """One account's view of one API server; safe to use from several threads."""

    def __init__(self, server: str, ca_file: Path, token: str) -> None:
        """Connect on first use."""
        address = urllib.parse.urlsplit(server)
        self._host, self._port = address.hostname or "", address.port or 443
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._token = token
        self._local = threading.local()
        self._connections: list[http.client.HTTPSConnection] = []
        self._resources: list[Resource] = []

    def __enter__(self) -> Self:
        """Nothing to open: connections are made on first use."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connections of every thread; another request would open one again."""
        for connection in self._connections:
            connection.close()

    def raw(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> str:
        """One request; the body of the answer, or ApiError."""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": accept, "Content-Type": content_type}
        sent = None if body is None else json.dumps(body).encode()
        for again in (True, False):
            connection = self._connection()
            try:
                connection.request(method, path, sent, headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                if not again:
                    raise
        if answer.status >= http.client.BAD_REQUEST:
            raise ApiError(answer.status, text, f"{method} {path}")
        return text

    def api(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Manifest:
        """One request; the JSON object of the answer, or ApiError."""
        answer: Manifest = json.loads(self.raw(method, path, body, content_type))
        return answer

    def create(self, manifest: Manifest) -> Manifest:
        """POST the object."""
        resource, namespace, _ = self._place(manifest)
        return self.api("POST", resource.path(namespace), manifest)

    def apply(self, manifest: Manifest, *, manager: str = "testbed") -> Manifest:
        """Server-side apply, taking over what others own."""
        resource, namespace, name = self._place(manifest)
        query = f"?fieldManager={manager}&force=true"
        return self.api("PATCH", resource.path(namespace, name) + query, manifest, APPLY)

    def replace(self, manifest: Manifest) -> Manifest:
        """PUT the object."""
        return self.api("PUT", self.path_of(manifest), manifest)

    def get(self, plural: str, namespace: str, name: str) -> Manifest:
        """One object; ``plural`` such as ``secrets`` or ``deployments.apps``, namespace "" for cluster scope."""
        return self.api("GET", self.resource(plural).path(namespace, name))

    def find(self, plural: str, namespace: str, name: str) -> Manifest | None:
        """One object, None where it does not exist."""
        try:
            return self.get(plural, namespace, name)
        except ApiError as failure:
            if failure.status == http.client.NOT_FOUND:
                return None
            raise

    def objects(self, plural: str, namespace: str = "", labels: str = "") -> list[Manifest]:
        """All objects of a kind, with apiVersion and kind filled in."""
        resource = self.resource(plural)
        query = f"?labelSelector={urllib.parse.quote(labels)}" if labels else ""
        answer = self.api("GET", resource.path(namespace) + query)
        about = {"apiVersion": answer["apiVersion"], "kind": resource.kind}
        return [{**about, **item} for item in answer["items"]]

    def delete(self, plural: str, namespace: str, name: str, *, propagation: str = "Background") -> Manifest:
        """Delete one object."""
        path = self.resource(plural).path(namespace, name)
        return self.api("DELETE", path, {"propagationPolicy": propagation})

    def merge_patch(
        self, plural: str, namespace: str, name: str, patch: Manifest, *, subresource: str = ""
    ) -> Manifest:
        """JSON merge patch on the object or a subresource."""
        path = self.resource(plural).path(namespace, name) + (f"/{subresource}" if subresource else "")
        return self.api("PATCH", path, patch, MERGE)

    def annotate(self, plural: str, namespace: str, name: str, **annotations: str | None) -> Manifest:
        """Set annotations under ``certrenewal.dev/`` (``renew_now=`` is ``renew-now``); None removes one."""
        values = {f"certrenewal.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        return self.merge_patch(plural, namespace, name, {"metadata": {"annotations": values}})

    def events(self, namespace: str, name: str = "") -> list[Manifest]:
        """The Events (events.k8s.io) about objects of that name, oldest first."""
        found = self.objects("events.events.k8s.io", namespace)
        about = [event for event in found if not name or event.get("regarding", {}).get("name") == name]
        return sorted(about, key=lambda event: str(event["metadata"]["creationTimestamp"]))

    def path_of(self, manifest: Manifest) -> str:
        """The path of the object that the manifest describes."""
        resource, namespace, name = self._place(manifest)
        return resource.path(namespace, name)

    def resource(self, plural: str) -> Resource:
        """The kind of that name; a name that two groups use gives the first (core, then apps)."""
        name, _, group = plural.partition(".")
        for resource in self._known_then_fresh():
            if resource.plural == name and group in ("", resource.group):
                return resource
        raise LookupError(f"the API server has no resource {plural!r}")

    def _place(self, manifest: Manifest) -> tuple[Resource, str, str]:
        group, _, version = str(manifest["apiVersion"]).rpartition("/")
        about = manifest["metadata"]
        for resource in self._known_then_fresh():
            if (resource.group, resource.version, resource.kind) == (group, version, manifest["kind"]):
                namespace = about.get("namespace", "default") if resource.namespaced else ""
                return resource, namespace, about.get("name", "")
        raise LookupError(f"the API server has no {manifest['apiVersion']} {manifest['kind']}")

    def _known_then_fresh(self) -> Iterator[Resource]:
        yield from self._resources
        self._resources = [*self._discover("/api"), *self._discover("/apis")]
        yield from self._resources

    def _discover(self, root: str) -> Iterator[Resource]:
        groups = json.loads(self.raw("GET", root, accept=_DISCOVERY))["items"]
        for group in groups:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                yield from (
                    Resource(
                        group=name,
                        version=version["version"],
                        kind=found["responseKind"]["kind"],
                        plural=found["resource"],
                        namespaced=found["scope"] == "Namespaced",
                    )
                    for found in version.get("resources", ())
                    if "responseKind" in found
                )

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=30, context=self._context)
            self._local.connection = connection
            self._connections.append(connection)
        return connection


def write_kubeconfig(path: Path, *, server: str, ca_file: Path, token: str, namespace: str = "default") -> Path:
    """A kubeconfig (JSON is YAML too) for one account."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "account", "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "account", "namespace": namespace}}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path
