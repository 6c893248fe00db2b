"""
A small writer of OCI images: files in, one archive out that containerd imports.

It needs no registry, no daemon and no root, and the same input gives the same
bytes: entries are sorted, owners and times are zero. What is large goes from file to
file, so that a board with little memory can make its images itself.
Source: the OCI image specification 1.1 (image layout, manifest, configuration).
"""

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CHUNK = 1 << 20  # bytes
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of the image; ``data`` is its content."""

    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A regular file too large for the memory: its content is read from ``path`` when written."""

    path: Path
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


Entry = File | Stored | Link | Folder


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


Descriptor = dict[str, object]
Press = Callable[[Path, Path], None]  # from a plain file to one that zstd has packed


class Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


@dataclass(slots=True)
class _Measured:
    """Passes on what is written, and knows its digest and size."""

    target: Writable
    size: int = 0
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, data: bytes, /) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self.target.write(data)

    def flush(self) -> None:
        """Asked for by gzip; the target is closed soon."""

    @property
    def digest(self) -> str:
        return f"sha256:{self.hash.hexdigest()}"


def _described(media_type: str, digest: str, size: int) -> Descriptor:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _blob(data: bytes, media_type: str) -> tuple[Descriptor, Entry]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return _described(media_type, digest, len(data)), File(data)


def _add(archive: tarfile.TarFile, path: str, entry: Entry) -> None:
    info = tarfile.TarInfo(path)
    match entry:
        case File():
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            info.size = len(entry.data)
            archive.addfile(info, io.BytesIO(entry.data))
        case Stored():
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
            info.size = entry.path.stat().st_size
            with entry.path.open("rb") as content:
                archive.addfile(info, content)
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


def _tar(entries: Mapping[str, Entry], target: Writable) -> None:
    """Forwards only: the target need not be a file."""
    with tarfile.open(
        fileobj=target,  # type: ignore[call-overload]
        mode="w|",
        format=tarfile.GNU_FORMAT,
        bufsize=CHUNK,
    ) as archive:
        for path, entry in _with_parents(entries).items():
            _add(archive, path, entry)


def _layer(entries: Mapping[str, Entry], target: Path) -> tuple[str, tuple[Descriptor, Entry]]:
    """The digest of the unpacked layer, and the packed one, which is in ``target``."""
    with target.open("wb") as file:
        packed = _Measured(file)
        with gzip.GzipFile("", "wb", 6, packed, 0) as press:
            plain = _Measured(press)
            _tar(entries, plain)
    return plain.digest, (_described(LAYER, packed.digest, packed.size), Stored(target))


def _layer_zstd(
    entries: Mapping[str, Entry], target: Path, press: Press
) -> tuple[str, tuple[Descriptor, Entry]]:
    """As :func:`_layer`, packed by somebody else: Python has no zstd before 3.14."""
    whole = target.with_suffix(".tar")
    with whole.open("wb") as file:
        plain = _Measured(file)
        _tar(entries, plain)
    press(whole, target)
    whole.unlink()
    with target.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    size = target.stat().st_size
    return plain.digest, (_described(LAYER_ZSTD, digest, size), Stored(target))


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


def _blobs(
    image: Image, layer: Path, press: Press | None
) -> tuple[list[tuple[Descriptor, Entry]], Descriptor]:
    """All blobs of one image, and the descriptor of its manifest."""
    if press is None:
        diff_id, packed = _layer(image.entries, layer)
    else:
        diff_id, packed = _layer_zstd(image.entries, layer, press)
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
    """As :func:`write`, in memory."""
    buffer = io.BytesIO()
    write(images, buffer)
    return buffer.getvalue()


def write(
    images: Sequence[Image],
    target: Writable,
    scratch: Path | None = None,
    press: Press | None = None,
) -> None:
    """
    One OCI layout as a tar archive, with every name of every image.

    ``scratch``: the folder for packed layers, until all is written; None: the system's.
    ``press``: packs layers with zstd, which is smaller; None: they are packed with gzip.
    """
    files: dict[str, Entry] = {"oci-layout": File(b'{"imageLayoutVersion":"1.0.0"}')}
    listed: list[Descriptor] = []
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for number, image in enumerate(images):
            blobs, manifest = _blobs(image, Path(folder, f"{number}.layer"), press)
            for descriptor, file in blobs:
                files["blobs/sha256/" + str(descriptor["digest"]).partition(":")[2]] = file
            listed += [_listed(image, name, manifest) for name in image.names]
        index = {"schemaVersion": 2, "manifests": listed}
        files["index.json"] = File(json.dumps(index, sort_keys=True).encode())
        _tar(files, target)


def _listed(image: Image, name: str, manifest: Descriptor) -> Descriptor:
    return manifest | {
        "platform": {"architecture": image.architecture, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        },
    }
