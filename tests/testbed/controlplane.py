"""Where do the tests get a Kubernetes cluster: real etcd, API server and controllers, and kwok for the kubelet.

Ready in seconds, several at once on free ports. There is no scheduler: an admission policy gives each pod that
names no node the only one, ``node-0``, and kwok reports it running at once. A pod with the label
``testbed.certrenewal.dev/never-ready: "true"`` runs but never becomes ready; one with the annotation
``testbed.certrenewal.dev/ready-after: 5s`` becomes so after that time. Of commands that are run in a container there are
two, ``cat`` and a ``kill`` that signals nobody and is remembered; they see the files of this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testbed import tls, tools
from tests.testbed.api import ApiError, Manifest, write_kubeconfig
from tests.testbed.cluster import Cluster, Request, account_name, audit_policy
from tests.testbed.processes import Process, free_port

__all__ = ["NODE", "ControlPlane", "Request", "account_name"]

NODE = "node-0"

_SIGNALS = "signals"
_STAGES = Path(__file__).with_name("stages.yaml")
_ADMIN = "system:testbed"
_CONTROLLERS = "system:kube-controller-manager"
_KUBELET = "system:kwok"
_WITHOUT_CONTROLLERS = (
    "node-ipam-controller",
    "node-lifecycle-controller",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
)


class ControlPlane(Cluster):
    """One cluster with everything under ``folder``; itself the administrator's client."""

    def __init__(self, folder: Path, *, detached: bool = False) -> None:
        """Write credentials and choose ports; nothing runs before ``start``."""
        ca_file, self._key_file = tls.self_signed((*tls.LOOPBACK, "kubernetes.default.svc")).write(folder, "apiserver")
        self.port = free_port()
        super().__init__(folder, f"https://127.0.0.1:{self.port}", ca_file, secrets.token_hex(16))
        self._tokens = {_ADMIN: self.admin_token, _CONTROLLERS: secrets.token_hex(16), _KUBELET: secrets.token_hex(16)}
        self._detached = detached
        self._etcd_port = free_port()
        self._programs = _container_programs(folder / "container")
        self.processes: list[Process] = []
        self.tenants: list[Process] = []

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Start everything and return when a pod would run."""
        self.processes = [
            self._process("etcd", *self._etcd_options()),
            self._process("kube-apiserver", *self._apiserver_options()),
            self._process("kube-controller-manager", *self._controller_options()),
            self._process("kwok", *self._kwok_options(), path=self._programs),
        ]
        etcd, apiserver, *clients = self.processes
        try:
            etcd.start()
            apiserver.start()
            apiserver.until(lambda: self.raw("GET", "/readyz"), 60, "API server ready", ignoring=(OSError, ApiError))
            for client in clients:
                client.start()
            self._prepare_node(clients[-1])
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything, clients before servers, operators that a test has left behind before all."""
        self.close_all()
        for process in (*self.tenants, *reversed(self.processes)):
            process.kill()

    def process(self, name: str) -> Process:
        """One of ``etcd``, ``kube-apiserver``, ``kube-controller-manager``, ``kwok``: to be paused, say."""
        return next(found for found in self.processes if found.name == name)

    def signals(self) -> list[str]:
        """What ``kill`` was called with in containers so far."""
        file = self._programs / _SIGNALS
        return file.read_text().splitlines() if file.exists() else []

    def _process(self, name: str, *options: str, path: Path | None = None) -> Process:
        return Process(
            name,
            [tools.path(name), *options],
            log=self.folder / "logs" / f"{name}.log",
            environment={**os.environ, "HOME": str(self.folder), **({"PATH": str(path)} if path else {})},
            detached=self._detached,
        )

    def _etcd_options(self) -> list[str]:
        peers = f"http://127.0.0.1:{free_port()}"
        clients = f"http://127.0.0.1:{self._etcd_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ]

    def _apiserver_options(self) -> list[str]:
        signing_key = self.folder / "accounts.key"
        signing_key.write_text(tls.key_pem(tls.private_key()))
        tokens = self.folder / "tokens.csv"
        tokens.write_text("".join(f'{token},{user},{user},"system:masters"\n' for user, token in self._tokens.items()))
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(audit_policy(list(self._tokens))))
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--external-hostname=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self.ca_file}",
            f"--tls-private-key-file={self._key_file}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={signing_key}",
            f"--service-account-signing-key-file={signing_key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.folder / 'audit.log'}",
        ]

    def _controller_options(self) -> list[str]:
        return [
            f"--kubeconfig={self._kubeconfig(_CONTROLLERS)}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=false",
            "--controllers=" + ",".join(["*", *(f"-{name}" for name in _WITHOUT_CONTROLLERS)]),
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        ]

    def _kwok_options(self) -> list[str]:
        port = free_port()
        return [
            f"--kubeconfig={self._kubeconfig(_KUBELET)}",
            f"--config={_STAGES}",
            f"--server-address=127.0.0.1:{port}",
            f"--node-port={port}",
            "--node-ip=127.0.0.1",
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=0",
        ]

    def _kubeconfig(self, user: str) -> Path:
        return write_kubeconfig(
            self.folder / f"{user.rpartition(':')[2]}.kubeconfig",
            server=self.server,
            ca_file=self.ca_file,
            token=self._tokens[user],
        )

    def _prepare_node(self, kwok: Process) -> None:
        for manifest in _node_for_every_pod():
            self.create(manifest)
        self.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
        kwok.until(self._pods_get_a_node, 30, "admission policy in force")
        kwok.until(self._node_is_ready, 30, f"{NODE} ready")

    def _pods_get_a_node(self) -> bool:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "probe", "namespace": "default"},
            "spec": {"containers": [{"name": "probe", "image": "probe"}]},
        }
        answer = self.api("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)
        return bool(answer["spec"].get("nodeName") == NODE)

    def _node_is_ready(self) -> bool:
        conditions = self.get("nodes", "", NODE).get("status", {}).get("conditions", [])
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def _container_programs(folder: Path) -> Path:
    """The folder with all programs that a container has."""
    folder.mkdir(parents=True)
    (folder / "cat").symlink_to(shutil.which("cat") or "/bin/cat")
    kill = folder / "kill"
    kill.write_text(f'#!/bin/sh\necho "$*" >> "${{0%/*}}/{_SIGNALS}"\n')
    kill.chmod(0o755)
    return folder


def _node_for_every_pod() -> list[Manifest]:
    name = "testbed.certrenewal.dev"
    about = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    mutation = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": f'Object{{spec: Object.spec{{nodeName: "{NODE}"}}}}'},
    }
    spec = {
        "matchConstraints": {"resourceRules": [pods]},
        "matchConditions": [{"name": "unscheduled", "expression": "!has(object.spec.nodeName)"}],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [mutation],
    }
    return [
        {**about, "kind": "MutatingAdmissionPolicy", "spec": spec},
        {**about, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": name}},
    ]
