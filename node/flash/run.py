"""
``pinnace image flash``: an image, a pinnace.yaml and manifests onto a card or into a file.

Everything that can be refused is refused before anything is written.
"""

import argparse
import stat
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from node.firstboot.base import ConfigError
from node.flash import config, devices, plan, source
from node.flash.base import BrokenError, Placed, RefusedError
from node.flash.progress import Progress
from node.flash.write import CHUNK, Target, verify, write
from node.settings import UsageError

NOT_USABLE = "is NOT usable until an image was written to it whole"
INTERRUPTED = 130


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see `pinnace image flash --help`")


def _parser() -> argparse.ArgumentParser:
    parser = _Arguments(
        prog="pinnace image flash",
        description="Write an image to a card, stick or file, and read it back.",
    )
    parser.add_argument("device", type=Path, help="/dev/sdX, /dev/mmcblkX, or a file to be made")
    parser.add_argument("--image", type=Path, required=True, help=".img, .img.xz, .gz, .zst, .bz2")
    parser.add_argument("--config", type=Path, help="a pinnace.yaml for the first boot")
    parser.add_argument("--manifests", type=Path, help="folder; default: manifests/ beside it")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", default="", help="a disk that cannot be taken out, once more")
    parser.add_argument("--no-verify", action="store_true", help="do not read it back")
    return parser


def main(arguments: Sequence[str], say: Callable[[str], None], warn: Callable[[str], None]) -> int:
    given = _parser().parse_args(list(arguments))
    try:
        _flash(given, say)
    except ConfigError as err:
        for problem in err.problems:
            warn(str(problem))
        warn("nothing was written")
        return 1
    except RefusedError as err:
        warn(f"{err}; nothing was written")
        return 1
    except BrokenError as err:
        warn(f"{err}; {given.device} {NOT_USABLE}")
        return 1
    except KeyboardInterrupt:
        warn(f"stopped; {given.device} {NOT_USABLE}")
        return INTERRUPTED
    return 0


def _flash(given: argparse.Namespace, say: Callable[[str], None]) -> None:
    files = {}
    if given.config or given.manifests:
        files = dict(config.read(given.config, given.manifests).files)
    with source.Source(given.image) as image:
        buffer = memoryview(bytearray(CHUNK))
        first = buffer[: image.fill(buffer)].tobytes()
        table = source.table(first[: source.HEAD], given.image)
        total = source.size(table)
        block, size = _look(given, total)
        if not given.yes:
            _ask(given, block=block)
        with Target(given.device, block=block, size=size) as target:
            _write(image, first, target, total, verifying=not given.no_verify)
            _put(target, source.placed(table), files)
            target.announce()
    say(f"{given.device} is ready" + (f", with {', '.join(files)} on it" if files else ""))


def _look(given: argparse.Namespace, total: int) -> tuple[bool, int]:
    """Whether the target is a disk, and its size in bytes. Raises :class:`RefusedError`."""
    path: Path = given.device
    if not path.exists():
        if path.is_relative_to("/dev"):
            raise RefusedError(f"{path} is not there: `lsblk` lists the disks of this machine")
        if not path.parent.is_dir():
            raise RefusedError(f"{path.parent} is no folder")
        return False, total
    if path.is_file():
        if path.samefile(given.image):
            raise RefusedError(f"{path} is the image itself")
        return False, total
    if not stat.S_ISBLK(path.stat().st_mode):
        raise RefusedError(f"{path} is neither a disk nor a file")
    disk = devices.look(path)
    why = plan.refusal(disk, total, given.force)
    if why:
        raise RefusedError(why)
    return True, disk.size


def _ask(given: argparse.Namespace, *, block: bool) -> None:
    if block:
        what = f"{given.device} ({plan.described(devices.look(given.device))})"
    elif given.device.exists():
        what = str(given.device)
    else:
        return  # nothing is lost by a new file
    if not sys.stdin.isatty():
        raise RefusedError(f"all that is on {what} would be lost: say --yes where nobody answers")
    sys.stderr.write(f"All that is on {what} will be lost. Write to it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RefusedError("not confirmed")


def _write(
    image: source.Source, first: bytes, target: Target, total: int, *, verifying: bool
) -> None:
    progress = Progress("writing", total, sys.stderr, time.monotonic)
    try:
        written = write(image, first, target, total, show=progress.show)
    finally:
        progress.end()
    if not verifying:
        return
    progress = Progress("verifying", total, sys.stderr, time.monotonic)
    try:
        verify(target, written, total, show=progress.show)
    finally:
        progress.end()


def _put(target: Target, placed: Placed, files: dict[str, bytes]) -> None:
    if files:
        config.put(target, placed, files, datetime.now())
