"""
How large an image has to be for a claim to fit in. Pure.

A claim of 1 GiB gets a file system that takes 1 GiB of data: what ext4 needs for itself comes
on top, about 4 % at 1 GiB and 2.5 % at 10 GiB; a claim below 5 MiB gets 5 MiB. The numbers
follow from what :func:`make_arguments` asks of mkfs.ext4. The image is sparse: a new one takes
less than a thousandth of its size, and no inode table or journal is written before it is used.
Source: Documentation/filesystems/ext4 of the kernel.
"""

from itertools import count

BLOCK = 4096
MIB = 2**20
_GROUP = 32768  # blocks: as many as one block of bits can count
_INODES = 8192  # of a group: one for 16 KiB, as mkfs has it; also in the smallest volume, since
# what is added when it grows gets as many as its first group has
_TABLE = _INODES * 256 // BLOCK  # blocks of a group's inode table
_DESCRIPTORS = BLOCK // 64  # of groups, in one block
_GROWTH = 1024  # times its size for which mkfs keeps room in the descriptors
_LAST = 1024  # blocks: with fewer, mkfs would leave out the last group
_KERNEL = 4096  # blocks that ext4 keeps from everybody, or 2 %
_LEAST = 1280  # blocks of data: a journal may take half of a file system at most
_SMALL, _LARGE = 64 * MIB, 2 * 2**30  # claims up to these have a smaller journal


def image_size(claim: int) -> int:
    """Bytes of the image for a claim of so many; whole MiB."""
    need = max(-(-claim // BLOCK), _LEAST)
    total = need + _overhead(need, claim)
    while total - _overhead(total, claim) < need:
        total += need - (total - _overhead(total, claim))
    rest = total % _GROUP
    if 0 < rest < _LAST:
        total += _LAST - rest
    return -(-total * BLOCK // MIB) * MIB


def claim_size(room: int) -> int:
    """The largest claim, in whole MiB, whose image takes no more than ``room`` bytes; or 0."""
    low, high = 0, max(room, 0) // MIB
    while low < high:
        middle = (low + high + 1) // 2
        if image_size(middle * MIB) <= room:
            low = middle
        else:
            high = middle - 1
    return low * MIB


def journal_size(claim: int) -> int:
    """MiB. The journal survives power cuts; a large one only makes many small writes faster."""
    if claim <= _SMALL:
        return 4
    return 8 if claim <= _LARGE else 32


def make_arguments(image: str, claim: int, owner: str) -> list[str]:
    """
    The command line of mkfs.ext4. ``owner``: uid:gid of the root folder.

    The image is a hole from end to end, hence prezeroed: nothing is written that would be zero,
    neither now nor by the kernel later. No blocks are kept for root.
    """
    # Without what newer programs put in by themselves: the other slot's kernel may not know it.
    arguments = _arguments(image, claim, owner, "nodiscard,assume_storage_prezeroed=1")
    return [*arguments[:-1], "-O", "^orphan_file", arguments[-1]]


def older_arguments(image: str, claim: int, owner: str) -> list[str]:
    """For e2fsprogs before 1.47: a file that takes a discard is known to be zero, too."""
    return _arguments(image, claim, owner, "lazy_journal_init=1,discard")


def _arguments(image: str, claim: int, owner: str, prezeroed: str) -> list[str]:
    groups = -(-image_size(claim) // (BLOCK * _GROUP))
    extended = f"lazy_itable_init=0,{prezeroed},root_owner={owner}"
    return [
        *("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-I", "256", "-m", "0"),
        *("-N", str(groups * _INODES), "-J", f"size={journal_size(claim)}"),
        *("-L", "local-path", "-E", extended, image),
    ]


def _overhead(total: int, claim: int) -> int:
    """Blocks that take no data, of a file system of so many."""
    groups = -(-total // _GROUP)
    descriptors = -(-groups // _DESCRIPTORS)
    growing = min(BLOCK // 4, -(-groups * _GROWTH // _DESCRIPTORS))
    copies = _copies(groups) * (1 + max(descriptors, growing))
    journal = journal_size(claim) * MIB // BLOCK
    return groups * (_TABLE + 2) + copies + journal + min(total // 50, _KERNEL) + 16 + groups // 2


def _copies(groups: int) -> int:
    """Groups that hold a copy of the superblock: 0, 1, and the powers of 3, 5 and 7."""
    found = {0, 1}
    for base in (3, 5, 7):
        found |= set(_powers(base, groups))
    return len([group for group in found if group < groups])


def _powers(base: int, limit: int) -> list[int]:
    found: list[int] = []
    for power in count(1):
        if base**power >= limit:
            return found
        found.append(base**power)
    return found
