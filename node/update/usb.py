"""
An update from a stick: plugged in, looked at, installed, and the result written onto it.

Started by udev for a file system on USB (``pinnace-usb@.service``), so that nothing waits for a
stick at other times. Of its ``*.raucb`` the newest that is signed for this machine is handed to
the updater, which treats it like any other: checks, snapshot, trial, and back if it must be. Nobody
needs a shell for it, so a version that is older than what runs, or failed before, is refused;
``usbUpdates: false`` in ``pinnace.yaml`` refuses all.

``pinnace-update.txt`` on the stick says what became of each file. After the restart the stick
is still there and found again, and the end of the trial is told as well.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509

from node.host import mounts
from node.host.files import sync_directory
from node.settings import UsageError
from node.update import bundle, place, rauc, signature
from node.update.base import InstallError, RefusedError
from node.update.command import Command, Given
from node.update.state import Failure, Records
from node.update.version import Version, parse

RESULT = "pinnace-update.txt"
SUMMARY = Path("/etc/pinnace/appliance.json")
DISK = Path("/run/pinnace-boot/disk")  # the machine's own
DATA, RUN = Path("/var/lib/pinnace"), Path("/run/pinnace")
MOUNTS = Path("/run/pinnace-usb")
MOST_FILES = 50
_KINDS = ("vfat", "exfat", "ext4")
_FLAGS = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTE
_PATIENCE = 3600.0  # seconds that a trial may take
_MOVED_TO = 0x80
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file of the stick, read so far as its signature goes."""

    path: Path
    version: Version | None  # None: it was refused
    message: str = ""  # why it is not taken; "": it may be

    def __str__(self) -> str:
        name = f"{self.path.name} ({self.version})" if self.version else self.path.name
        return f"{name}: {self.message}"


def choose(found: Sequence[Found], running: Version, failed: Mapping[str, Failure]) -> list[Found]:
    """All of them, the one to install first if there is one: it has no message. Pure."""
    judged = [_judged(file, running, failed) for file in found]
    good = [file for file in judged if not file.message]
    if not good:
        return judged
    best = max(good, key=lambda file: (file.version or running, file.path.name))
    others = [
        replace(file, message=f"{best.version} is newer") if file in good else file
        for file in judged
        if file is not best
    ]
    return [best, *others]


def _judged(file: Found, running: Version, failed: Mapping[str, Failure]) -> Found:
    if file.version is None or file.message:
        return file
    if file.version == running:
        return replace(file, message="runs")
    if failure := failed.get(str(file.version)):
        return replace(file, message=f"was tried at {failure.at} and left: {failure.reason}")
    if file.version < running:
        return replace(file, message=f"is older than {running}, which runs")
    return file


def look(folder: Path, anchors: Sequence[x509.Certificate], board: str) -> list[Found]:
    """The bundles at the top of a stick; reads no payload."""
    paths = sorted(path for path in folder.glob("*.raucb") if path.is_file())
    return [_read(path, anchors, board) for path in paths[:MOST_FILES]]


def _read(path: Path, anchors: Sequence[x509.Certificate], board: str) -> Found:
    try:
        with path.open("rb") as file:
            manifest = bundle.read(file, anchors)
        if manifest.board != board:
            return Found(path=path, version=None, message=f"is for {manifest.board}")
        return Found(path=path, version=parse(manifest.version))
    except RefusedError as err:
        return Found(path=path, version=None, message=f"{err.reason}: {err}")
    except (OSError, ValueError) as err:
        return Found(path=path, version=None, message=f"cannot be read: {err}")


def is_allowed(summary: Path = SUMMARY) -> bool:
    """What ``usbUpdates`` of ``pinnace.yaml`` came to; a machine without the file takes them."""
    try:
        return json.loads(summary.read_text()).get("usbUpdates", True) is not False
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False


