"""Where do tests get a real node: kubelet, containerd, DNS, Services and a control plane, in namespaces of their own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.node import configuration, debian, images, programs
from tests.node.namespaces import Namespaces
from tests.node.oci import Image
from tests.testbed import tls
from tests.testbed.api import ApiError, Manifest, write_kubeconfig
from tests.testbed.cluster import Cluster, audit_policy
from tests.testbed.processes import Process, until

NODE = configuration.NODE

_ADMIN = "system:testbed"
_USERS = (
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kubelet",
    "system:kube-proxy",
    "system:dns",
)
_START = 60


class Node(Cluster):
    """A cluster of one node; itself the administrator's client. Pods and Services are reached from this machine too."""

    def __init__(self, folder: Path, *, detached: bool = False) -> None:
        """Make the namespaces and write credentials; no program runs before ``start``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.namespaces = Namespaces(folder, detached=detached)
        self.namespaces.open()
        self.addresses = self.namespaces.addresses
        names = (self.addresses.node, self.addresses.apiserver, *tls.LOOPBACK, "kubernetes.default.svc")
        ca_file, self._key_file = tls.self_signed(names).write(folder, "apiserver")
        server = f"https://{self.addresses.node}:{configuration.API_PORT}"
        super().__init__(folder, server, ca_file, secrets.token_hex(16))
        self._tokens = {_ADMIN: self.admin_token, **{user: secrets.token_hex(16) for user in _USERS}}
        self.processes: dict[str, Process] = {}

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def start(self, wanted: Sequence[Image] = ()) -> None:
        """Start everything and return when a pod with one of the images would run."""
        try:
            self._write_credentials()
            with ThreadPoolExecutor(max_workers=1) as importer:
                imported = importer.submit(self._start_containerd, wanted)
                self._start_control_plane()
                imported.result()
            self._start_node()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything at once, as a power cut would, and leave nothing but the logs."""
        self.close_all()
        self.namespaces.close()

    def process(self, name: str) -> Process:
        """One of ``etcd``, ``kube-apiserver``, ``kubelet``, ``containerd``, …: to be paused, killed or started again."""
        return self.processes[name]

    def load(self, image: Image) -> None:
        """Have an image on the node, unpacked."""
        self.namespaces.run(*configuration.ctr("images", "import", "-"), stdin=image.archive())

    def pods(self, namespace: str, labels: str = "") -> list[Manifest]:
        """The pods that are not about to go."""
        return [pod for pod in self.objects("pods", namespace, labels) if not pod["metadata"].get("deletionTimestamp")]

    def logs(self, namespace: str, target: str, *options: str) -> str:
        """What containers have printed; ``target`` such as ``deployment/web`` or ``pod``."""
        return self.kubectl("logs", "-n", namespace, target, *options)

    def exec(self, namespace: str, target: str, *command: str) -> str:
        """What a command prints in a container."""
        return self.kubectl("exec", "-n", namespace, target, "--", *command)

    def await_rollout(self, namespace: str, target: str, timeout: int = 60) -> None:
        """``kubectl rollout status``; the pods' state is told where it fails."""
        try:
            self.kubectl("rollout", "status", "-n", namespace, target, f"--timeout={timeout}s")
        except RuntimeError as failure:
            raise AssertionError(f"{failure}\n{self.describe(namespace)}") from failure

    def describe(self, namespace: str) -> str:
        """Pods and Events of a namespace, for messages."""
        pods = self.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False)
        return pods + self.kubectl("events", "-n", namespace, check=False)[-4000:]

    def kill_pod(self, namespace: str, pod: str) -> None:
        """``kill -9`` of the first process of each container: the pod lives on and the kubelet starts them again."""
        identities = [
            status["containerID"].rpartition("/")[2]
            for status in self.get("pods", namespace, pod)["status"]["containerStatuses"]
        ]
        for identity in identities:
            self.namespaces.run(*configuration.ctr("tasks", "kill", "--signal=SIGKILL", identity))

    def container_pid(self, namespace: str, pod: str) -> int:
        """The process id of a pod's first container, as the node numbers it."""
        identity = self.get("pods", namespace, pod)["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        tasks = (line.split() for line in self.namespaces.run(*configuration.ctr("tasks", "ls")).splitlines())
        return next(int(task[1]) for task in tasks if task[0] == identity)

    def _start_containerd(self, wanted: Sequence[Image]) -> None:
        path = ":".join([programs.folder("containerd-shim-runc-v2"), os.environ["PATH"]])
        runtime = self._run(
            "containerd",
            configuration.containerd(self.folder, self.addresses),
            environment={**os.environ, "PATH": path},
        )
        runtime.until(self._containerd_answers, 20, "containerd answers")
        for image in wanted:
            self.load(image)

    def _start_control_plane(self) -> None:
        self._run("etcd", configuration.etcd())
        server = self._run(
            "kube-apiserver", configuration.apiserver(self.folder, self.addresses, self.ca_file, self._key_file)
        )
        server.until(lambda: self.raw("GET", "/readyz"), _START, "API server ready", ignoring=(OSError, ApiError))
        self._run(
            "kube-controller-manager",
            configuration.controllers(self.folder, self._account("kube-controller-manager"), self.ca_file),
        )
        self._run("kube-scheduler", configuration.scheduler(self._account("kube-scheduler")))
        self._run("coredns", configuration.dns(self.folder, self._account("dns"), self.addresses))
        self._run(
            "kube-proxy",
            configuration.proxy(self.folder, self._account("kube-proxy"), self.addresses),
            environment={**os.environ, "PATH": f"{self._nft()}:{os.environ['PATH']}"},
        )

    def _start_node(self) -> None:
        account = self._account("kubelet")
        kubelet = self._run(
            "kubelet", configuration.kubelet(self.folder, account, self.addresses, self.namespaces.cgroup)
        )
        kubelet.until(self._is_ready, _START, "node ready", ignoring=(ApiError,))
        until(self._has_account, 20, "the default namespace has its ServiceAccount")

    def _run(self, name: str, options: list[str], environment: Mapping[str, str] | None = None) -> Process:
        process = self.namespaces.process(name, [programs.path(name), *options], environment)
        self.processes[name] = process
        process.start()
        return process

    def _containerd_answers(self) -> bool:
        asked = self.namespaces.command(*configuration.ctr("version"))
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    def _is_ready(self) -> bool:
        found = self.find("nodes", "", NODE) or {}
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in found.get("status", {}).get("conditions", ())
        )
        return ready and not found.get("spec", {}).get("taints")

    def _has_account(self) -> bool:
        return self.find("serviceaccounts", "default", "default") is not None

    def _nft(self) -> Path:
        """A folder with ``nft``, which finds its libraries wherever they were unpacked."""
        folder = self.folder / "bin"
        folder.mkdir()
        (folder / "nft").write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={debian.libraries()} exec {debian.program("nft")} "$@"\n'
        )
        (folder / "nft").chmod(0o755)
        return folder

    def _account(self, name: str) -> Path:
        return write_kubeconfig(
            self.folder / f"{name}.kubeconfig",
            server=self.server,
            ca_file=self.ca_file,
            token=self._tokens[f"system:{name}"],
        )

    def _write_credentials(self) -> None:
        (self.folder / "accounts.key").write_text(tls.key_pem(tls.private_key()))
        lines = (f'{token},{user},{user},"system:masters"\n' for user, token in self._tokens.items())
        (self.folder / "tokens.csv").write_text("".join(lines))
        (self.folder / "audit-policy.json").write_text(json.dumps(audit_policy(list(self._tokens))))


def bed_images() -> list[Image]:
    """What every node has: the pause image, Python, step-ca, and the operator from the project's own Dockerfile."""
    return [images.pause(), images.python(), images.step_ca(), images.operator()]
