"""Does the testbed itself keep what its docstrings promise: a cluster, a CA, and faults on the way to them?"""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeCA
from tests.testbed import manifests, operators
from tests.testbed.api import Api, ApiError
from tests.testbed.controlplane import ControlPlane, Request, account_name
from tests.testbed.faults import HttpProxy, TcpProxy, api_proxy, ca_proxy
from tests.testbed.operators import Operator
from tests.testbed.processes import NotInTime, Process, until

# A connection that is reset while a request is still being written ends as an error of TLS.
LOST = (ConnectionError, ssl.SSLError)


def test_workloads_of_every_kind_run(plane: ControlPlane, namespace: str) -> None:
    """Pods run at once, with or without a node named, and restart when their template changes."""
    plane.create(manifests.secret("web-tls", namespace, {"tls.crt": "old"}))
    uses = (manifests.volume("web-tls"), manifests.init("web-tls"), manifests.env("web-tls"))
    plane.create(manifests.deployment("web", namespace, *uses, replicas=2))
    plane.create(manifests.stateful_set("db", namespace, manifests.projected("web-tls")))
    plane.create(manifests.daemon_set("agent", namespace, manifests.env_from("web-tls"), manifests.pull("web-tls")))
    plane.kubectl("create", "deployment", "nodeless", "--image=x", "-n", namespace)
    for workload in ("deployment/web", "statefulset/db", "daemonset/agent", "deployment/nodeless"):
        plane.kubectl("rollout", "status", workload, "-n", namespace, "--timeout=10s")

    plane.kubectl("rollout", "restart", "deployment/web", "-n", namespace)

    assert "successfully" in plane.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=10s")
    assert plane.get("pods", namespace, "db-0")["status"]["podIP"]


def test_pods_can_be_kept_from_becoming_ready(plane: ControlPlane, namespace: str) -> None:
    """One label keeps a pod unready for ever, one annotation for a while."""
    plane.create(manifests.deployment("stuck", namespace, never_ready=True))
    plane.create(manifests.deployment("slow", namespace, ready_after="1s"))
    started = time.monotonic()
    plane.kubectl("rollout", "status", "deployment/slow", "-n", namespace, "--timeout=10s")

    pod = plane.objects("pods", namespace, "app=stuck")[0]

    assert time.monotonic() - started > 0.5
    assert pod["status"]["phase"] == "Running"
    assert {"type": "Ready", "status": "False"}.items() <= pod["status"]["conditions"][-1].items()


def test_an_account_has_only_its_rights_and_is_audited(plane: ControlPlane, namespace: str) -> None:
    """RBAC holds, and each account's requests can be counted."""
    plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shy", "namespace": namespace}})
    account = plane.account(namespace, "shy")

    with pytest.raises(ApiError) as refused:
        account.objects("secrets", namespace)

    assert refused.value.status == 403
    records = until(lambda: plane.audit(account_name(namespace, "shy")), 5, "audited")
    assert [record["verb"] for record in records if record.get("objectRef")] == ["list"]


def test_requests_are_counted(plane: ControlPlane, namespace: str) -> None:
    """The API server's own counter tells what a test cost; lists and watches of the controllers come at any time."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "counted", "namespace": namespace}}
    before = plane.request_counts()

    plane.create(secret)

    assert (plane.request_counts() - before)[Request("POST", "", "secrets", "")] == 1


def test_a_ca_issues_counts_and_revokes(make_ca: MakeCA) -> None:
    """The step CLI works against it and its log tells of each call."""
    ca = make_ca(backdate="0s")
    chain, key = ca.certificate("web.shop.svc", ["web.shop.svc", "10.0.0.1"], "60s")
    (signed,) = [call for call in ca.calls() if call["path"] == "/sign"]

    ca.revoke(signed["serial"])

    assert (chain.count("BEGIN CERTIFICATE"), "PRIVATE KEY" in key) == (2, True)
    assert (signed["status"], signed["subject"], ca.count("/revoke", 200)) == (201, "web.shop.svc", 1)


def test_a_ca_can_be_disturbed(make_ca: MakeCA) -> None:
    """It restarts on its port, freezes, takes a new configuration and refuses a broken one."""
    ca = make_ca()
    ca.kill()
    assert not ca.healthy()
    ca.start()
    ca.pause()
    assert not ca.healthy()
    ca.resume()
    ca.add_provisioner("late", "--allow-renewal-after-expiry")
    ca.edit_provisioner("late", lambda entry: entry["claims"].update(disableRenewal=True))

    assert "late" in ca.step("ca", "provisioner", "list", f"--ca-url={ca.url}", f"--root={ca.root_file}")
    assert ca.healthy()


def test_tcp_faults(plane: ControlPlane, tmp_path: Path) -> None:
    """Refused, swallowed, delayed, cut: each reaches the client as what it is."""
    with TcpProxy(plane.server) as proxy:
        assert _version(proxy.url, plane) > 0
        size = _version(proxy.url, plane)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            _version(proxy.url, plane)
        proxy.blackhole()
        with pytest.raises(TimeoutError):
            _version(proxy.url, plane, timeout=0.3)
        proxy.delay(0.2)
        started = time.monotonic()
        assert _version(proxy.url, plane) == size
        assert time.monotonic() - started > 0.5
        proxy.cut_after(200)
        with pytest.raises(OSError, match=r"reset|EOF"):
            _version(proxy.url, plane)
        proxy.pass_all()
        assert _version(proxy.url, plane) == size
        assert proxy.accepted == 6


def test_http_faults(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Single requests are delayed, answered, cut before or after the server has done its work."""
    with api_proxy(plane, tmp_path) as proxy, Api(proxy.url, proxy.ca_file, plane.admin_token) as client:
        proxy.answer("GET", "/secrets/gone", 410, "{}", headers={"Retry-After": "3"})
        with pytest.raises(ApiError, match="410"):
            client.get("secrets", namespace, "gone")
        proxy.cut_before("POST", "/secrets$", times=2)
        with pytest.raises(LOST):
            client.create(manifests.secret("first", namespace))
        proxy.cut_after("POST", "/secrets$", times=1)
        with pytest.raises(ApiError, match="409"):
            client.create(manifests.secret("second", namespace))
        delay = proxy.delay("*", "/secrets", 0.3)
        started = time.monotonic()

        found = [secret["metadata"]["name"] for secret in client.objects("secrets", namespace)]

        assert (found, delay.hits) == (["second"], 1)
        assert time.monotonic() - started > 0.3


