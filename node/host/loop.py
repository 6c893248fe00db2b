"""
Loop devices: a file that the kernel treats as a disk.

Each is set to clear itself when its last user is gone (autoclear): a mount made while the
device is open keeps it, and whoever dies in between leaves nothing behind. A file
has one device at a time, because two would write to the same file system without
knowing of each other. Reads and writes go around the page cache where the file system
beneath can do that, so that data is not kept in memory twice. Blocks on the disk.

Source: loop(4), linux/loop.h.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAJOR = 7
_CONTROL = Path("/dev/loop-control")
_SET_FD, _CLEAR_FD, _SET_STATUS, _GET_STATUS = 0x4C00, 0x4C01, 0x4C04, 0x4C05
_SET_DIRECT, _CONFIGURE, _GET_FREE = 0x4C08, 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR, _DIRECT = 1, 4, 16
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, two of encryption,
# flags; names of the file and of the cipher, key, init.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=II{_INFO.size}s64x")
_NAME_BYTES = 63
_TRIES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a device shows."""

    file: tuple[int, int]  # st_dev and st_ino of the file
    offset: int
    read_only: bool
    autoclear: bool
    name: str  # what whoever made it called it


def path_of(number: int) -> Path:
    return Path(f"/dev/loop{number}")


def status(number: int) -> Status | None:
    """None: the device shows no file, or there is no such device."""
    try:
        with _opened(path_of(number), os.O_RDONLY) as device:
            return _status(device)
    except OSError as err:
        if err.errno in (errno.ENXIO, errno.ENOENT, errno.ENODEV):
            return None
        raise


def find(image: Path) -> int | None:
    """The number of the device that shows the whole of a file; of several the lowest."""
    found = image.stat()
    folders = Path("/sys/block").glob("loop*/loop")
    for number in sorted(int(folder.parent.name.removeprefix("loop")) for folder in folders):
        shown = status(number)
        if shown is not None and shown.file == (found.st_dev, found.st_ino) and not shown.offset:
            return number
    return None


@contextlib.contextmanager
def attached(image: Path, name: str) -> Iterator[Path]:
    """
    The device of an image for the time of the block, and for as long as it is mounted after it.

    One that somebody left behind is taken over. ``name`` tells later whose it is.
    ``OSError`` where the image is missing or read-only, or no device can be made.
    """
    for _ in range(_TRIES):
        with _locked(image):
            known = find(image)
            number = known if known is not None else _free()
            device = os.open(_node(number), os.O_RDWR | os.O_CLOEXEC)
            try:
                is_ours = (
                    _show(device, image, name) if known is None else _take(device, image, name)
                )
            except BaseException:
                os.close(device)
                raise
        try:
            # Whoever takes no lock and made one at the same moment: the lower number is the file's.
            if is_ours and find(image) == number:
                yield path_of(number)
                return
        finally:
            os.close(device)
    raise OSError(errno.EBUSY, "others took every loop device that was free", str(image))


@contextlib.contextmanager
def _locked(image: Path) -> Iterator[None]:
    """Who gives the image a device holds this, so that nobody gives it another meanwhile."""
    with _opened(image, os.O_RDONLY) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _free() -> int:
    """The number of a device nobody uses; the kernel makes one where there is none."""
    try:
        with _opened(_CONTROL, os.O_RDWR) as control:
            return fcntl.ioctl(control, _GET_FREE)
    except FileNotFoundError:
        text = "the kernel has no loop devices: install one with CONFIG_BLK_DEV_LOOP, or run"
        raise OSError(errno.ENODEV, f"{text} modprobe loop") from None


def _node(number: int) -> Path:
    """Its file in /dev, which nobody makes where no devtmpfs is mounted."""
    path = path_of(number)
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(MAJOR, number))
    return path


def _show(device: int, image: Path, name: str) -> bool:
    """Let a free device show the image; False: somebody was faster."""
    info = _info(0, _AUTOCLEAR | _DIRECT, name)
    with _opened(image, os.O_RDWR) as file:
        try:
            fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(file, 0, info))
        except OSError as err:
            if err.errno == errno.EBUSY:
                return False
            if err.errno not in (errno.EINVAL, errno.ENOTTY):
                raise
            return _show_in_steps(device, file, name)
    return True


def _show_in_steps(device: int, file: int, name: str) -> bool:
    """The same for kernels before 5.8."""
    try:
        fcntl.ioctl(device, _SET_FD, file)
    except OSError as err:
        if err.errno == errno.EBUSY:
            return False
        raise
    try:
        fcntl.ioctl(device, _SET_STATUS, _info(0, _AUTOCLEAR, name))
    except OSError:
        fcntl.ioctl(device, _CLEAR_FD)
        raise
    with contextlib.suppress(OSError):  # not every file system can
        fcntl.ioctl(device, _SET_DIRECT, 1)
    return True


def _take(device: int, image: Path, name: str) -> bool:
    """Take over one that shows the image; False: by the time that it is open it is gone."""
    found = image.stat()
    try:
        shown = _status(device)
        if shown.file != (found.st_dev, found.st_ino) or shown.offset:
            return False
        if shown.read_only:
            raise OSError(errno.EROFS, "a loop device shows it read-only", str(image))
        if not shown.autoclear or shown.name != name:
            fcntl.ioctl(device, _SET_STATUS, _info(0, _AUTOCLEAR, name))
    except OSError as err:
        if err.errno == errno.ENXIO:
            return False
        raise
    return True


def _status(device: int) -> Status:
    fields = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_INFO.size)))
    flags, name = fields[8], fields[9]
    return Status(
        file=(fields[0], fields[1]),
        offset=fields[3],
        read_only=bool(flags & _READ_ONLY),
        autoclear=bool(flags & _AUTOCLEAR),
        name=name.partition(b"\0")[0].decode(errors="replace"),
    )


def _info(offset: int, flags: int, name: str) -> bytes:
    label = name.encode()[:_NAME_BYTES]
    return _INFO.pack(0, 0, 0, offset, 0, 0, 0, 0, flags, label, b"", b"", 0, 0)
