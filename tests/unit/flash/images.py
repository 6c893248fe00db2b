"""A small disk image with the partitions of a real one, made in a moment."""

import subprocess
import uuid
from pathlib import Path

from node.appliance import gpt

MIB = 1 << 20
_NAMES = ("config", "boot-a", "boot-b", "root-a", "root-b", "data")
CONFIG = MIB  # where the FAT partition begins
CONFIG_SIZE = 8 * MIB


def fat(size: int, bits: int = 0) -> bytes:
    """An empty FAT file system of mkfs.fat; FileNotFoundError where that is not installed."""
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.truncate(size)
        argv = ["mkfs.fat", "-n", "PINNACE", *(["-F", str(bits)] if bits else []), file.name]
        subprocess.run(argv, check=True, capture_output=True)
        return Path(file.name).read_bytes()


def image(config: bytes, *, size: int = 24 * MIB) -> bytes:
    """``config``: what lies in the first partition."""
    first = CONFIG // gpt.SECTOR
    parts = []
    for number, name in enumerate(_NAMES, 1):
        sectors = CONFIG_SIZE // gpt.SECTOR if name == "config" else 2048
        parts.append(
            gpt.Partition(
                number=number,
                kind=gpt.BASIC,
                identity=uuid.UUID(int=number),
                first=first,
                last=first + sectors - 1,
                name=name,
            )
        )
        first += sectors
    table = gpt.Table(
        identity=uuid.UUID(int=99), sectors=size // gpt.SECTOR, partitions=tuple(parts)
    )
    disk = bytearray(size)
    head = gpt.mbr() + gpt.header(table, copy=False) + gpt.entries(table)
    disk[: len(head)] = head
    tail = gpt.entries(table) + gpt.header(table, copy=True)
    disk[-len(tail) :] = tail
    disk[CONFIG : CONFIG + len(config)] = config
    at = parts[3].first * gpt.SECTOR
    disk[at : at + 5] = b"root!"
    return bytes(disk)
