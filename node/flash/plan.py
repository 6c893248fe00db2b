"""
Whether a disk may be overwritten. Pure: what is known of it comes as a value.
"""

from node.flash.base import Disk

SYSTEM = ("/", "/boot", "/boot/efi", "/usr", "/var", "/home")


def refusal(disk: Disk, needed: int, force: str) -> str:
    """
    Why not, in one line that says what to do; "" where it may.

    ``needed``: bytes of the image. ``force``: the path of the one disk that is meant although it
    cannot be taken out, as the user repeated it.
    """
    if disk.parent:
        return f"{disk.path} is a partition: an image goes to the whole disk, /dev/{disk.parent}"
    system = next((use for use in disk.uses if use.what.rpartition(" at ")[2] in SYSTEM), None)
    if system is not None:
        return f"{disk.path} is this machine's own disk: {system.device} {system.what}"
    if disk.uses:
        said = "; ".join(f"{use.device} {use.what}" for use in disk.uses)
        return f"{disk.path} is in use: {said}; unmount it or take it out of use first"
    if disk.read_only:
        return f"{disk.path} is write-protected: cards have a small switch for it"
    if not disk.size:
        return f"{disk.path} has no medium in it"
    if disk.size < needed:
        return f"{disk.path} is too small: {size(disk.size)}, and the image needs {size(needed)}"
    if not disk.removable and force != disk.path:
        return (
            f"{disk.path} ({described(disk)}) is no card or stick but a disk of this machine; "
            f"if you are sure: --force={disk.path}"
        )
    return ""


def described(disk: Disk) -> str:
    """Its model, size and bus, by which a person recognises it."""
    words = [disk.model or "disk without a name", size(disk.size)]
    return ", ".join([*words, *([disk.bus] if disk.bus else [])])


def size(count: int) -> str:
    """Bytes for people, as disks are sold: 31.9 GB."""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
