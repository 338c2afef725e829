"""How is the project's Dockerfile built without Docker: by BuildKit, running just as long as the build.

What it keeps from build to build lies in the cache: a change of the program alone does not fetch its dependencies anew.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.node import cgroups, programs
from tests.node.oci import Image
from tests.testbed import tools
from tests.testbed.processes import Process

_BASE = "base"


@dataclass(frozen=True, slots=True)
class Builder:
    """A running builder."""

    address: str

    def build(self, context: Path, base: Image, name: str, target: Path) -> None:
        """Build the Dockerfile in ``context`` on ``base`` into an image layout."""
        command = [
            programs.path("buildctl"), f"--addr={self.address}", "build", "--progress=plain",
            "--frontend=dockerfile.v0", f"--local=context={context}", f"--local=dockerfile={context}",
            f"--opt=build-arg:BASE={_BASE}", f"--oci-layout={_BASE}={base.folder}",
            f"--opt=context:{_BASE}=oci-layout://{_BASE}@{base.digest}",
            f"--output=type=oci,tar=false,name={name},dest={target}",
        ]  # fmt: skip
        outcome = subprocess.run(command, check=False, capture_output=True, text=True)
        if outcome.returncode:
            raise tools.ToolError(f"the image could not be built:\n{outcome.stderr[-6000:]}")

    def answers(self) -> bool:
        """Whether it takes work."""
        asked = [programs.path("buildctl"), f"--addr={self.address}", "debug", "workers"]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def building() -> Iterator[Builder]:
    """A builder that shares this machine's network, for the package index, and nothing else."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        builder = Builder(f"unix://{folder / 'buildkitd.sock'}")
        group = cgroups.create(os.getpid())
        daemon = Process("buildkitd", _command(folder, builder, group), log=folder / "buildkitd.log")
        daemon.start()
        try:
            daemon.until(builder.answers, 30, "BuildKit answers")
            yield builder
        finally:
            daemon.kill()
            cgroups.remove(group)


def _command(folder: Path, builder: Builder, group: str) -> list[str]:
    settings = folder / "buildkitd.toml"
    settings.write_text(
        f"""root = "{tools.cache() / "buildkit"}"
[grpc]
address = ["{builder.address}"]
[worker.oci]
enabled = true
binary = "{programs.path("runc")}"
networkMode = "host"
defaultCgroupParent = "/{group}"
maxUsedSpace = "3GB"
[worker.containerd]
enabled = false
"""
    )
    return [
        "unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc",
        programs.path("buildkitd"), f"--config={settings}",
    ]  # fmt: skip
