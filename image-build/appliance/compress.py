"""
How what is made is compressed: the RAM disk for the kernel, the image for whoever downloads it.

The toolbox's programs do it, with options by which the number of threads does not change a byte.
"""

from pathlib import Path

from appliance.toolbox import Toolbox

_BLOCK = (
    "16MiB"  # what one thread has at a time; part of the result, so it never follows the machine
)


def ramdisk(toolbox: Toolbox, content: bytes, *, level: int = 19) -> bytes:
    """With zstd, which a kernel unpacks faster than a card is read."""
    return toolbox.run(["zstd", f"-{level}", "-T1", "-q", "-c"], stdin=content)


def image(toolbox: Toolbox, path: Path, *, level: int) -> Path:
    """
    ``<path>.xz``: every tool that writes images reads it. The image stays.

    ``level``: 0 to 9. What is large in it is compressed already, and a higher one gains little.
    """
    made = path.with_name(f"{path.name}.xz")
    script = 'xz -k -f "$1" -T0 --block-size="$2" --check=crc64 -c "$3" >"$4"'
    options = [f"-{level}", _BLOCK, f"/mnt/out/{path.name}", f"/mnt/out/{made.name}"]
    toolbox.run(["sh", "-ec", script, "sh", *options], binds={"/mnt/out": path.parent})
    return made
