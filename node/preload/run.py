"""
Imports one archive, says what it was, and ends: all that an import takes of memory ends with it.

Started by :mod:`node.kubelet.preload`. The archive is gone through once, and what it holds is
written under a lease as it comes; nothing refers to any of it until all of it is there and
unpacked. Of an image layout that is not compressed only what this machine needs is read.
"""

import hashlib
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from node.cri.generated import images_pb2
from node.cri.reference import PIN, PINNED
from node.cri.store import SNAPSHOTTER, Store, WrongLayer
from node.cri.wire import CallFailed
from node.preload.archive import Archive, BadArchive, Member, compression
from node.preload.plan import Blob, Descriptor, Image, Machine, Unusable, images

_DOCUMENT = 4 << 20  # bytes; the largest manifest that registries take
_DOCUMENTS = 32 << 20  # all of them
_BLOBS = "blobs/sha256/"
_OURS = frozenset({"oci-layout", "index.json", "manifest.json", "repositories"})
_MACHINES = {
    "x86_64": Machine("amd64"),
    "aarch64": Machine("arm64"),
    "armv7l": Machine("arm", "v7"),
    "armv6l": Machine("arm", "v6"),
    "i686": Machine("386"),
    "riscv64": Machine("riscv64"),
}


class Writes(Protocol):
    """What takes the contents of files: :class:`node.cri.store.Store`."""

    def write(self, ref: str, size: int, chunks: Iterable[bytes], expected: str = "") -> str: ...


class Ingest:
    """Its mutable state: the files of the archive so far, by name, and documents, by digest."""

    def __init__(self, store: Writes | None, wanted: Container[str] | None = None) -> None:
        """``store`` None: only look; ``wanted``: digests, None where it is not known yet."""
        self.documents: dict[str, bytes] = {}
        self._files: dict[str, Blob] = {}
        self._links: dict[str, str] = {}
        self._store = store
        self._wanted = wanted
        self._room = _DOCUMENTS
        self._ref = f"pinnace-{secrets.token_hex(8)}"

    def take(self, member: Member, pieces: Iterator[bytes]) -> None:
        """Look at one file, and write it to the store."""
        if member.target:
            self._links[member.name] = member.target
            return
        digest, first = _named(member.name), b""
        if self._store is not None or member.size <= _DOCUMENT:
            first = next(pieces, b"")
        if member.size <= _DOCUMENT and first.lstrip()[:1] in {b"{", b"["}:
            first += b"".join(pieces)
            digest = self._keep(first)
        if self._store is not None and self._is_wanted(member, digest):
            ref = f"{self._ref}-{len(self._files)}"
            everything = itertools.chain([first] if first else [], pieces)
            digest = self._store.write(ref, member.size, everything, digest)
        packed = bool(compression(first[:6]))
        self._files[member.name] = Blob(digest=digest, size=member.size, packed=packed)

    def files(self) -> dict[str, Blob]:
        """By name, and by each link's name."""
        found = dict(self._files)
        for name in self._links:
            target, steps = name, 0
            while target in self._links and steps <= len(self._links):
                target, steps = self._links[target], steps + 1
            if target in self._files:
                found[name] = self._files[target]
        return found

    def _keep(self, body: bytes) -> str:
        self._room -= len(body)
        if self._room < 0:
            raise BadArchive(f"more than {_DOCUMENTS >> 20} MiB of JSON")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.documents[digest] = body
        return digest

    def _is_wanted(self, member: Member, digest: str) -> bool:
        if self._wanted is None:
            return member.name not in _OURS
        return digest in self._wanted


def load(store: Store, path: Path, machine: Machine) -> list[Image]:
    """
    Import the archive; what is in it now. All of it, or nothing.

    Raises :class:`BadArchive`, :class:`Unusable`, :class:`WrongLayer`, :class:`CallFailed`, and
    ``OSError``.
    """
    archive = Archive(path)
    day = time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
    undated = f"import-{day}"  # as ctr names what has only a tag, but by the file's day
    wanted = _wanted(archive, machine, undated) if archive.jumps else None
    with store.lease():
        ingest = Ingest(store, wanted)
        for member, pieces in archive.members():
            ingest.take(member, pieces)
        files = ingest.files()
        found = images(files, ingest.documents, machine, undated)
        there = {blob.digest for blob in files.values()}
        for image in found:
            _complete(store, image, there)
        for image in found:
            for name in image.names:
                store.put_image(name, _message(image.target), {PIN: PINNED})
    return found


def _wanted(archive: Archive, machine: Machine, undated: str) -> frozenset[str] | None:
    """Of an image layout, what this machine needs; None of another archive: all there is."""
    look = Ingest(None)
    for member, pieces in archive.members():
        look.take(member, pieces)
    files = look.files()
    if "oci-layout" not in files:
        return None
    found = images(files, look.documents, machine, undated)
    return frozenset(digest for image in found for digest in image.content())


def _complete(store: Store, image: Image, there: Container[str]) -> None:
    """See that all content is there, labelled and unpacked."""
    if image.made:
        ref = f"pinnace-{secrets.token_hex(8)}"
        store.write(ref, len(image.made), [image.made], image.target.digest)
    for digest in image.content():
        if digest not in there and not (image.made and digest == image.target.digest):
            raise Unusable(f"{digest} is missing, which {image.names[0]} consists of")
    for digest, labels in image.labels.items():
        store.label(digest, labels)
    top = store.unpack([_message(layer) for layer in image.layers], image.diff_ids)
    if top:
        store.label(image.config.digest, {f"containerd.io/gc.ref.snapshot.{SNAPSHOTTER}": top})
    for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
        if layer.digest != diff_id:
            store.label(layer.digest, {"containerd.io/uncompressed": diff_id})


def this_machine() -> Machine:
    """A 32-bit system on a 64-bit kernel runs programs of 32 bits."""
    name = os.uname().machine
    if sys.maxsize < 1 << 32:
        name = {"aarch64": "armv7l", "x86_64": "i686"}.get(name, name)
    return _MACHINES.get(name) or Machine(name)


def _named(name: str) -> str:
    """The digest that the name of a file is; "" where it is another one."""
    hexadecimal = name.removeprefix(_BLOBS)
    return f"sha256:{hexadecimal}" if name.startswith(_BLOBS) and len(hexadecimal) == 64 else ""


def _message(descriptor: Descriptor) -> images_pb2.Descriptor:
    return images_pb2.Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=descriptor.annotations,
    )


def main(arguments: Mapping[str, str]) -> int:
    """``socket`` and ``archive``; writes the names and ids of the images, or why there are none."""
    try:
        store = Store(Path(arguments["socket"]))
        found = load(store, Path(arguments["archive"]), this_machine())
    except (BadArchive, Unusable, WrongLayer, CallFailed, EOFError, OSError) as err:
        sys.stderr.write(" ".join(str(err).split()))
        return 1
    names = {name: image.config.digest for image in found for name in image.names}
    sys.stdout.write(json.dumps(names))
    return 0
