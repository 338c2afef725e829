"""How are a node's programs told what to do: their options and files, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.node import programs
from tests.node.namespaces import Addresses
from tests.testbed.api import Manifest

NODE = "node"
API_PORT = 6443
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
DOMAIN = "cluster.local"

_ETCD = "http://127.0.0.1:2379"
_SOCKET = "/run/containerd/containerd.sock"
_CNI_FOLDERS = ("ptp", "loopback", "host-local")
_WITHOUT_PLUGINS = (
    "io.containerd.internal.v1.opt",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
)
_WITHOUT_CONTROLLERS = ("node-ipam-controller", "kube-apiserver-serving-clustertrustbundle-publisher-controller")


def etcd() -> list[str]:
    """One member in memory."""
    return [
        "--data-dir=/run/etcd",
        "--unsafe-no-fsync",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
    ]


def apiserver(folder: Path, addresses: Addresses, certificate: Path, key: Path) -> list[str]:
    """As a cluster of one has it; the kubelet trusts whoever reaches it, which are only this machine and its pods."""
    return [
        f"--etcd-servers={_ETCD}",
        f"--bind-address={addresses.node}",
        f"--advertise-address={addresses.node}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        f"--service-cluster-ip-range={addresses.services}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={folder / 'audit-policy.json'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]


def controllers(folder: Path, kubeconfig: Path, certificate: Path) -> list[str]:
    """Those that a cluster without a cloud has; a node that says nothing is noticed within seconds."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={folder / 'accounts.key'}",
        f"--root-ca-file={certificate}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--controllers=" + ",".join(["*", *(f"-{name}" for name in _WITHOUT_CONTROLLERS)]),
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=12s",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def scheduler(kubeconfig: Path) -> list[str]:
    """The default one."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def kubelet(folder: Path, kubeconfig: Path, addresses: Addresses, cgroup: str) -> list[str]:
    """As kubeadm would have it, but for what this machine may not be asked."""
    resolver = folder / "resolv.conf"
    resolver.write_text("")
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.node,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [addresses.node],
        "resolvConf": str(resolver),
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
        "serializeImagePulls": False,
        "nodeStatusReportFrequency": "4s",
        "nodeStatusUpdateFrequency": "2s",
        "shutdownGracePeriod": "0s",
    }
    return [
        f"--config={_written(folder / 'kubelet.json', settings)}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE}",
        f"--node-ip={addresses.node}",
    ]


def proxy(folder: Path, kubeconfig: Path, addresses: Addresses) -> list[str]:
    """Services by nftables; the limits of connection tracking belong to the whole machine and stay as they are."""
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": addresses.pods,
        "hostnameOverride": NODE,
        "conntrack": untouched,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
    }
    return [f"--config={_written(folder / 'kube-proxy.json', settings)}"]


def dns(folder: Path, kubeconfig: Path, addresses: Addresses) -> list[str]:
    """CoreDNS for the cluster's names alone: of others it refuses to speak, at once."""
    file = folder / "Corefile"
    file.write_text(
        f"{DOMAIN}:53 {{\n bind {addresses.node}\n errors\n ready 127.0.0.1:8181\n"
        f" kubernetes {DOMAIN} {{\n  kubeconfig {kubeconfig}\n  ttl 1\n }}\n}}\n"
    )
    return [f"-conf={file}"]


def containerd(folder: Path, addresses: Addresses) -> list[str]:
    """Containers by runc, images from nowhere but those that are imported."""
    _write_network(folder / "cni", addresses)
    places = json.dumps([programs.folder(name) for name in _CNI_FOLDERS])
    file = folder / "containerd.toml"
    file.write_text(f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = {json.dumps(_WITHOUT_PLUGINS)}

[grpc]
address = "{_SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
disable_apparmor = true
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = {places}
conf_dir = "{folder / "cni"}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{programs.path("runc")}"
SystemdCgroup = false
""")
    return [f"--config={file}"]


def ctr(*arguments: str) -> list[str]:
    """A command line for containerd, in the namespace of pods."""
    return [programs.path("ctr"), f"--address={_SOCKET}", "--namespace=k8s.io", *arguments]


def _write_network(folder: Path, addresses: Addresses) -> None:
    """Pods are reached by routes alone: no bridge, no masquerade."""
    folder.mkdir()
    ranges = {"ranges": [[{"subnet": addresses.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    ipam = {"type": "host-local", "dataDir": "/run/cni/networks", **ranges}
    network = {"cniVersion": "1.0.0", "name": NODE, "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}]}
    _written(folder / "10-node.conflist", network)


def _written(file: Path, content: Mapping[str, Any] | Manifest) -> Path:
    file.write_text(json.dumps(content, indent=1))
    return file
