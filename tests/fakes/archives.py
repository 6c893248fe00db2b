"""Archives of images as others write them: image layouts and what ``docker save`` makes."""

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.ociimage import FOLDERS, layer

Files = dict[str, bytes | str]  # a str is the target of a symbolic link
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]
OCI = "application/vnd.oci.image"
PACKERS = ("gzip", "zstd", "bzip2", "xz", "lz4")


@dataclass
class Layout:
    """An image layout that grows; ``files`` is what it is so far, without the top."""

    files: Files = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def blob(self, data: bytes, media: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    def manifest(
        self,
        layers: Sequence[bytes],
        *,
        architecture: str = MACHINE,
        config: Mapping[str, Any] | None = None,
        packed: bool = False,
    ) -> dict[str, Any]:
        """Its descriptor, with its platform."""
        media = f"{OCI}.layer.v1.tar{'+gzip' if packed else ''}"
        body = {
            "schemaVersion": 2,
            "config": self.blob(
                configuration(layers, architecture, config), f"{OCI}.config.v1+json"
            ),
            "layers": [self.blob(pack("gzip", data) if packed else data, media) for data in layers],
        }
        found = self.blob(json.dumps(body).encode(), f"{OCI}.manifest.v1+json")
        return {**found, "platform": {"architecture": architecture, "os": "linux"}}

    def index(self, entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        body = {"schemaVersion": 2, "manifests": list(entries)}
        return self.blob(json.dumps(body).encode(), f"{OCI}.index.v1+json")

    def name(self, descriptor: Mapping[str, Any], name: str, key: str = "") -> None:
        """Put it at the top; ``key``: of the annotation."""
        annotations = {key or "io.containerd.image.name": name}
        self.entries.append({**descriptor, "annotations": annotations})

    def whole(self) -> Files:
        top = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        return {**self.files, "index.json": top, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def docker(
    images: Sequence[tuple[Sequence[str], Sequence[bytes]]],
    *,
    packed: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Files:
    """Each image: its tags and its layers. A layer that came before is a link, as in old ones."""
    files: Files = {}
    listed, seen = [], dict[bytes, str]()
    for number, (tags, layers) in enumerate(images):
        body = configuration(layers, MACHINE, config)
        name = f"{hashlib.sha256(body).hexdigest()}.json"
        files[name] = body
        paths = []
        for place, data in enumerate(layers):
            path = f"{number}{place}/layer.tar"
            paths.append(path)
            if data in seen:
                files[path] = f"../{seen[data]}"
            else:
                files[path] = pack("gzip", data) if packed else data
                seen[data] = path
        listed.append({"Config": name, "RepoTags": list(tags) or None, "Layers": paths})
    files["manifest.json"] = json.dumps(listed).encode()
    return files


def configuration(
    layers: Sequence[bytes], architecture: str, config: Mapping[str, Any] | None = None
) -> bytes:
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    about = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(about).encode()


def plain_layer(seed: int, size: int = 3_000) -> bytes:
    """A tar of one file that does not compress."""
    return layer({f"f{seed}": random.Random(seed).randbytes(size)}, ("data",))


def busybox_layers(files: Mapping[str, bytes | str]) -> list[bytes]:
    return [layer(files, FOLDERS)]


def tar(files: Mapping[str, bytes | str], *, shuffled: int | None = None) -> bytes:
    """``shuffled``: a seed; else in the order of ``files``."""
    names = list(files)
    if shuffled is not None:
        random.Random(shuffled).shuffle(names)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name in names:
            info, content = tarfile.TarInfo(name), files[name]
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def pack(program: str, data: bytes) -> bytes:
    """By the program's name; "": as it is."""
    if not program:
        return data
    return subprocess.run([program, "-c"], input=data, capture_output=True, check=True).stdout


def write(path: Path, files: Mapping[str, bytes | str], program: str = "") -> Path:
    path.write_bytes(pack(program, tar(files)))
    return path
