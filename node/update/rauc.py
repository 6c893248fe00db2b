"""
Slots of a machine that was started from our image: RAUC writes them, the boot loader chooses.

RAUC is told nothing but to install: whether a bundle is good is known before (:mod:`.bundle`), and
which slot is started is decided here and in :mod:`.boot`. Its service is there only while
it works, since at rest it would keep 16 MiB of a small board.
"""

import asyncio
import configparser
import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.appliance import release
from node.host import mounts
from node.update import boot
from node.update.base import Bundle, InstallError, RefusedError, Slot
from node.update.bundle import check as check_bundle
from node.update.version import Version, parse

LOG = logging.getLogger(__name__)
KEYRING = Path("/usr/share/pinnace/keyring.pem")
STATUS = Path("/data/rauc/central.raucs")
DEVICES = Path("/dev/disk/by-partlabel")
# D-Bus would start it too, but waits for 25 s only: a small board that is busy may need longer.
_BEGIN_SERVICE = ("systemctl", "start", "rauc.service")
_INSTALL = ("rauc", "install")
_END_SERVICE = ("systemctl", "stop", "rauc.service")
_PERCENT = re.compile(r"\s*(\d{1,3})% ")
_ERROR = "LastError: "
_IMAGES = ("rootfs", "boot")
_SEEN_AS = mounts.READ_ONLY | mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are on a machine; the defaults are those of the image."""

    keyring: Path = KEYRING
    status: Path = STATUS  # RAUC's own notes about the slots
    devices: Path = DEVICES
    begin_service: Sequence[str] = _BEGIN_SERVICE
    install: Sequence[str] = _INSTALL
    end_service: Sequence[str] = _END_SERVICE
    version_in: Callable[[Path], Version | None] = field(default_factory=lambda: version_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaucSlots:
    """Implements ``node.update.base.Slots``."""

    board: str
    version: Version  # that runs
    slot: str  # that runs: "a" | "b"
    trial: bool  # the boot loader started it for one try
    loader: boot.Bootloader
    places: Places = field(default_factory=Places)
    _seen: dict[int, Version | None] = field(default_factory=dict)

    async def running(self) -> Slot:
        return Slot(name=self.slot, version=self.version, bad=False)

    async def other(self) -> Slot:
        return await asyncio.to_thread(self._other)

    def _other(self) -> Slot:
        name = boot.other(self.slot)
        bad = name in self.loader.read().bad
        whole = _is_whole(self.places.status, name)
        found = self._version_in(name) if whole else None
        return Slot(name=name, version=found, bad=bad or not whole)

    def _version_in(self, name: str) -> Version | None:
        """Looked up once for each thing that RAUC installed."""
        try:
            mark = self.places.status.stat().st_mtime_ns
        except OSError:
            mark = 0
        if mark not in self._seen:
            self._seen.clear()
            self._seen[mark] = self.places.version_in(self.places.devices / f"root-{name}")
        return self._seen[mark]

    async def on_trial(self) -> bool:
        if not self.trial:
            return False
        state = await asyncio.to_thread(self.loader.read)
        return state.primary != self.slot

    async def check(self, bundle: Path) -> Bundle:
        return await asyncio.to_thread(check_bundle, bundle, self.places.keyring, self.board)

    async def install(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        if await self.on_trial():
            raise InstallError("a trial runs: the other slot is the one to go back to")
        name = boot.other(self.slot)
        # Where the boot loader left a dead slot, that one is the primary still: it is overwritten.
        await self._change(lambda state: boot.condemned(boot.committed(state, self.slot), name))
        self._seen.clear()
        try:
            await self._write(bundle, progress)
        finally:
            # Also where the node is stopped amid it: else it would write on.
            await asyncio.shield(_run(self.places.end_service))
        await self._change(lambda state: boot.usable(state, name))
        progress(100)

    async def _write(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        code, text = await _run(self.places.begin_service)
        if code:
            raise InstallError(f"RAUC does not start: {text}")
        code, text = await _run([*self.places.install, str(bundle.path)], _Percents(progress))
        if not code:
            return
        # What the kernel refuses to read looks like a broken card: the bundle itself knows.
        await self.check(bundle.path)
        if "signature verification failed" in text:
            raise RefusedError("BadSignature", f"RAUC does not trust the bundle: {text}")
        raise InstallError(f"RAUC: {text or f'exit code {code}'}")

    async def try_once(self) -> None:
        await self._change(lambda state: boot.chosen(state, boot.other(self.slot)))

    async def cancel_try(self) -> None:
        await self._change(boot.unchosen)

    async def commit(self) -> None:
        await self._change(lambda state: boot.committed(state, self.slot))

    async def mark_bad(self) -> None:
        await self._change(lambda state: boot.condemned(state, boot.other(self.slot)))

    async def restart(self) -> None:
        try:
            command = await asyncio.to_thread(boot.leave, self.loader)
        except OSError as err:
            raise InstallError(f"the boot loader's state: {err}") from err
        code, text = await _run(command)
        if code:
            raise InstallError(f"the machine does not restart: {text}")

    async def _change(self, how: Callable[[boot.State], boot.State]) -> None:
        try:
            await asyncio.to_thread(boot.change, self.loader, how)
        except (OSError, ValueError) as err:
            raise InstallError(f"the boot loader's state: {err}") from err


def of_machine(places: Places | None = None) -> RaucSlots | None:
    """None where the machine was not started from an image. Raises ValueError as a release does."""
    found, slot = release.read(), release.slot()
    if found is None or slot not in boot.SLOTS:
        return None
    return RaucSlots(
        board=found.board,
        version=parse(found.version),
        slot=slot,
        trial=release.TRIAL.exists(),
        loader=boot.loader_of(found.board),
        places=places or Places(),
    )


def version_in(device: Path) -> Version | None:
    """What a partition holds that can be started; None: nothing, or nothing of ours. Blocks."""
    if not device.exists():
        return None
    with tempfile.TemporaryDirectory(prefix="pinnace-slot-", dir="/run") as folder:
        try:
            mounts.mount(str(device.resolve()), folder, "squashfs", flags=_SEEN_AS)
        except OSError:
            return None
        try:
            found = release.read(Path(folder) / release.RELEASE.relative_to("/"))
            return parse(found.version) if found else None
        except (OSError, ValueError) as err:
            LOG.warning("%s: %s", device, err)
            return None
        finally:
            mounts.unmount(Path(folder), detach=True)


def _is_whole(status: Path, slot: str) -> bool:
    """
    Whether RAUC finished what it wrote there last; it knows nothing of what was flashed.

    A power cut leaves "pending", an error "failed".
    """
    notes = configparser.RawConfigParser(strict=False)
    try:
        notes.read_string(status.read_text())
    except (OSError, ValueError, configparser.Error):
        return True
    number = boot.SLOTS.index(slot)
    said = (notes.get(f"slot.{image}.{number}", "status", fallback="ok") for image in _IMAGES)
    return all(word == "ok" for word in said)


@dataclass(slots=True)
class _Percents:
    """RAUC's lines about its steps; they never fall, and the end is not told by it."""

    tell: Callable[[int], None]
    last: int = -1

    def __call__(self, line: str) -> None:
        if (found := _PERCENT.match(line)) and self.last < int(found[1]) < 100:
            self.last = int(found[1])
            self.tell(self.last)


async def _run(
    command: Sequence[str], told: Callable[[str], None] = lambda _: None
) -> tuple[int, str]:
    """The exit code, and in one line what was wrong; ended with whoever waits for it."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as err:
        return 127, f"{command[0]}: {err.strerror}"
    assert process.stdout is not None
    last = error = ""
    try:
        async for line in process.stdout:
            last = line.decode(errors="replace").strip() or last
            error = last.partition(_ERROR)[2] or error
            told(last)
        return await process.wait(), error or last
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