def test_watches_stream_through_the_proxy_and_can_be_cut(plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """An event arrives at once; a cut ends the stream with an error."""
    with api_proxy(plane, tmp_path) as proxy, _watch(proxy, plane, namespace) as stream:
        plane.create(manifests.secret("seen", namespace))
        assert b"seen" in stream.readline()

        assert proxy.cut_streams("watch=true") == 1
        with pytest.raises((OSError, http.client.IncompleteRead)):
            stream.read()


def test_a_ca_behind_a_proxy_signs(make_ca: MakeCA, tmp_path: Path) -> None:
    """The step CLI trusts the proxy as the CA; an answer may be lost after the signing."""
    ca = make_ca()
    with ca_proxy(ca, tmp_path) as proxy:
        before = ca.count("/sign", 201)
        ca.certificate("one.example.com", (), "1h", f"--ca-url={proxy.url}")
        proxy.cut_after("POST", "/sign", times=None)
        with pytest.raises(RuntimeError):
            ca.certificate("two.example.com", (), "1h", f"--ca-url={proxy.url}")

        assert ca.count("/sign", 201) == before + 2


def test_the_operator_runs_as_its_chart_says(tmp_path: Path) -> None:
    """Two replicas with the rights of the ServiceAccount, one of them through a proxy; metrics, logs and audit tell."""
    with ControlPlane(tmp_path / "plane") as cluster, api_proxy(cluster, tmp_path) as proxy:
        operators.install(cluster, "system", values={"replicas": 2})
        cluster.create(manifests.secret("web-tls", "default"))
        replicas = [Operator(cluster, "system"), Operator(cluster, "system", through=proxy)]
        for replica in replicas:
            replica.start()
        replicas[0].kill()
        replicas[1].restart()

        assert replicas[1].metrics()
        assert replicas[1].logs()
        assert any("/certrenewals?" in seen.path for seen in proxy.requests)
        assert cluster.audit(account_name("system", replicas[1].account))
        assert replicas[1].stop() == 0
        operators.uninstall(cluster, "system")


def test_children_die_with_the_test_run(tmp_path: Path) -> None:
    """Even kill -9 of the parent leaves nothing running."""
    program = (
        "import os, pathlib, sys; from tests.testbed.processes import Process;"
        "child = Process('sleep', ['sleep', '600'], log=pathlib.Path(sys.argv[1]) / 'log'); child.start();"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(tmp_path)]
    said = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)

    until(lambda: not _lives(int(said.stdout)), 5, "child killed")


def test_waiting_tells_what_it_saw(tmp_path: Path) -> None:
    """A wait that fails shows the last value, and the log of a child that ended."""
    child = Process("echo", ["echo", "goodbye"], log=tmp_path / "log")
    child.start()

    with pytest.raises(NotInTime, match="goodbye"):
        child.until(lambda: False, 5, "never")
    with pytest.raises(NotInTime, match="last seen: 0"):
        until(lambda: 0, 0.1, "never")


def _version(url: str, plane: ControlPlane, timeout: float = 5) -> int:
    context = ssl.create_default_context(cafile=str(plane.ca_file))
    address = urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection("127.0.0.1", address.port, timeout=timeout, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/version", headers={"Connection": "close"})
        return len(connection.getresponse().read())


@contextlib.contextmanager
def _watch(proxy: HttpProxy, plane: ControlPlane, namespace: str) -> Iterator[http.client.HTTPResponse]:
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=5, context=context)
    headers = {"Authorization": f"Bearer {plane.admin_token}"}
    with contextlib.closing(connection):
        connection.request("GET", f"/api/v1/namespaces/{namespace}/secrets?watch=true", headers=headers)
        with connection.getresponse() as answer:
            yield answer


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
