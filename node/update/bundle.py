"""
What a bundle is, and what is wrong with one: read, verified and judged without RAUC.

A bundle is a payload, a CMS signature that holds the manifest, and the length of that signature
in eight bytes. The signature stands at the end, so a file that was cut off has none: whether one
is missing or damaged is told from the payload's own first block, which says how long it is.
The payload of an image is a squashfs and its dm-verity hash tree; that of a package for a plain
Debian is a tar archive, whose first member says its length.
Source: RAUC's reference, "Bundle Formats"; the squashfs superblock.
"""

import configparser
import hashlib
import json
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography import x509

from node.update import der, signature, verity
from node.update.base import Bundle, InstallError, RefusedError
from node.update.version import parse

COMPATIBLE = "pinnace-"  # and the board
PACKAGE = "package-"  # boards of packages begin so
FIRST_MEMBER = "pinnace-package.json"  # of a package: {"size": bytes of the payload}
LENGTH = 8  # bytes that say how long the signature is
LARGEST_SIGNATURE = 64 << 10  # RAUC's limit as well
_SQUASHFS = b"hsqs"
_BLOCK = verity.BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the signer says of the payload."""

    compatible: str
    version: str
    build: str
    format: str  # "verity", "tar"
    payload: int  # bytes, without the hash tree
    tree: int  # bytes of the hash tree; 0 for a tar archive
    root: bytes  # of the tree; of a tar archive the SHA-256 of the payload
    salt: bytes
    signer: str

    @property
    def board(self) -> str:
        return self.compatible.removeprefix(COMPATIBLE)


def check(path: Path, keyring: Path, board: str) -> Bundle:
    """
    Verify a whole bundle: signature, manifest, board, and every byte of the payload.

    Reads the file once; blocks. Raises :class:`RefusedError`, and :class:`InstallError` where
    the file or the keyring cannot be read.
    """
    try:
        anchors = signature.keyring(keyring)
    except (OSError, ValueError) as err:
        raise InstallError(f"the keyring {keyring} cannot be read: {err}") from err
    try:
        with path.open("rb") as file:
            manifest = read(file, anchors)
            if manifest.board != board:
                message = f"the bundle is for {manifest.compatible}, this is {COMPATIBLE}{board}"
                raise RefusedError("WrongBoard", message)
            check_payload(file, manifest)
            size = file.seek(0, 2)
    except OSError as err:
        raise InstallError(f"{path} cannot be read: {err}") from err
    try:
        version = parse(manifest.version)
    except ValueError as err:
        raise RefusedError("NotABundle", f"the bundle's version: {err}") from err
    return Bundle(version=version, board=manifest.board, size=size, path=path)


def read(file: BinaryIO, anchors: Sequence[x509.Certificate]) -> Manifest:
    """The manifest, once its signature was verified; the payload was not. As :func:`check`."""
    size = file.seek(0, 2)
    cms = _signature(file, size)
    if cms is None:
        raise _without_signature(file, size)
    try:
        signed = signature.verify(cms, anchors)
    except signature.DamagedError as err:
        raise RefusedError("Tampered", f"the bundle was changed: {err}") from err
    except signature.StrangerError as err:
        raise RefusedError("BadSignature", f"the bundle is not trusted: {err}") from err
    found = size - LENGTH - len(cms)
    manifest = _manifest(signed, found)
    fits = manifest.payload + manifest.tree == found
    if manifest.format == "verity":
        fits = manifest.payload > 0 and verity.tree_size(manifest.payload) == manifest.tree
    if not fits:
        raise RefusedError("Tampered", "the bundle was changed: its payload has another length")
    return manifest


def check_payload(file: BinaryIO, manifest: Manifest) -> None:
    """Read the payload and compare with what was signed. Raises :class:`RefusedError`."""
    damaged = RefusedError("Tampered", "the bundle was changed: its payload is not what was signed")
    if manifest.format == "tar":
        file.seek(0)
        digest, left = hashlib.sha256(), manifest.payload
        while left and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
        if left or digest.digest() != manifest.root:
            raise damaged
        return
    try:
        tree = verity.build(file, manifest.payload, manifest.salt)
    except ValueError as err:
        raise damaged from err
    file.seek(manifest.payload)
    if tree.root != manifest.root or file.read(manifest.tree) != tree.data:
        raise damaged


def _signature(file: BinaryIO, size: int) -> bytes | None:
    """The signature at the end, where there is something of its form and length."""
    if size <= LENGTH:
        return None
    file.seek(size - LENGTH)
    length = int.from_bytes(file.read(LENGTH))
    if not 0 < length <= min(LARGEST_SIGNATURE, size - LENGTH):
        return None
    file.seek(size - LENGTH - length)
    cms = file.read(length)
    try:
        head, body = der.header(cms[:6])
    except der.DerError:
        return None
    return cms if cms[0] == der.SEQUENCE and head + body == length else None


def _without_signature(file: BinaryIO, size: int) -> RefusedError:
    """Why there is no signature at the end: cut off, changed, or never a bundle."""
    declared = _declared(file)
    if declared is None:
        return RefusedError("NotABundle", "this file is no update bundle")
    short = RefusedError("Truncated", f"the bundle is cut off: only {size} bytes are there")
    if size < declared + 6:
        return short
    file.seek(declared)
    beginning = file.read(6)
    try:
        head, body = der.header(beginning)
    except der.DerError:
        head, body = 0, 0
    if beginning[0] != der.SEQUENCE or not 0 < body <= LARGEST_SIGNATURE:
        return RefusedError("Tampered", "the bundle was changed: its signature is damaged")
    if size < declared + head + body + LENGTH:
        return short
    return RefusedError("Tampered", "the bundle was changed: its end is not that of a bundle")


def _declared(file: BinaryIO) -> int | None:
    """How long the payload is according to its own first block, the hash tree included."""
    file.seek(0)
    block = file.read(_BLOCK)
    if block[:4] == _SQUASHFS and len(block) >= 96:
        used = int.from_bytes(block[40:48], "little")
        payload = -(-used // _BLOCK) * _BLOCK
        return payload + verity.tree_size(payload)
    with suppress(tarfile.TarError, ValueError, KeyError, TypeError):
        member = tarfile.TarInfo.frombuf(block[:512], "utf-8", "strict")
        if member.name == FIRST_MEMBER:
            return int(json.loads(block[512 : 512 + member.size])["size"])
    return None


def _manifest(signed: signature.Signed, found: int) -> Manifest:
    """``found``: bytes in front of the signature; RAUC's manifest says only the tree's part."""
    parser = configparser.RawConfigParser(strict=True)
    try:
        parser.read_string(signed.content.decode())
        update, bundle = parser["update"], parser["bundle"]
        kind = bundle["format"]
        if kind == "verity":
            tree = int(bundle["verity-size"])
            root, salt = (bytes.fromhex(bundle[f"verity-{name}"]) for name in ("hash", "salt"))
            payload = found - tree
        elif kind == "tar":
            tree, salt = 0, b""
            root, payload = bytes.fromhex(bundle["sha256"]), int(bundle["size"])
        else:
            raise ValueError(f"format {kind!r} is not supported")
        return Manifest(
            compatible=update["compatible"],
            version=update["version"],
            build=update.get("build", ""),
            format=kind,
            payload=payload,
            tree=tree,
            root=root,
            salt=salt,
            signer=signed.signer,
        )
    except (configparser.Error, KeyError, ValueError) as err:
        raise RefusedError("NotABundle", f"the bundle's manifest cannot be read: {err}") from err
