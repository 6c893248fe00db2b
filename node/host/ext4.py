"""
What the superblock of an ext4 file system says of its health and size, before anybody mounts it.

Source: Documentation/filesystems/ext4 of the kernel, "The Super Block".
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_OFFSET, _MAGIC = 1024, 0xEF53
_VALID, _ERRORS = 1, 2  # s_state
_HAS_JOURNAL = 0x4  # s_feature_compat
_64_BIT = 0x80  # s_feature_incompat


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """``clean`` is also what a journal will make so: the kernel replays it at the mount."""

    clean: bool
    errors: bool  # the kernel has met damage

    @property
    def needs_check(self) -> bool:
        return self.errors or not self.clean


def health(device: Path) -> Health | None:
    """Of a device or an image; None: there is no ext4 file system. Blocks."""
    block = _superblock(device)
    if block is None:
        return None
    (state,) = struct.unpack_from("<H", block, 0x3A)
    (features,) = struct.unpack_from("<I", block, 0x5C)
    return Health(
        clean=bool(state & _VALID) or bool(features & _HAS_JOURNAL), errors=bool(state & _ERRORS)
    )


def size(device: Path) -> int | None:
    """Bytes that the file system has of its device; None: there is none. Blocks."""
    block = _superblock(device)
    if block is None:
        return None
    (low,) = struct.unpack_from("<I", block, 0x4)
    (shift,) = struct.unpack_from("<I", block, 0x18)
    (features,) = struct.unpack_from("<I", block, 0x60)
    high = struct.unpack_from("<I", block, 0x150)[0] if features & _64_BIT else 0
    return int((high << 32) + low) * (1024 << int(shift))


def _superblock(device: Path) -> bytes | None:
    with device.open("rb") as file:
        file.seek(_OFFSET)
        block = file.read(1024)
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != _MAGIC:
        return None
    return block
