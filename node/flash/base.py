"""What flashing knows of an image and of a disk, and the two ways in which it can fail."""

from dataclasses import dataclass


class RefusedError(Exception):
    """Nothing was written: the text says what to do about it."""


class BrokenError(Exception):
    """The target was written to and is not usable; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Something that would lose its ground if a disk were written to."""

    device: str  # sda2, dm-0
    what: str  # "is mounted at /home", "is swap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    path: str  # as it was given
    name: str  # the kernel's: sdb, mmcblk0
    size: int  # bytes
    model: str  # "" where it does not say
    bus: str  # usb, mmc, nvme, ata, scsi, virtio, loop; "" where it is not known
    removable: bool  # a card, a stick, or anything that hangs on USB
    read_only: bool
    parent: str  # of a partition its disk; "": this is a disk
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The FAT partition within an image that pinnace.yaml goes to, in bytes."""

    start: int
    size: int
