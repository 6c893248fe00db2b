"""
Writes RAUC bundles of the format "verity", the same bytes from the same inputs.

``rauc bundle`` draws a random salt and signs with the current time; here the salt is a hash of the
content and the time of signing is the release's. What comes out is what RAUC's reference
describes, and RAUC itself is asked in the tests: a squashfs with the images and the manifest,
padded to blocks of 4096 bytes; the dm-verity hash tree over it; the CMS signature, which holds
the manifest with hash, salt and size of the tree; the length of the signature in eight bytes.
"""

import hashlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance import cms
from appliance.keys import Keys
from node.update import verity
from node.update.bundle import COMPATIBLE, LENGTH

MANIFEST = "manifest.raucm"
Squash = Callable[[Path, Path, int], None]
"""(folder, file to write, seconds since 1970 of everything in it)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One update of one board."""

    board: str  # x86-64
    version: str  # v1.36.3+pinnace1
    epoch: int  # seconds since 1970: when the inputs were fixed
    root: Path  # squashfs of the slot
    boot: Path  # FAT image of the slot's boot partition


def write(content: Content, keys: Keys, target: Path, squash: Squash | None = None) -> Path:
    """
    Make the bundle at ``target``, which appears when it is complete.

    ``squash``: what makes a squashfs; None: the ``mksquashfs`` of this machine, whose version has
    a part in the bytes. Raises OSError, and what ``squash`` raises.
    """
    images = {"rootfs": ("root.squashfs", content.root), "boot": ("boot.img", content.boot)}
    sections = {name: _described(file, path) for name, (file, path) in images.items()}
    staged = target.with_name(f".{target.name}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        folder = Path(scratch, "content")
        folder.mkdir()
        for file, path in images.values():
            _place(path, folder / file)
        (folder / MANIFEST).write_text(_manifest(content, {"format": "verity"}, sections))
        try:
            (squash or mksquashfs)(folder, staged, content.epoch)
            _finish(staged, content, sections, keys)
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
    return target


def seal(file: io.BufferedRandom, manifest: str, keys: Keys, epoch: int) -> None:
    """Append the signature of a manifest, and its length, to a payload."""
    # Not before the key was: its certificate is judged at this time.
    begun = max(certificate.not_valid_before_utc for certificate in keys.certificates)
    when = max(datetime.fromtimestamp(epoch, UTC), begun)
    signature = cms.sign(manifest.encode(), keys.key, keys.certificates, when)
    file.seek(0, io.SEEK_END)
    file.write(signature + len(signature).to_bytes(LENGTH))


def mksquashfs(folder: Path, target: Path, epoch: int) -> None:
    """The images are compressed in themselves already, the boot partition's is mostly empty."""
    command = ["mksquashfs", str(folder), str(target), "-noappend", "-no-progress", "-quiet"]
    command += ["-all-root", "-no-xattrs", "-no-exports", "-comp", "zstd", "-b", "1M"]
    command += ["-Xcompression-level", "9", "-mkfs-time", str(epoch), "-all-time", str(epoch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"mksquashfs: {(done.stderr or done.stdout).strip()}")


def _finish(staged: Path, content: Content, sections: Mapping[str, str], keys: Keys) -> None:
    with staged.open("r+b") as file:
        payload = file.seek(0, io.SEEK_END)
        file.write(bytes(-payload % verity.BLOCK))
        payload += -payload % verity.BLOCK
        salt = hashlib.sha256("".join(sections.values()).encode()).digest()
        tree = verity.build(file, payload, salt)
        file.seek(payload)
        file.write(tree.data)
        fields = {
            "format": "verity",
            "verity-hash": tree.root.hex(),
            "verity-salt": salt.hex(),
            "verity-size": str(len(tree.data)),
        }
        seal(file, _manifest(content, fields, sections), keys, content.epoch)


def _manifest(content: Content, fields: Mapping[str, str], sections: Mapping[str, str]) -> str:
    update = {
        "compatible": COMPATIBLE + content.board,
        "version": content.version,
        "build": str(content.epoch),
    }
    parts = [section("update", update), section("bundle", fields)]
    parts += [f"[image.{name}]\n{text}" for name, text in sections.items()]
    return "\n".join(parts)


def section(name: str, fields: Mapping[str, str]) -> str:
    """One section of a manifest."""
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in fields.items())


def _described(name: str, path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"sha256={digest}\nsize={path.stat().st_size}\nfilename={name}\n"


def _place(source: Path, target: Path) -> None:
    """A hard link where that can be: hundreds of megabytes need no second copy."""
    with suppress(OSError):
        target.hardlink_to(source)
        return
    shutil.copyfile(source, target)
