"""How does a person get a real node: ``up`` leaves one running with step-ca and certrenewal, ``down`` ends it.

Run from the checkout as ``python -m tests.node.session prepare|up|down|image``. ``prepare`` builds what the cache lacks,
``image`` measures the operator's image.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.node import cgroups, images, measures, programs, requirements, site, stories
from tests.node.ca import PodCA
from tests.node.node import Node, bed_images
from tests.testbed import tools
from tests.testbed.session import end, is_alive, link_programs, run, started_at

_RECORD = "node.json"
_SHOP = "shop"
_POLICY = [{"namespaces": [_SHOP], "names": [f"*.{_SHOP}.example.com"]}]


def main(arguments: Sequence[str]) -> int:
    """Run one of them; the exit code."""
    commands = {"prepare": prepare, "up": up, "down": down, "image": image}
    return run("tests.node.session", commands, arguments)


def prepare() -> None:
    """Build programs and images, where this machine can run a node at all: what it lacks is told by the tests."""
    if not requirements.missing():
        _build()


def up() -> None:
    """Start everything in the background and say how to use it."""
    folder = _folder()
    _require()
    if _recorded(folder):
        raise RuntimeError(f"already up in {folder}: `make node-down` first")
    _build()
    shutil.rmtree(folder, ignore_errors=True)
    print("a node: etcd, API server, kubelet, containerd, DNS, Services …", flush=True)
    node = Node(folder, detached=True)
    try:
        _record(folder, node)
        node.start(bed_images())
        print("step-ca in a pod …", flush=True)
        ca = PodCA(node, folder / "ca", backdate="0s")
        ca.start()
        print("certrenewal, two replicas, by its chart …", flush=True)
        site.install(node, ca, {"authority": ca.authority(policy=_POLICY)})
        node.kubectl("apply", "-f", str(stories.MANIFESTS / "shop.yaml"))
        node.create(stories.apps(_SHOP))
    except BaseException:
        node.stop()
        raise
    link_programs(folder / "programs")
    _explain(folder, node)


def down() -> None:
    """End what ``up`` started and remove its folder."""
    folder = _folder()
    found = _recorded(folder)
    if found is None:
        cgroups.sweep()
        shutil.rmtree(folder, ignore_errors=True)  # of a node that ended by itself
        print("No node is up.")
        return
    end(*found)
    cgroups.remove(cgroups.name_of(found[0]))
    shutil.rmtree(folder)
    print(f"Ended the node and removed {folder}.")


def image() -> None:
    """Print size and start time of the operator's image."""
    _require()
    _build()
    measures.report()


def _require() -> None:
    if lacks := requirements.missing():
        raise RuntimeError(requirements.message(lacks))


def _build() -> None:
    tools.build()
    programs.build()
    images.build()


def _folder() -> Path:
    return Path(os.environ.get("CERTRENEWAL_NODE") or tools.cache() / "node").absolute()


def _record(folder: Path, node: Node) -> None:
    pid = node.namespaces.init.pid
    (folder / _RECORD).write_text(json.dumps({"pid": pid, "started": started_at(pid)}))


def _recorded(folder: Path) -> tuple[int, str] | None:
    """The node's process, where it still runs."""
    file = folder / _RECORD
    if not file.exists():
        return None
    entry = json.loads(file.read_text())
    found = entry["pid"], entry["started"]
    return found if is_alive(*found) else None


def _explain(folder: Path, node: Node) -> None:
    print(
        f"""
It all runs in the background; `make node-down` ends it. Pods and Services are reached from here too. To look around:

  export KUBECONFIG={node.kubeconfig} PATH={folder / "programs"}:$PATH

  kubectl get pods -A
  kubectl get certrenewals -n {_SHOP}
  kubectl apply -f tests/node/manifests/web.yaml -f tests/node/manifests/client.yaml
  kubectl annotate secret web-tls -n {_SHOP} certrenewal.dev/renew-now=1
  kubectl logs -n {_SHOP} client -f

Logs of the node's own programs: {folder / "logs"}"""
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
