"""Every command of docs/step-users.md does what the page says of it, run as a reader would run it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.site import Site, authority, installed
from tests.conftest import MakeCA
from tests.testbed import manifests, tls, tools
from tests.testbed.controlplane import ControlPlane
from tests.testbed.pages import blocks
from tests.testbed.receiver import Receiver

PAGE = "step-users.md"
NAMESPACE = "shop"
SETUP = "Before you begin"
RECEIVERS = ("grafana.example.com", "hc-ping.com")


@dataclass(frozen=True)
class Reader:
    """Somebody with kubectl, step and a folder of their own, for whom the receivers are on this machine."""

    folder: Path
    environment: dict[str, str]
    receiver: Receiver

    def follow(self, heading: str) -> None:
        """Run the blocks under a heading in order, each in a shell of its own."""
        for block in blocks(PAGE, "sh")[heading]:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", self._at_home(block)],
                check=False,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, f"{heading}: exit code {done.returncode}\n{block}\n{done.stdout}"

    def _at_home(self, block: str) -> str:
        """The block with the receiver's address for the hosts that hooks call."""
        return re.sub("|".join(map(re.escape, RECEIVERS)), f"localhost:{self.receiver.port}", block)


@pytest.fixture(scope="module")
def site(plane: ControlPlane, make_ca: MakeCA) -> Iterator[Site]:
    """The operator with the values that the page names, for an authority as in the README."""
    ca = make_ca(backdate="0s")
    ca.grow_old()  # a renewal after expiry is judged as of a minute before the end
    (values,) = blocks(PAGE, "yaml")[SETUP]
    policy = [{"namespaces": [NAMESPACE], "names": [f"*.{NAMESPACE}.example.com"]}]
    chosen: dict[str, Any] = yaml.safe_load(values)
    assert chosen["hooks"]["allowedHosts"] == list(RECEIVERS)
    chosen["hooks"]["allowedHosts"] = ["localhost", "127.0.0.1"]  # where the receiver is
    plane.create(manifests.namespace(NAMESPACE))
    with installed(plane, ca, values={"authority": authority(ca, policy=policy), **chosen}) as running:
        yield running
    plane.delete("namespaces", "", NAMESPACE)


@pytest.fixture(scope="module")
def reader(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has followed the page's first section."""
    folder = tmp_path_factory.mktemp("reader")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(site.plane.kubeconfig.read_text())  # a copy: the page sets its namespace
    programs = folder / "bin"
    programs.mkdir()
    for name in ("kubectl", "step"):
        (programs / name).symlink_to(tools.path(name))
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "STEPPATH": str(folder / "step"),
        "KUBECONFIG": str(kubeconfig),
        "CA_CONFIG": str(site.ca.config_file),
        "CA_PID": str(site.ca.process.pid),
    }
    certificate, key = site.ca.certificate("localhost", tls.LOOPBACK)
    with Receiver(tls.Pair(certificate=certificate, key=key), folder) as receiver:
        found = Reader(folder, environment, receiver)
        found.follow(SETUP)
        yield found


@pytest.mark.parametrize("heading", [heading for heading in blocks(PAGE, "sh") if heading != SETUP])
def test_the_commands_do_what_the_page_says(reader: Reader, heading: str) -> None:
    """Each section takes nothing but the first one."""
    reader.follow(heading)
