"""Which programs make a node, and how are they built: pinned Go modules, kept in the testbed's cache.

Only the standard library is used: ``python3 -m tests.node.programs`` runs before anything else is installed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.node import debian
from tests.testbed import tools
from tests.testbed.tools import Tool, ToolError

CONTAINERD = "v2.4.2"
RUNC = "v1.5.2"
CNI = "v1.9.1"
COREDNS = "v1.15.0"
BUILDKIT = "v0.34.2"

_GROUP = "node-tools"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runc(Tool):
    """runc speaks to libseccomp in C; both are linked into one file that needs nothing of the machine."""

    def command(self, target: Path) -> tuple[list[str], Path | None, dict[str, str]]:
        command, folder, environment = Tool.command(self, target)
        libraries = [f"-L{path}" for path in debian.libraries().split(":") if path]
        c_compiler = {
            "CGO_ENABLED": "1",
            "PKG_CONFIG": "true",  # it says nothing: the flags stand here
            "CGO_CFLAGS": f"-I{debian.root() / 'usr/include'}",
            "CGO_LDFLAGS": " ".join([*libraries, "-lseccomp"]),
        }
        install, flags, *rest = command[:2], "-tags=seccomp,netgo,osusergo", *command[2:]
        return [*install, flags, *rest], folder, {**environment, **c_compiler}


def _module(name: str, package: str, version: str) -> Tool:
    return Tool(name=name, package=package, version=version, group=_GROUP)


def _of_kubernetes(name: str) -> Tool:
    server = tools.TOOLS["kube-apiserver"]
    return Tool(
        name=name,
        package=f"k8s.io/kubernetes/cmd/{name}",
        version=server.version,
        module=server.module,
        ldflags=server.ldflags,
        group=_GROUP,
    )


PROGRAMS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        *(_of_kubernetes(name) for name in ("kube-scheduler", "kube-proxy", "kubelet")),
        *(
            _module(name, f"github.com/containerd/containerd/v2/cmd/{name}", CONTAINERD)
            for name in ("containerd", "containerd-shim-runc-v2", "ctr")
        ),
        *(
            _module(name, f"github.com/containernetworking/plugins/plugins/{kind}/{name}", CNI)
            for kind, name in (("main", "ptp"), ("main", "loopback"), ("ipam", "host-local"))
        ),
        _Runc(
            name="runc",
            package="github.com/opencontainers/runc",
            version=RUNC,
            ldflags="-extldflags -static",
            group=_GROUP,
        ),
        *(
            Tool(
                name=name,
                package=f"github.com/moby/buildkit/cmd/{name}",
                version=BUILDKIT,
                module="buildkit",
                group=_GROUP,
            )
            for name in ("buildkitd", "buildctl")
        ),
        Tool(name="coredns", package=".", version=COREDNS, module="coredns", group=_GROUP),
        Tool(name="pause", package=".", version="v1", module="pause", group=_GROUP),
    )
}


def path(name: str) -> str:
    """One of these, or one of the testbed's; a ToolError tells how to build it where it is missing."""
    return tools.built(PROGRAMS[name]) if name in PROGRAMS else tools.path(name)


def folder(name: str) -> str:
    """The folder in which the program lies, for a search path."""
    return str(Path(path(name)).parent)


def build() -> None:
    """Everything that a node is made of, as far as it is missing."""
    debian.fetch()
    tools.build(PROGRAMS.values())


if __name__ == "__main__":
    try:
        build()
    except ToolError as failure:
        sys.exit(str(failure))
