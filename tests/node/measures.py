"""How large is the operator's image, and how soon is it ready: measured on a node, without a word of its own log."""

from __future__ import annotations

import http.client
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.site import SYSTEM
from tests.node import images, site
from tests.node.ca import PodCA
from tests.node.node import Node, bed_images
from tests.testbed.processes import until

_STARTS = 5
_MEGABYTE = 1_000_000
_POLL = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bytes as they travel, compressed: all of the image, and its base's share."""

    whole: int
    base: int

    @property
    def own(self) -> int:
        """What comes on top of the base."""
        return self.whole - self.base


def size() -> Size:
    """The layers of the image, from its manifest."""
    layers, base = images.operator().layers(), images.python().layers()
    return Size(whole=sum(layers.values()), base=sum(size for digest, size in layers.items() if digest in base))


def start_seconds(node: Node) -> float:
    """From the start of a new container's first process, as the kernel notes it, to the first 200 of /readyz."""
    [victim, *_] = [pod["metadata"]["name"] for pod in node.pods(SYSTEM, "app.kubernetes.io/name=certrenewal")]
    before = {pod["metadata"]["name"] for pod in node.pods(SYSTEM)}
    node.kubectl("delete", "pod", "-n", SYSTEM, victim, "--wait=false")
    pod, address = until(lambda: _address_of_new(node, before), 30, "a new pod")
    while not _is_ready(address):
        time.sleep(_POLL)
    ready = time.clock_gettime(time.CLOCK_BOOTTIME)
    return ready - _started(node, node.container_pid(SYSTEM, pod))


def report() -> None:
    """Measure and print."""
    found = size()
    print(
        f"image: {found.own / _MEGABYTE:.1f} MB compressed over its base ({found.whole / _MEGABYTE:.1f} MB with it)",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        node = Node(Path(scratch) / "node")
        try:
            node.start(bed_images())
            ca = PodCA(node, Path(scratch) / "ca")
            ca.start()
            running = site.install(node, ca)
            seconds = []
            for _ in range(_STARTS):
                seconds.append(start_seconds(node))
                running.await_operator()
        finally:
            node.stop()
    told = ", ".join(f"{value:.2f}" for value in sorted(seconds))
    print(f"start to /readyz: median {statistics.median(seconds):.2f} s of {_STARTS} ({told})")


def _address_of_new(node: Node, before: set[str]) -> tuple[str, ...]:
    for pod in node.pods(SYSTEM, "app.kubernetes.io/name=certrenewal"):
        address = pod["status"].get("podIP")
        if pod["metadata"]["name"] not in before and address and pod["status"].get("containerStatuses"):
            return pod["metadata"]["name"], address
    return ()


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _started(node: Node, pid: int) -> float:
    """Seconds from boot to the start of a process that the node numbers so."""
    fields = node.namespaces.run("/bin/cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
