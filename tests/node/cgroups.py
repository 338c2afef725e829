"""Which control groups does a node use: one of its own in every hierarchy, removed with all that grew beneath it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.testbed.processes import until

_PREFIX = "certrenewal-node"
_MOUNTS = Path("/proc/self/mountinfo")


def hierarchies() -> list[Path]:
    """Where control groups are mounted: one place with version 2, one for each controller with version 1."""
    mounts = (line.partition(" - ") for line in _MOUNTS.read_text().splitlines())
    return sorted(
        {Path(place.split()[4]) for place, _, kind in mounts if kind.split()[0] in ("cgroup", "cgroup2")},
    )


def unified() -> bool:
    """Whether version 2 alone is in use."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def name_of(owner: int) -> str:
    """The name of the group that is made for a process."""
    return f"{_PREFIX}-{owner}"


def create(owner: int) -> str:
    """A group named for the process ``owner`` in every hierarchy; its name."""
    name = name_of(owner)
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir()
        if unified():
            controllers = (group / "cgroup.controllers").read_text().split()
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))
    return name


def remove(name: str) -> None:
    """Remove the group, once its processes have ended."""
    groups = [hierarchy / name for hierarchy in hierarchies()]
    until(lambda: all(list(map(_removed, groups))), 20, f"control group {name} removed")


def sweep() -> None:
    """Remove the groups whose owners ended without doing it."""
    for hierarchy in hierarchies():
        for group in hierarchy.glob(f"{_PREFIX}-*"):
            if not Path(f"/proc/{group.name.rpartition('-')[2]}").exists():
                _removed(group)


def left() -> list[Path]:
    """The groups of all nodes, for a test that asks what remains."""
    return [group for hierarchy in hierarchies() for group in hierarchy.glob(f"{_PREFIX}-*")]


def _removed(group: Path) -> bool:
    for folder in _deepest_first(group):
        with contextlib.suppress(OSError):  # busy while a process of it is ending, gone where another was faster
            folder.rmdir()
    return not group.exists()


def _deepest_first(group: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(group, topdown=False):
        yield Path(folder)
