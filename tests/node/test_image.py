"""Is the image what the chart promises: small, without what could build or install, and content with no rights at all?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.site import SYSTEM
from tests.node import images, measures, oci
from tests.node.node import Node
from tests.node.site import NodeSite

_GOAL = 120_000_000
_UNWANTED = re.compile(r"opt/certrenewal/.*/(pip|setuptools|wheel|hatchling)/|root/\.cache/|\.whl$|(^|/)src/")


def test_the_image_adds_little_to_its_base_and_nothing_that_builds(node: Node) -> None:
    assert measures.size().own <= _GOAL
    assert [name for name in _own_files() if _UNWANTED.search(name)] == []


def test_the_image_runs_as_a_number_and_without_a_shell(node: Node) -> None:
    config = images.operator().config()["config"]

    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    assert (config["Entrypoint"], config["Cmd"]) == (["certrenewal"], ["operator"])


def test_the_operator_has_no_rights_on_its_node(node: Node, certrenewal: NodeSite) -> None:
    pid = node.container_pid(SYSTEM, certrenewal.pods()[0]["metadata"]["name"])
    status = dict(line.split(":\t", 1) for line in _inside(node, f"/proc/{pid}/status").splitlines() if ":\t" in line)
    mounts = (line.split() for line in _inside(node, f"/proc/{pid}/mountinfo").splitlines())

    assert status["Uid"].split() == ["65532"] * 4
    assert {int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "ro" in next(mount[5] for mount in mounts if mount[4] == "/").split(",")


def _inside(node: Node, file: str) -> str:
    return node.namespaces.run("/bin/cat", file)


def _own_files() -> Iterator[str]:
    base = images.python().layers()
    image = images.operator()
    for digest in image.layers():
        if digest not in base:
            yield from oci.listing(Path(image.folder, "blobs", digest.replace(":", "/")))
