"""
Slots of a plain Debian: two folders and a link, each of them a whole Pinnace with its wheels.

``/opt/pinnace/current`` leads to the slot that is started; who starts it is ``/opt/pinnace/start``,
a few lines of shell that belong to no version. A slot is tried once by a file ``try`` with its
name: the starter takes it away, safely on the disk, before it starts that slot. So whatever becomes
of it (it ends, hangs until it is killed, the power goes), the next start is the old one.

A bundle is verified as one of an image is, with the keyring of the version that runs; while it is
unpacked it is read and hashed once more. What is half-written has another name.
"""

import asyncio
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from node.appliance import release
from node.host.files import sync_directory, write_atomic
from node.update import bundle as bundles
from node.update import signature, unpack
from node.update.base import Bundle, InstallError, RefusedError, Slot
from node.update.version import parse

HOME = Path("/opt/pinnace")
RUN = Path("/run/pinnace-package")  # of this start: slot, and trial if it is one
LINK, TRY, BAD = "current", "try", "bad"
SLOTS = ("a", "b")
_RESTART = ("systemctl", "--no-block", "restart", "pinnace.service")


def _nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSlots:
    """Implements ``node.update.base.Slots``."""

    board: str  # package-amd64
    slot: str  # that runs: "a" | "b"
    trial: bool  # it was started for one try
    home: Path = HOME
    restarter: Sequence[str] = _RESTART
    before: Callable[[str], None] = _nothing  # told what is changed on the disk next

    @property
    def _other(self) -> str:
        return SLOTS[1 - SLOTS.index(self.slot)]

    async def running(self) -> Slot:
        return await asyncio.to_thread(self._read, self.slot)

    async def other(self) -> Slot:
        return await asyncio.to_thread(self._read, self._other)

    def _read(self, name: str) -> Slot:
        folder = self.home / name
        try:
            found = release.read(folder / "release.json")
            version = parse(found.version) if found else None
        except (OSError, ValueError):
            version = None
        bad = name != self.slot and (version is None or (folder / BAD).exists())
        return Slot(name=name, version=version, bad=bad)

    async def on_trial(self) -> bool:
        return self.trial and await asyncio.to_thread(self._primary) != self.slot

    def _primary(self) -> str:
        try:
            return str((self.home / LINK).readlink())
        except OSError:
            return ""

    async def check(self, bundle: Path) -> Bundle:
        return await asyncio.to_thread(bundles.check, bundle, self._keyring, self.board)

    @property
    def _keyring(self) -> Path:
        return self.home / self.slot / "keyring.pem"

    async def install(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        if await self.on_trial():
            raise InstallError("a trial runs: the other slot is the one to go back to")
        loop, given_up = asyncio.get_running_loop(), threading.Event()

        def told(percent: int) -> None:
            if given_up.is_set():
                raise InstallError("nobody waits for it any longer")
            loop.call_soon_threadsafe(progress, percent)

        try:
            await asyncio.to_thread(self._install, bundle, told)
        except asyncio.CancelledError:
            given_up.set()
            raise
        progress(100)

    def _install(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        staged, slot = self.home / f".{self._other}.new", self.home / self._other
        try:
            self._clear(staged)
            self._take_back()
            self._remove(slot)
            self._fill(staged, bundle, progress)
            self.before("complete the slot")
            staged.rename(slot)
            sync_directory(self.home)
        except unpack.PackageError as err:
            self._clear(staged)
            raise RefusedError("NotABundle", str(err)) from err
        except OSError as err:
            self._clear(staged)
            raise InstallError(f"slot {self._other} cannot be written: {err}") from err

    def _fill(self, staged: Path, bundle: Bundle, progress: Callable[[int], None]) -> None:
        with bundle.path.open("rb") as file:
            manifest = bundles.read(file, signature.keyring(self._keyring))
            file.seek(0)
            payload = _Hashed(file, manifest.payload)
            self.before("unpack")
            try:
                unpack.unpack(payload, staged, progress)
            except unpack.PackageError:
                payload.drain()
                if payload.digest != manifest.root:
                    raise _tampered(staged) from None
                raise
            payload.drain()
        if payload.digest != manifest.root:
            raise _tampered(staged)
        unpack.compile_all(staged)
        self.before("write it to the disk")
        os.sync()  # thousands of small files: one by one would take minutes on a card

    def _clear(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
            sync_directory(folder.parent)

    def _remove(self, slot: Path) -> None:
        """What is removed in part has another name: nobody takes it for a slot."""
        left = self.home / f".{slot.name}.old"
        self._clear(left)
        if slot.exists():
            self.before("remove the old version")
            slot.rename(left)
            sync_directory(self.home)
            self._clear(left)

    def _condemn(self, slot: Path) -> None:
        (slot / BAD).touch()
        sync_directory(slot)

    def _take_back(self) -> None:
        if (self.home / TRY).exists():
            self.before("take the try back")
            (self.home / TRY).unlink()
            sync_directory(self.home)

    async def try_once(self) -> None:
        other = await self.other()
        if other.version is None or other.bad:
            raise InstallError(f"slot {other.name} holds nothing that can be tried")

        def choose() -> None:
            self.before("choose the other slot once")
            write_atomic(self.home / TRY, f"{other.name}\n")

        await self._change(choose)

    async def cancel_try(self) -> None:
        await self._change(self._take_back)

    async def commit(self) -> None:
        def link() -> None:
            self._take_back()
            if self._primary() == self.slot:
                return
            self.before("let the link lead here")
            staged = self.home / f".{LINK}.new"
            staged.unlink(missing_ok=True)
            staged.symlink_to(self.slot)
            staged.replace(self.home / LINK)
            sync_directory(self.home)

        await self._change(link)

    async def mark_bad(self) -> None:
        def mark() -> None:
            self._take_back()
            slot = self.home / self._other
            if slot.exists():
                self.before("mark the other slot as bad")
                self._condemn(slot)

        await self._change(mark)

    async def restart(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.restarter,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as err:
            raise InstallError(f"the service does not restart: {err}") from err
        said, _ = await process.communicate()
        if process.returncode:
            text = " ".join(said.decode(errors="replace").split())
            raise InstallError(f"the service does not restart: {text}")

    async def _change(self, how: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(how)
        except OSError as err:
            raise InstallError(f"{self.home}: {err}") from err


def of_machine(
    home: Path = HOME, run: Path = RUN, before: Callable[[str], None] = _nothing
) -> PackageSlots | None:
    """None where Pinnace was not started by the starter. Raises ValueError as a release does."""
    slot = ""
    with suppress(FileNotFoundError):
        slot = (run / "slot").read_text().strip()
    found = release.read(home / slot / "release.json") if slot in SLOTS else None
    if found is None:
        return None
    return PackageSlots(board=found.board, slot=slot, trial=(run / "trial").exists(), home=home)


def _tampered(staged: Path) -> RefusedError:
    with suppress(OSError):
        shutil.rmtree(staged)
    return RefusedError("Tampered", "the package was changed while it was being unpacked")


class _Hashed:
    """The first bytes of a file, hashed as they are read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        self._hash.update(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    @property
    def digest(self) -> bytes:
        return self._hash.digest()
