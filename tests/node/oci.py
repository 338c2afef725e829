"""What is an image here: a folder in the OCI's image layout, made of files or by a builder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_COMPRESSION = 6
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """One image under its full name, in a folder with the layout."""

    name: str
    folder: Path

    @property
    def short_name(self) -> str:
        """As a manifest would name it."""
        return self.name.removeprefix("docker.io/").removeprefix("library/")

    @property
    def digest(self) -> str:
        """The digest of its manifest."""
        return str(self._index()["manifests"][0]["digest"])

    def manifest(self) -> dict[str, Any]:
        """Its manifest."""
        return self._blob(self.digest)

    def config(self) -> dict[str, Any]:
        """What it runs, as whom, with which environment."""
        return self._blob(self.manifest()["config"]["digest"])

    def layers(self) -> dict[str, int]:
        """The size of each layer as it travels, compressed."""
        return {layer["digest"]: layer["size"] for layer in self.manifest()["layers"]}

    def archive(self) -> bytes:
        """All of it as one tar file, as a runtime imports it."""
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as archive:
            archive.add(self.folder, arcname=".")
        return target.getvalue()

    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        return index

    def _blob(self, digest: str) -> dict[str, Any]:
        blob: dict[str, Any] = json.loads((self.folder / "blobs" / digest.replace(":", "/")).read_text())
        return blob


def from_files(name: str, root: Path, target: Path, config: Mapping[str, Any]) -> Image:
    """An image of one layer, all that lies under ``root``; ``config`` as Docker's image configuration has it."""
    (target / "blobs" / "sha256").mkdir(parents=True)
    unpacked, layer = _add_layer(target, root)
    facts = {"architecture": _architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": [unpacked]}}
    described = _add(target, _CONFIG, json.dumps({**facts, "config": dict(config)}).encode())
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": [layer]}
    listed = {**_add(target, _MANIFEST, json.dumps(manifest).encode()), "annotations": _named(name)}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [listed]}))
    (target / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return Image(name, target)


def _named(name: str) -> dict[str, str]:
    return {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}


def _add_layer(target: Path, root: Path) -> tuple[str, dict[str, Any]]:
    plain, packed = target / "layer.tar", target / "layer.tar.gz"
    with tarfile.open(plain, "w") as archive:
        archive.add(root, arcname=".")
    with plain.open("rb") as source, gzip.GzipFile(packed, "wb", compresslevel=_COMPRESSION, mtime=0) as sink:
        shutil.copyfileobj(source, sink, _CHUNK)
    unpacked, digest = _digest(plain), _digest(packed)
    described = {"mediaType": _LAYER, "digest": digest, "size": packed.stat().st_size}
    plain.unlink()
    packed.rename(target / "blobs" / digest.replace(":", "/"))
    return unpacked, described


def _add(target: Path, kind: str, content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    (target / "blobs" / digest.replace(":", "/")).write_bytes(content)
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def listing(layer: Path) -> list[str]:
    """The names of all files in a layer."""
    with tarfile.open(layer) as archive:
        return archive.getnames()