def is_own(device: Path, disk: Path = DISK) -> bool:
    """Whether the machine itself was started from there."""
    try:
        own = re.escape(Path(disk.read_text().strip()).name)
    except OSError:
        return False
    return re.fullmatch(rf"{own}(p?\d+)?", device.name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stick:
    """What is done with one stick; ``install`` hands a bundle to the updater."""

    slots: rauc.RaucSlots
    records: Records
    install: Callable[
        [Path], str
    ]  # how it went, one line. Raises UsageError, RefusedError, InstallError
    trial_ends: Callable[[], None]  # waits for it

    def treat(self, folder: Path) -> list[str]:
        """Lines about each bundle; none where there is no bundle. Blocks."""
        anchors = signature.keyring(self.slots.places.keyring)
        files = look(folder, anchors, self.slots.board)
        running = self.slots.version
        if any(file.version == running for file in files) and self._on_trial():
            self.trial_ends()
        judged = choose(files, running, self.records.failed())
        if not judged:
            return []
        if not judged[0].message:
            judged[0] = replace(judged[0], message=self._installed(judged[0]))
        return [f"{socket.gethostname()}: {running} runs", *map(str, judged)]

    def _installed(self, file: Found) -> str:
        try:
            return self.install(file.path)
        except (UsageError, RefusedError) as err:
            return f"refused: {err}"
        except InstallError as err:
            return f"did not work this time: {err}"

    def _on_trial(self) -> bool:
        return self.slots.trial and self.slots.loader.read().primary != self.slots.slot


@contextlib.contextmanager
def mounted(device: Path, *, read_only: bool) -> Iterator[Path]:
    """The stick's files, as long as the block goes. OSError: none of the kinds that are known."""
    folder = MOUNTS / device.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _mount(device, folder, _FLAGS | (mounts.READ_ONLY if read_only else 0))
        try:
            yield folder
        finally:
            mounts.unmount(folder, detach=True)
    finally:
        folder.rmdir()


def _mount(device: Path, folder: Path, flags: int) -> None:
    for kind in _KINDS:
        try:
            return mounts.mount(str(device), folder, kind, flags=flags)
        except OSError:
            if kind == _KINDS[-1]:
                raise


def write_result(folder: Path, lines: Sequence[str]) -> None:
    """Only where it says something new: a stick wears out as well. OSError where it is full."""
    text = "".join(f"{line}\r\n" for line in lines)
    path = folder / RESULT
    with contextlib.suppress(OSError):
        if path.read_bytes().decode(errors="replace") == text:
            return
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    sync_directory(folder)


def await_change(folder: Path, ended: Callable[[], bool], seconds: float) -> None:
    """Until ``ended`` says so, which is asked whenever a file of the folder was replaced."""
    descriptor = _libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    try:
        if _libc.inotify_add_watch(descriptor, os.fsencode(folder), _MOVED_TO) < 0:
            raise OSError(ctypes.get_errno(), "inotify", str(folder))
        until = time.monotonic() + seconds
        while not ended() and (left := until - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left)[0]:
                os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    sys.stdout.write(f"update from USB: {text}\n")
    sys.stdout.flush()


def _stick(slots: rauc.RaucSlots) -> Stick:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        _say(text)

    command = Command(DATA, RUN, say)

    def install(path: Path) -> str:
        command.install(Given(verb="install", name=str(path), options={"now": ""}))
        return "was written; the machine starts it on trial, and goes back if it is not well"

    def trial_ends() -> None:
        def ended() -> bool:
            state = command.records.load()
            return state is None or state.has_ended or slots.loader.read().primary == slots.slot

        await_change(command.records.folder, ended, _PATIENCE)

    return Stick(slots=slots, records=command.records, install=install, trial_ends=trial_ends)


def main(arguments: Sequence[str]) -> int:
    device = Path(arguments[0])
    if is_own(device):
        return 0
    slots = place.slots()
    if not isinstance(slots, rauc.RaucSlots):
        return 0
    try:
        with mounted(device, read_only=True) as folder:
            if not any(folder.glob("*.raucb")):
                return 0
            if is_allowed():
                lines = _stick(slots).treat(folder)
            else:
                lines = ["updates from USB are switched off (usbUpdates in pinnace.yaml)"]
        for line in lines:
            _say(line)
        with mounted(device, read_only=False) as folder:
            write_result(folder, lines)
    except (OSError, ValueError) as err:
        _say(f"{device}: {err}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
