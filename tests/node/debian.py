"""Where do programs come from that are no Go modules: Debian packages, unpacked in the cache and never installed.

Only packages that the machine has not are fetched, with what they need, by apt and from the machine's own sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.testbed.tools import ToolError, cache, one_builder

PACKAGES = ("nftables", "debootstrap", "libseccomp-dev")
_LIBRARIES = ("lib", "usr/lib")


def root() -> Path:
    """The folder with the unpacked packages, named for the release that they are of."""
    return cache() / "debian" / _release()


def fetch() -> None:
    """Fetch and unpack what is missing."""
    if root().exists():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with one_builder(), tempfile.TemporaryDirectory(dir=cache()) as scratch:
        if root().exists():  # another clone may have fetched it while we waited
            return
        print(f"fetching Debian's {', '.join(PACKAGES)} …", flush=True)
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir(mode=0o755)
        for package in _download(Path(scratch)):
            _run("dpkg-deb", "--extract", str(package), str(unpacked))
        root().parent.mkdir(parents=True, exist_ok=True)
        unpacked.rename(root())


def program(name: str) -> Path:
    """The machine's own program of that name, else the unpacked one."""
    if own := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        return Path(own)
    for folder in ("usr/sbin", "usr/bin"):
        if (found := root() / folder / name).exists():
            return found
    raise ToolError(f"{name} is neither installed nor fetched: run `make node-tools`")


def libraries() -> str:
    """A search path of the unpacked libraries, for ``LD_LIBRARY_PATH``."""
    folders = (folder for part in _LIBRARIES for folder in (root() / part).glob("*-linux-gnu*"))
    return ":".join(map(str, folders))


def _release() -> str:
    said = subprocess.run(["dpkg", "--print-architecture"], check=False, capture_output=True, text=True).stdout.strip()
    facts = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return "-".join(facts.get(key, "none").strip('"') for key in ("ID", "VERSION_ID")) + f"-{said}"


def _download(folder: Path) -> list[Path]:
    """The packages, with what they need and the machine has not; lists and archives are kept apart from apt's own."""
    archives, lists = folder / "archives", folder / "lists"
    for made in (archives, lists):
        (made / "partial").mkdir(parents=True)
    apt = [
        "apt-get", "-qq", "--yes", "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache::archives={archives}",
        "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    _run(*apt, "update")
    _run(*apt, "--no-install-recommends", "--download-only", "install", *PACKAGES)
    return sorted(archives.glob("*.deb"))


def _run(*command: str) -> None:
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    if outcome.returncode:
        raise ToolError(f"`{' '.join(command)}` failed:\n{outcome.stdout[-2000:]}{outcome.stderr[-2000:]}")
