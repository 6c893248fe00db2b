"""
``make image``: the disk image of a board, and the bundle that updates to it.

Usage: ``python -m appliance.run BOARD [--version=V] [--level=N] [--keys=FOLDER] [--epoch=S]`` in
``image-build``. What comes out lies in ``build/<board>/``; the same inputs give the same bytes.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance import boards, bundle, compress, debs, image, initrd, lock, rootfs, squashfs, toolbox
from appliance.channel import PUBLIC
from appliance.disk import DiskError
from appliance.keys import Keys, KeysError, ensure
from appliance.python_tree import PythonError
from appliance.raspberry import FirmwareError
from appliance.toolbox import Toolbox
from appliance.units import UnitError
from appliance.users import UserError
from appliance.wheels import WheelError
from controlplane.objects.version import VERSION

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build"
LEVEL = 19  # of zstd for the root; what comes from 1 is a fifth larger, and there in a minute
_IMAGE_LEVEL = 1  # of xz: nearly all of the image is compressed in itself
# What a user can mend; anything else is a mistake of ours and shows where.
_ERRORS = (
    boards.UnknownBoard,
    debs.DebError,
    lock.LockError,
    rootfs.RootError,
    toolbox.ToolError,
    initrd.InitrdError,
    DiskError,
    FirmwareError,
    KeysError,
    PythonError,
    UnitError,
    UserError,
    WheelError,
    OSError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    board: boards.Board
    version: str
    level: int
    keys: Path
    epoch: int  # seconds since 1970


def make(order: Order, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The files made in ``folder``. Raises what the parts raise."""
    keys, public = ensure(order.keys), order.keys / PUBLIC
    root = rootfs.build(
        order.board,
        order.version,
        epoch=order.epoch,
        work=folder,
        level=order.level,
        say=say,
        keyring=keys.keyring.read_bytes(),
        channel=public.read_bytes() if public.exists() else None,
    )
    tools = toolbox.make(say)
    made = image.assemble(tools, parts_of(root), folder, say)
    say("bundle")
    name = f"pinnace-{order.version}-{order.board.name}"
    bundled = make_bundle(tools, _content(root, made.boot), keys, folder / f"{name}.raucb")
    say("image: compressing")
    named = folder / f"{name}.img"
    made.disk.replace(named)
    packed = compress.image(tools, named, level=_IMAGE_LEVEL)
    return [named, packed, bundled]


def parts_of(root: rootfs.Rootfs) -> image.Parts:
    """What a disk is made of."""
    return image.Parts(
        board=root.board,
        version=root.version,
        epoch=root.epoch,
        root=root.squashfs,
        kernel=root.kernel,
        modules=root.modules,
        busybox=root.busybox,
        firmware=root.boot,
    )


def _content(root: rootfs.Rootfs, boot: Path) -> bundle.Content:
    return bundle.Content(
        board=root.board.name,
        version=root.version,
        epoch=root.epoch,
        root=root.squashfs,
        boot=boot,
    )


def make_bundle(tools: Toolbox, content: bundle.Content, keys: Keys, target: Path) -> Path:
    """At ``target``, by the toolbox's squashfs: the same bytes on every machine."""

    def squash(folder: Path, path: Path, epoch: int) -> None:
        squashfs.make(folder, path, tools, epoch=epoch, level=9, owned=())

    return bundle.write(content, keys, target, squash)


def read_order(arguments: Sequence[str], root: Path = ROOT) -> Order:
    """Of the command line. Raises :class:`appliance.boards.UnknownBoard`, and SystemExit."""
    parser = argparse.ArgumentParser(prog="image", description=__doc__.split("\n")[1])
    parser.add_argument("board", help=", ".join(boards.BOARDS))
    parser.add_argument("--version", default=VERSION)
    parser.add_argument("--level", type=int, default=LEVEL, help="of zstd, 1 to 22")
    parser.add_argument("--keys", type=Path, default=root / "build" / "keys")
    parser.add_argument("--epoch", type=int, help="seconds since 1970; default: of the commit")
    read = parser.parse_args(arguments)
    epoch = commit_time(root) if read.epoch is None else read.epoch
    return Order(
        board=boards.board(read.board),
        version=read.version,
        level=read.level,
        keys=read.keys,
        epoch=epoch // 2 * 2,  # a FAT knows no odd second
    )


def commit_time(root: Path) -> int:
    """When what is checked out was committed. Raises ``OSError`` where that is unknown."""
    command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"this is no checkout: say --epoch ({done.stderr.strip()})")
    return int(done.stdout)


def main(arguments: Sequence[str]) -> int:
    start = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - start:7.1f} s  {text}\n")
        sys.stdout.flush()

    try:
        order = read_order(arguments)
        say(f"{order.board.name} {order.version}")
        for path in make(order, BUILD / order.board.name, say):
            say(f"{path.relative_to(ROOT)}  {image.stored(path) / 1e6:.1f} MB")
    except _ERRORS as err:
        sys.stderr.write(f"image: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
