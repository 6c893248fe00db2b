"""
The hash tree of dm-verity: blocks of 4096 bytes, SHA-256, a salt in front, version 1.

The same few lines make the tree when a bundle is built and verify it before a slot is written,
so that a damaged bundle is refused before the other slot is lost. While RAUC writes,
the kernel verifies each block again.
Source: the kernel's Documentation/admin-guide/device-mapper/verity.rst.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 4096
DIGEST = 32
_FANOUT = BLOCK // DIGEST
_STEP = 256 * BLOCK  # bytes read at once


@dataclass(frozen=True, slots=True)
class Tree:
    root: bytes
    data: bytes  # levels, the one just below the root first, each filled up to whole blocks


def tree_size(payload: int) -> int:
    """Bytes of the tree over ``payload`` bytes, which are whole blocks."""
    size = 0
    blocks = payload // BLOCK
    while blocks > 1:
        blocks = -(-blocks // _FANOUT)
        size += blocks * BLOCK
    return size


def build(file: BinaryIO, payload: int, salt: bytes) -> Tree:
    """
    Read the first ``payload`` bytes of a file and hash them.

    Raises ValueError where these are not whole blocks, or fewer are there.
    """
    if payload % BLOCK or payload <= BLOCK:
        raise ValueError(f"{payload} bytes are not two or more blocks of {BLOCK}")
    levels = []
    digests = list(_digests(file, payload, salt))
    while len(digests) > 1:
        level = b"".join(digests)
        level += bytes(-len(level) % BLOCK)
        levels.append(level)
        digests = [
            hashlib.sha256(salt + level[at : at + BLOCK]).digest()
            for at in range(0, len(level), BLOCK)
        ]
    return Tree(digests[0], b"".join(reversed(levels)))


def _digests(file: BinaryIO, payload: int, salt: bytes) -> Iterator[bytes]:
    salted = hashlib.sha256(salt)
    file.seek(0)
    left = payload
    while left:
        chunk = file.read(min(left, _STEP))
        if not chunk or len(chunk) % BLOCK:
            raise ValueError(f"the payload ends {left} bytes too early")
        for at in range(0, len(chunk), BLOCK):
            block = salted.copy()
            block.update(chunk[at : at + BLOCK])
            yield block.digest()
        # What is read once only must not push what the node works with out of memory.
        os.posix_fadvise(file.fileno(), payload - left, len(chunk), os.POSIX_FADV_DONTNEED)
        left -= len(chunk)
