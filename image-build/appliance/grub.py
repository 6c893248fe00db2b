"""
GRUB for UEFI: the program, its configuration, and the block in which it keeps its state.

One file holds all modules, so that nothing of GRUB is looked for on the disk but ``grub.cfg``
and ``grubenv``. The state is small on purpose: it lies in the first sector of its file, and
a disk writes a sector whole or not at all.
"""

from collections.abc import Mapping
from pathlib import Path

from appliance.toolbox import Toolbox

MODULES = tuple(
    """
    part_gpt fat normal configfile linux boot loadenv test true echo regexp sleep reboot
    serial terminal
    """.split()
)
TARGET = "x86_64-efi"
PREFIX = "/EFI/BOOT"
PROGRAM = "EFI/BOOT/BOOTX64.EFI"  # what UEFI starts of a disk that it knows nothing of

_SIGNATURE = b"# GRUB Environment Block\n"
_SIZE = 1024  # what GRUB takes as such a block
_SECTOR = 512
FRESH = {"primary": "a", "try": "", "tries": "0", "good_a": "1", "good_b": "0"}


def program(toolbox: Toolbox) -> bytes:
    """The EFI program. Raises :class:`appliance.toolbox.ToolError`."""
    script = 'grub-mkimage "$@" -o /tmp/core.efi && cat /tmp/core.efi'
    options = ["-O", TARGET, "-d", f"/usr/lib/grub/{TARGET}", "-p", PREFIX]
    return toolbox.run(["sh", "-c", script, "sh", *options, *MODULES])


def configuration(template: Path, arguments: str) -> bytes:
    """``grub.cfg``; ``arguments``: the kernel's, the same for both slots."""
    return template.read_bytes().replace(b"@ARGUMENTS@", arguments.encode())


def environment(values: Mapping[str, str] = FRESH) -> bytes:
    """``grubenv``. Raises ``ValueError`` where the values do not fit into one sector."""
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    block = _SIGNATURE + lines.encode()
    if len(block) > _SECTOR:
        raise ValueError(f"{len(block)} bytes of state, and a sector has {_SECTOR}")
    return block.ljust(_SIZE, b"#")
