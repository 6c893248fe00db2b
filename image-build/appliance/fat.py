"""
FAT file systems in files: the config partition, and those that a slot is booted from.

Made by ``mkfs.vfat`` and mtools without a mount. The same files give the same bytes: the serial
number is given, times are fixed, and folders are filled in the order of their names.
"""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from appliance.toolbox import Toolbox

MIB = 1 << 20


def make(
    toolbox: Toolbox,
    path: Path,
    *,
    size: int,
    label: str,
    serial: int,
    files: Mapping[str, bytes | Path],
    epoch: int,
) -> None:
    """
    A file system of ``size`` bytes at ``path``, which is replaced.

    ``serial``: 32 bits that tell it from others; ``epoch``: the time of all files, even seconds
    since 1970. Raises :class:`appliance.toolbox.ToolError`, also where the files do not fit.
    """
    tree = path.with_name(f"{path.name}.tree")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for name, content in files.items():
        _put(tree / PurePosixPath(name), content, epoch)
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    bits, cluster = _shape(size)
    image = f"/mnt/out/{path.name}"
    shape = ["-F", bits, "-s", cluster, "-n", label, "-i", f"{serial:08x}"]
    commands = [["mkfs.vfat", "--invariant", *shape, image], *_fill(image, files)]
    toolbox.run(
        ["sh", "-e"],
        stdin="".join(f"{shlex.join(command)}\n" for command in commands).encode(),
        binds={"/mnt/tree": tree, "/mnt/out": path.parent},
        env={"SOURCE_DATE_EPOCH": str(epoch), "MTOOLS_SKIP_CHECK": "1"},
    )
    shutil.rmtree(tree)


def _fill(image: str, files: Iterable[str]) -> Iterator[list[str]]:
    """In the order of their names, so that the same files lie at the same places."""
    parents = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    for parent in sorted(parents - {"."}):
        yield ["mmd", "-i", image, f"::/{parent}"]
    for name in sorted(files):
        yield ["mcopy", "-m", "-i", image, f"/mnt/tree/{name}", f"::/{name}"]


def _shape(size: int) -> tuple[str, str]:
    """
    Bits of the table, and sectors of a cluster.

    FAT32 for all that is large enough, since some firmware reads nothing else; its clusters may
    not be few.
    """
    if size < 40 * MIB:
        return "16", "1" if size < 32 * MIB else "4"
    return "32", "1"


def _put(path: Path, content: bytes | Path, epoch: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    os.utime(path, (epoch, epoch))
