"""Where do the node's images come from, without a registry: Debian's packages, the cache, the project's own Dockerfile.

Each is kept in the cache under a digest of everything that it is made of, so that it is made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.node import configuration, debian, oci, programs
from tests.node.builder import building
from tests.node.oci import Image
from tests.testbed import tools

BASE = "docker.io/library/python:3.13-slim"
OPERATOR = "docker.io/library/certrenewal:node"
STEP_CA = "docker.io/smallstep/step-ca:node"
STEP_CLI = "docker.io/smallstep/step-cli:latest"

_CHECKOUT = Path(__file__).parents[2]
_SUITE = "trixie"  # its Python is 3.13
_MIRROR = os.environ.get("CERTRENEWAL_DEBIAN", "http://deb.debian.org/debian")
_PACKAGES = ("python3", "python3-pip", "ca-certificates", "procps")
_CLI_PACKAGES = ("ca-certificates", "curl", "jq")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TRUST = "etc/ssl/certs/ca-certificates.crt"
_PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
_SOURCES = ("Dockerfile", ".dockerignore", "requirements.lock", "pyproject.toml", "README.md", "LICENSE", "operator")
_KEPT = 6


def build() -> None:
    """Everything that is not in the cache yet."""
    for image in (pause, python, step_ca, step_cli, operator):
        image()


def pause() -> Image:
    """The image that every pod's own container is of."""
    return _of_program(configuration.PAUSE_IMAGE, "pause", {"Entrypoint": ["/pause"]})


def step_ca() -> Image:
    """step-ca alone: no shell, no CLI."""
    return _of_program(STEP_CA, "step-ca", {"Entrypoint": ["/step-ca"], "User": "1000:1000"})


def python() -> Image:
    """A Debian with Python, pip and ``kill``, which stands for ``python:3.13-slim``; it trusts whom this machine trusts."""
    trusted = _trusted()
    key = _key("|".join([_SUITE, _MIRROR, *_PACKAGES]).encode(), trusted, str(_environment()).encode())

    def make(folder: Path) -> None:
        print(f"making a base image of Debian {_SUITE} …", flush=True)
        root = folder.with_name("root")
        _debootstrap(root, _PACKAGES)
        (root / _TRUST).write_bytes(trusted)
        oci.from_files(BASE, root, folder, {"Cmd": ["python3"], "Env": _environment()})

    return Image(BASE, _kept("python", key, make))


def step_cli() -> Image:
    """A Debian with step, curl and jq, as docs/tokens.md wants it; it is loaded by those who use it."""
    step = Path(tools.path("step"))
    key = _key("|".join([_SUITE, _MIRROR, *_CLI_PACKAGES]).encode(), step.parent.name.encode())

    def make(folder: Path) -> None:
        print(f"making an image of step on Debian {_SUITE} …", flush=True)
        root = folder.with_name("root")
        _debootstrap(root, _CLI_PACKAGES)
        shutil.copy2(step, root / "usr/bin/step")
        oci.from_files(STEP_CLI, root, folder, {"Cmd": ["bash"], "Env": [_PATH]})

    return Image(STEP_CLI, _kept("step-cli", key, make))


def operator() -> Image:
    """certrenewal, by the project's own Dockerfile."""
    base = python()
    key = _key(base.digest.encode(), *_sources())

    def make(folder: Path) -> None:
        print("building the operator's image …", flush=True)
        with building() as builder:
            builder.build(_CHECKOUT, base, OPERATOR, folder)

    return Image(OPERATOR, _kept("certrenewal", key, make))


def _of_program(name: str, program: str, config: dict[str, object]) -> Image:
    source = Path(programs.path(program))

    def make(folder: Path) -> None:
        root = folder.with_name("root")
        root.mkdir(mode=0o755)
        shutil.copy2(source, root / program)
        oci.from_files(name, root, folder, config)

    return Image(name, _kept(program, _key(source.parent.name.encode(), str(config).encode()), make))


def _kept(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder of that key; made where it is missing, and then those of its kind that nobody used for longest are removed."""
    store = tools.cache() / "images"
    found = store / f"{kind}-{key}"
    if found.exists():
        found.touch()
        return found
    store.mkdir(parents=True, exist_ok=True)
    with tools.one_builder(), tempfile.TemporaryDirectory(dir=store) as scratch:
        if not found.exists():  # another clone may have made it while we waited
            made = Path(scratch) / "image"
            make(made)
            made.rename(found)
    others = sorted(store.glob(f"{kind}-*"), key=lambda folder: folder.stat().st_mtime)
    for old in others[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return found


def _debootstrap(root: Path, packages: Sequence[str]) -> None:
    own = debian.root() / "usr/share/debootstrap"
    environment = {**os.environ, **({"DEBOOTSTRAP_DIR": str(own)} if own.exists() else {})}
    environment["PATH"] += ":/usr/sbin:/sbin"
    command = [
        "unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc", str(debian.program("debootstrap")),
        "--variant=minbase", f"--include={','.join(packages)}", _SUITE, str(root), _MIRROR,
    ]  # fmt: skip
    outcome = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if outcome.returncode:
        raise tools.ToolError(f"debootstrap failed:\n{outcome.stdout[-3000:]}{outcome.stderr[-1000:]}")
    for left in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log"):
        shutil.rmtree(root / left, ignore_errors=True)
        (root / left).mkdir(mode=0o755)


def _trusted() -> bytes:
    file = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or f"/{_TRUST}"
    return Path(file).read_bytes()


def _environment() -> list[str]:
    passed_on = [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ]
    return [_PATH, f"PIP_CERT=/{_TRUST}", *passed_on]


def _sources() -> Iterator[bytes]:
    for name in _SOURCES:
        for file in _files(_CHECKOUT / name):
            yield str(file.relative_to(_CHECKOUT)).encode()
            yield file.read_bytes()


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _key(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
