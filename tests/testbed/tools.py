"""Where do the testbed's programs come from: built once from pinned Go modules, then kept in a cache.

The cache lies outside the checkout (``CERTRENEWAL_CACHE``, else ``$XDG_CACHE_HOME/certrenewal``) and its
folders are named for the versions, so that every later clone starts at once. Only the standard library is
used: this runs before anything else is installed (``python3 tests/testbed/tools.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MINIMUM_GO = (1, 26)
KUBERNETES = "v1.37.2"
ETCD = "v3.7.3"

_MODULES = Path(__file__).parent / "tools"
_VERSION_FLAGS = (
    f"-X k8s.io/component-base/version.gitVersion={KUBERNETES} "
    "-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
)


class ToolError(RuntimeError):
    """A program is missing or could not be built; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One program: its package, its version, and the local module that pins it (none: ``go install``).

    ``group`` is the make target that builds it.
    """

    name: str
    package: str
    version: str
    module: str = ""
    ldflags: str = ""
    group: str = "tools"

    @property
    def path(self) -> Path:
        """Where the built program lies in the cache."""
        return cache() / "bin" / f"{self.name}-{self.version}-{self._pin()}" / self.name

    def _pin(self) -> str:
        """A short hash of everything else that decides what is built."""
        digest = hashlib.sha256(f"{self.package} {self.ldflags}".encode())
        if self.module:
            for file in ("go.mod", "main.go"):
                source = _MODULES / self.module / file
                digest.update(source.read_bytes() if source.exists() else b"")
        return digest.hexdigest()[:8]

    def command(self, target: Path) -> tuple[list[str], Path | None, dict[str, str]]:
        """The build command, its working folder and its environment, leaving ``target/<name>``."""
        ldflags = f"-s -w {self.ldflags}".strip()
        environment = {**os.environ, "CGO_ENABLED": "0"}
        if not self.module:
            return (
                ["go", "install", "-ldflags", ldflags, f"{self.package}@{self.version}"],
                None,
                {**environment, "GOBIN": str(target)},
            )
        return (
            ["go", "build", "-mod=readonly", "-ldflags", ldflags, "-o", str(target / self.name), self.package],
            _MODULES / self.module,
            environment,
        )


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(name="etcd", package="go.etcd.io/etcd/server/v3", version=ETCD, module="etcd"),
        Tool(name="step-ca", package="github.com/smallstep/certificates/cmd/step-ca", version="v0.30.2"),
        Tool(name="step", package="github.com/smallstep/cli/cmd/step", version="v0.30.6"),
        Tool(name="kwok", package="sigs.k8s.io/kwok/cmd/kwok", version="v0.8.0"),
        Tool(name="helm", package="helm.sh/helm/v4/cmd/helm", version="v4.3.1"),
        *(
            Tool(
                name=name,
                package=f"k8s.io/kubernetes/cmd/{name}",
                version=KUBERNETES,
                module="kubernetes",
                ldflags=_VERSION_FLAGS,
            )
            for name in ("kubectl", "kube-apiserver", "kube-controller-manager")
        ),
    )
}


def cache() -> Path:
    """The folder that outlives checkouts."""
    if chosen := os.environ.get("CERTRENEWAL_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certrenewal"


def path(name: str) -> str:
    """The program ``name``; a ToolError tells how to build it where it is missing."""
    return built(TOOLS[name])


def built(tool: Tool) -> str:
    """As ``path``, for a tool of any group."""
    if not tool.path.exists():
        raise ToolError(
            f"{tool.name} {tool.version} is not built yet: run `make {tool.group}` (about ten minutes, once)"
        )
    return str(tool.path)


def build(wanted: Iterable[Tool] = tuple(TOOLS.values())) -> None:
    """Build what is missing of ``wanted``, with a line of progress for each."""
    missing = [tool for tool in wanted if not tool.path.exists()]
    if not missing:
        return
    _require_go()
    cache().mkdir(parents=True, exist_ok=True)
    with one_builder():
        for number, tool in enumerate(missing, start=1):
            if not tool.path.exists():  # another clone may have built it while we waited
                _build(tool, f"[{number}/{len(missing)}]")


def _build(tool: Tool, place: str) -> None:
    started = time.monotonic()
    print(f"{place} building {tool.name} {tool.version} …", end="", flush=True)
    tool.path.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        command, folder, environment = tool.command(Path(scratch))
        outcome = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        if outcome.returncode:
            print(" failed", flush=True)
            raise ToolError(f"`{' '.join(command)}` failed:\n{outcome.stderr[-4000:]}")
        finished = Path(scratch) / "finished"
        finished.mkdir(mode=0o755)
        shutil.move(Path(scratch) / tool.name, finished / tool.name)
        # A rename is the only visible step, so that a build cut short leaves nothing that looks whole.
        finished.rename(tool.path.parent)
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def _require_go() -> None:
    wanted = ".".join(map(str, MINIMUM_GO))
    if not shutil.which("go"):
        raise ToolError(f"Go {wanted} or newer is needed to build the testbed's programs: see https://go.dev/dl")
    said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < MINIMUM_GO:
        raise ToolError(f"Go {wanted} or newer is needed, found {said.strip()}: see https://go.dev/dl")


@contextlib.contextmanager
def one_builder() -> Iterator[None]:
    with (cache() / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build of the same tools is under way; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str]) -> None:
    """``tools.py`` builds what is missing, ``tools.py path NAME`` tells where a program lies."""
    match arguments:
        case []:
            build()
        case ["path", name]:
            print(path(name))
        case _:
            raise ToolError(f"usage: tools.py [path {'|'.join(TOOLS)}]")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ToolError as failure:
        sys.exit(str(failure))
