"""Can this machine run a node, and what is missing where it cannot?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.node import cgroups, debian, programs

_SYSTEM_PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ip": "iproute2"}
_TRIAL = ["unshare", "-m", "-n", "-p", "-u", "-i", "--fork", "--kill-child", "--mount-proc", "true"]


def missing() -> list[str]:
    """What this machine lacks, each with a way to get it; empty where a node can run."""
    if sys.platform != "linux":
        return ["Linux: run it in a virtual machine"]
    if os.geteuid() != 0:
        return ["root: run it as root, in a virtual machine for choice"]
    return [*_programs(), *_kernel(), *_builders()]


def message(lacks: list[str]) -> str:
    """One line for the end of a run."""
    return "a real node cannot run here; missing: " + "; ".join(lacks)


def _programs() -> Iterator[str]:
    for name, package in _SYSTEM_PROGRAMS.items():
        if not shutil.which(name):
            yield f"{name} (apt-get install {package})"


def _kernel() -> Iterator[str]:
    if not cgroups.hierarchies():
        yield "control groups (mounted at /sys/fs/cgroup)"
    elif not any(os.access(hierarchy, os.W_OK) for hierarchy in cgroups.hierarchies()):
        yield "writable control groups (a privileged container, or a virtual machine)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        yield "overlayfs (modprobe overlay)"
    if shutil.which("unshare") and subprocess.run(_TRIAL, check=False, capture_output=True).returncode:
        yield "namespaces (a privileged container, or a virtual machine)"


def _builders() -> Iterator[str]:
    """What is needed to fetch and build, where the cache does not have it yet."""
    if not debian.root().exists() and not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        yield "apt-get and dpkg-deb (Debian or one of its kin)"
    unbuilt = [tool.name for tool in programs.PROGRAMS.values() if not tool.path.exists()]
    if unbuilt and not shutil.which("go"):
        yield "Go (https://go.dev/dl)"
    if "runc" in unbuilt and not shutil.which("gcc"):
        yield "a C compiler (apt-get install gcc libc6-dev)"
