"""Keys, and bundles that are signed with them: whole ones, and such that somebody changed."""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance import bundle, keys
from appliance.bundle import Content, Squash

EPOCH = 1_790_000_000
V1, V2 = "v1.36.3+pinnace1", "v1.36.4+pinnace1"


@functools.cache
def pair(name: str) -> keys.Keys:
    """A CA and a key of that name, the same within one process: they take a while to make."""
    return keys.ensure(Path(tempfile.mkdtemp(prefix="pinnace-keys-")) / name)


def flat(folder: Path, target: Path, _: int) -> None:
    """Says of itself what a squashfs says, so far as RAUC and we look into it; needs no tool."""
    body = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    size = 96 + len(body)
    head = b"hsqs" + bytes(36) + size.to_bytes(8, "little")
    target.write_bytes(head.ljust(96, b"\0") + body)


@dataclass
class Bench:
    """Makes bundles in a folder."""

    folder: Path
    squash: Squash = flat
    count: int = 0

    def make(
        self,
        version: str = V2,
        *,
        board: str = "x86-64",
        by: str = "ours",
        root: bytes = b"root of a slot\n" * 40_000,
        signer: keys.Keys | None = None,
    ) -> Path:
        self.count += 1
        place = self.folder / f"{self.count}"
        place.mkdir()
        (place / "root.squashfs").write_bytes(root)
        (place / "boot.img").write_bytes(b"kernel\n" * 10_000)
        content = Content(
            board=board,
            version=version,
            epoch=EPOCH,
            root=place / "root.squashfs",
            boot=place / "boot.img",
        )
        return bundle.write(content, signer or pair(by), place / "x.raucb", self.squash)
