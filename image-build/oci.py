"""
A small writer of OCI images: files in, one archive out that containerd imports.

It needs no registry, no daemon and no root, and the same input gives the same
bytes: entries are sorted, owners and times are zero.
Source: the OCI image specification 1.1 (image layout, manifest, configuration).
"""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of the image; ``data`` is its content."""

    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


Entry = File | Link | Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What is in an image, and how its container starts."""

    names: tuple[str, ...]  # docker.io/library/busybox:1.35, as kubelet would ask for it
    entries: Mapping[str, Entry]  # by path without a slash in front
    architecture: str  # amd64, arm64, arm
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = ""


def _blob(data: bytes, media_type: str) -> tuple[dict[str, object], bytes]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return {"mediaType": media_type, "digest": digest, "size": len(data)}, data


def _add(archive: tarfile.TarFile, path: str, entry: Entry) -> None:
    info = tarfile.TarInfo(path)
    match entry:
        case File():
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data))
        case Link():
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
            archive.addfile(info)
        case Folder():
            info.type, info.mode = tarfile.DIRTYPE, entry.mode
            info.uid, info.gid = entry.uid, entry.gid
            archive.addfile(info)


def _with_parents(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    complete = dict(entries)
    for path in entries:
        for parent in list(Path(path).parents)[:-1]:
            complete.setdefault(str(parent), Folder())
    return dict(sorted(complete.items()))


def _layer(entries: Mapping[str, Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, entry in _with_parents(entries).items():
            _add(archive, path, entry)
    return buffer.getvalue()


def _configuration(image: Image, diff_id: str) -> bytes:
    run: dict[str, object] = {
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "Env": [f"{key}={value}" for key, value in image.environment.items()],
        "User": image.user,
        "WorkingDir": image.working_dir,
    }
    body = {
        "created": "1970-01-01T00:00:00Z",
        "architecture": image.architecture,
        "os": "linux",
        "config": {key: value for key, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "pinnace"}],
    }
    return json.dumps(body, sort_keys=True).encode()


def _blobs(image: Image) -> tuple[list[tuple[dict[str, object], bytes]], dict[str, object]]:
    """All blobs of one image, and the descriptor of its manifest."""
    layer = _layer(image.entries)
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    packed = _blob(gzip.compress(layer, 6, mtime=0), LAYER)
    config = _blob(_configuration(image, diff_id), CONFIG)
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config[0],
        "layers": [packed[0]],
    }
    manifest = _blob(json.dumps(body, sort_keys=True).encode(), MANIFEST)
    return [packed, config, manifest], manifest[0]


def archive(images: Sequence[Image]) -> bytes:
    """One OCI layout as a tar archive, with every name of every image."""
    files: dict[str, Entry] = {"oci-layout": File(b'{"imageLayoutVersion":"1.0.0"}')}
    listed: list[dict[str, object]] = []
    for image in images:
        blobs, manifest = _blobs(image)
        for descriptor, data in blobs:
            files["blobs/sha256/" + str(descriptor["digest"]).partition(":")[2]] = File(data)
        listed += [
            manifest
            | {
                "platform": {"architecture": image.architecture, "os": "linux"},
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rpartition(":")[2],
                },
            }
            for name in image.names
        ]
    index = {"schemaVersion": 2, "manifests": listed}
    files["index.json"] = File(json.dumps(index, sort_keys=True).encode())
    return _layer(files)
