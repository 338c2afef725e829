"""Does docs/quickstart.md lead where it says: each of its commands as it stands there, on a node with nothing on it.

The first command alone is not run, as it takes a chart and images from the internet: the bed's own step-ca takes its place, in
objects of the names that the chart gives them. ``ctr`` gives the image the name under which the page has it built.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.node import configuration, images, requirements
from tests.node.ca import PodCA
from tests.node.node import Node, bed_images
from tests.testbed import operators, pages, tools
from tests.testbed.pages import Block

PAGE = "quickstart.md"

_CHECKOUT = Path(__file__).parents[2]
_PATIENCE = 180


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody with kubectl, Helm and openssl, in a checkout."""

    environment: dict[str, str]

    def run(self, block: Block) -> str:
        """What the commands of a block print, in a shell of their own."""
        done = subprocess.run(
            ["bash", "-eu", "-c", block.text],  # no pipefail: openssl reads no further than it must
            check=False,
            cwd=_CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{block.text}\n{done.stdout}"
        return done.stdout

    def follow(self, page: str) -> str:
        """Run all blocks of a page and hold what they print against what it shows; what the last one printed."""
        printed = ""
        for block in (block for blocks in pages.sections(page).values() for block in blocks):
            if block.kind == "sh" and not block.mark:
                printed = self.run(block)
            if block.kind == "text":
                assert block.is_told_by(printed), f"the page shows\n{block.text}\nand this was printed:\n{printed}"
        return printed


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Node]:
    """A node of this test's own, without certrenewal: one cluster has room for one."""
    if lacks := requirements.missing():
        pytest.skip(requirements.message(lacks))
    node = Node(tmp_path / "node")
    node.start(bed_images())
    node.namespaces.run(*configuration.ctr("images", "tag", images.OPERATOR, _image()))
    yield node
    node.stop()


@pytest.fixture
def reader(empty: Node, tmp_path: Path) -> Reader:
    """A reader who finds a step-ca in the cluster."""
    PodCA(empty, tmp_path / "ca").start()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("kubectl", "helm"):
        (programs / name).symlink_to(tools.path(name))
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(empty.kubeconfig),
    }
    return Reader(environment)


def _image() -> str:
    """The name that the chart gives its image, and the page has it built under."""
    version = yaml.safe_load((operators.CHART / "Chart.yaml").read_text())["appVersion"]
    return f"docker.io/library/certrenewal:{version}"


def test_the_page_leads_to_a_renewed_certificate_and_a_restarted_deployment(empty: Node, reader: Reader) -> None:
    told = reader.follow(PAGE)

    status = empty.get("certrenewals", "shop", "web-tls")["status"]
    first, second = (entry["serial"] for entry in status["history"])
    serial = next(line.removeprefix("serial=") for line in told.splitlines() if line.startswith("serial="))
    assert first != second
    assert str(int(serial, 16)) == status["certificate"]["serial"]
    assert status["restarts"] == "1/1"
