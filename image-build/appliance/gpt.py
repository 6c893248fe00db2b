"""
How the disk of an image is divided: docs/architecture.md says what each partition is for.

Numbers, labels and order are the same on every board and for ever: a machine that was flashed
years ago is updated by slots that rely on them. Sizes are of the first flash.
"""

import uuid
from dataclasses import dataclass

from node.appliance import gpt

MIB = 1 << 20
_SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "image.pinnace.dev")
_NO_DRIVE_LETTER = 1 << 63  # nothing that a desktop should show, or offer to format
_FAT_LBA = 0x0C  # type in an MBR


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """In MiB."""

    config: int = 64
    boot: int = 64  # each
    root: int = 384  # each: what a squashfs may grow to in the years that the disk is used
    data: int = 16  # has the rest of the disk after the first boot


def sizes(board: str) -> Sizes:
    # A kernel for arm64 is not compressed, and firmware and device trees come on top.
    return Sizes(boot=160) if board == "rpi-arm64" else Sizes()


def identity(board: str, version: str, role: str) -> uuid.UUID:
    """The same for the same image, so that it can be built again."""
    return uuid.uuid5(_SPACE, f"{board} {version} {role}")


def serial(board: str, version: str, role: str) -> int:
    """That of a FAT: 32 bits."""
    return identity(board, version, role).int & 0xFFFFFFFF


def layout(board: str, version: str, measure: Sizes) -> gpt.Table:
    """The whole table, each partition on a MiB."""
    config = gpt.ESP if board == "x86-64" else gpt.BASIC
    rows = (
        ("config", config, measure.config, 0),
        ("boot-a", gpt.BASIC, measure.boot, _NO_DRIVE_LETTER),
        ("boot-b", gpt.BASIC, measure.boot, _NO_DRIVE_LETTER),
        ("root-a", gpt.LINUX, measure.root, 0),
        ("root-b", gpt.LINUX, measure.root, 0),
        ("data", gpt.LINUX, measure.data, gpt.UNUSED),
    )
    mib = MIB // gpt.SECTOR
    start, found = mib, []
    for number, (name, kind, length, attributes) in enumerate(rows, 1):
        found.append(
            gpt.Partition(
                number=number,
                kind=kind,
                identity=identity(board, version, name),
                first=start,
                last=start + length * mib - 1,
                name=name,
                attributes=attributes,
            )
        )
        start += length * mib
    return gpt.Table(
        identity=identity(board, version, "disk"), sectors=start + mib, partitions=tuple(found)
    )


def mbr(table: gpt.Table) -> bytes:
    """Lists what is FAT: firmware of older Raspberry Pis reads no GPT."""
    signature = table.identity.int & 0xFFFFFFFF
    return gpt.mbr(((part, _FAT_LBA) for part in table.partitions[:3]), signature=signature)
