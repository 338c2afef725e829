"""How does a request reach the API server: one session with the account's rights, plain JSON in and out."""

from __future__ import annotations

import functools
import json
import os
import ssl
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config as kubeconfig

from certrenewal import metrics
from certrenewal.kube.depth import loads
from certrenewal.kube.errors import ClusterError, Conflict, Forbidden, NotFound, Rejected, Unavailable

# Below the time that a leader trusts its Lease: a write that is under way when the Lease is lost ends with it.
TIMEOUT = aiohttp.ClientTimeout(total=8, sock_connect=5)
CONNECTIONS = 32

JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
METADATA: Final = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Object = dict[str, Any]
Configuration = kubernetes.Configuration


async def load_configuration() -> kubernetes.Configuration:
    """The account of this process: ``KUBECONFIG`` where it is set, else the pod's, else ``~/.kube/config``."""
    configuration = kubernetes.Configuration()
    if not os.environ.get("KUBECONFIG"):
        try:
            kubeconfig.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kubeconfig.ConfigException:
            pass
        else:
            return configuration
    await kubeconfig.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def open_session(configuration: kubernetes.Configuration, *, limit: int, **options: Any) -> aiohttp.ClientSession:
    """A session with the API server alone, through the proxy that the configuration or the environment names.

    ``limit``: the most connections, 0 for any number.
    """
    # Not aiohttp's trust_env: it looks for a ~/.netrc, in a thread, at each request.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=_tls(configuration), limit=limit),
        proxy=configuration.proxy or _proxy(configuration.host),
        read_bufsize=2**21,  # an event of a watch is one line
        **options,
    )


def _tls(configuration: kubernetes.Configuration) -> ssl.SSLContext:
    """The context that the client library makes of a configuration."""
    context: ssl.SSLContext = kubernetes.ApiClient(configuration).rest_client.ssl_context
    return context


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL, None where it names none or excepts its host."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def server_hosts(configuration: kubernetes.Configuration) -> frozenset[str]:
    """The hosts by which this process, or another one in a pod, reaches the API server."""
    hosts = (urlsplit(configuration.host).hostname, os.environ.get("KUBERNETES_SERVICE_HOST"))
    return frozenset(filter(None, hosts))


class Client:
    """Requests with the account's credentials; errors in the words of `kube.errors`."""

    def __init__(self, configuration: kubernetes.Configuration) -> None:
        self._configuration = configuration

    @functools.cached_property
    def _session(self) -> aiohttp.ClientSession:
        return open_session(self._configuration, limit=CONNECTIONS)

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> Object:
        """One request and its JSON answer."""
        return await self._send(method, path, query, body, (content_type, JSON), timeout)

    async def metadata(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        """One request, a GET of a collection or a change of one object; of what it answers the metadata alone."""
        accept = METADATA_LIST if method == "GET" else METADATA
        return await self._send(method, path, query, body, (content_type, accept), TIMEOUT)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        types: tuple[str, str],  # of the body, and of the answer
        timeout: aiohttp.ClientTimeout,
    ) -> Object:
        if "/." in path or "%" in urlsplit(path).path:
            # A name that leads elsewhere was to be refused long before: the account may read what the user may not.
            raise Rejected(f"{method} {path!r}: no path of the API")
        content_type, accept = types
        url = self._configuration.host + path + ("?" + urlencode(query) if query else "")
        headers = {"Content-Type": content_type, "Accept": accept, **await authorization(self._configuration)}
        code = "error"
        try:
            # Not orjson: it refuses the half characters that anybody's header may hold.
            sent = None if body is None else json.dumps(body)
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=sent,
                timeout=timeout,
                server_hostname=self._configuration.tls_server_name,
            ) as response:
                code = str(response.status)
                text = await response.read()
        except TimeoutError:
            raise Unavailable(f"{method} {path}: no answer in time") from None
        except (aiohttp.ClientError, OSError) as failure:
            # Without the cause: aiohttp's errors can repeat the request.
            raise Unavailable(f"{method} {path}: {type(failure).__name__}") from None
        finally:
            metrics.API_REQUESTS.labels(method=method, resource=_resource(path), code=code).inc()
        if response.status >= 400:
            raise error_of(method, path, response.status, text)
        try:
            answer: Object = loads(text)
        except ValueError:
            raise Unavailable(f"{method} {path}: an answer that is no JSON") from None
        return answer


async def authorization(configuration: kubernetes.Configuration) -> dict[str, str]:
    """The header that proves who we are; a rotated token is read again from its file each minute."""
    token = await configuration.get_api_key_with_prefix("BearerToken")
    return {"Authorization": token} if token else {}


def _resource(path: str) -> str:
    """The resource of any path, for a metric label of few values."""
    parts = urlsplit(path).path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    return "/".join([rest[0], *rest[2:]]) if rest else ""


def error_of(method: str, path: str, status: int, text: bytes) -> ClusterError:
    """The error for an answer of the API server."""
    try:
        said = str(loads(text).get("message", ""))
    except (ValueError, AttributeError):
        said = ""
    words = f"{method} {path}: {status} {said[:500]}"
    match status:
        case 403:
            return Forbidden(words)
        case 404:
            return NotFound(words)
        case 409:
            return Conflict(words)
        case 429:
            return Unavailable(words)
        case _ if status < 500:
            return Rejected(words)
        case _:
            return Unavailable(words)
