"""
A machine with the slots of an image on loop devices, started by either boot loader.

Bundles, signatures, the boot loader's files and the slots are real; of RAUC the part that needs the
kernel's dm-verity is played by ``tests/host/update/installer.py``.
"""

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from appliance import bundle, slots

from node.host import mounts
from node.update import boot
from node.update.base import Bundle, InstallError, Slots
from node.update.rauc import Places, RaucSlots
from node.update.version import parse
from tests.conformance.slots import PowerCut
from tests.fakes.bundles import V1, Bench, pair

_MIB = 1 << 20


def squash_root(folder: Path, version: str, board: str) -> bytes:
    """The root of a slot, so far as anybody looks into it."""
    tree = folder / "tree" / "usr/share/pinnace"
    tree.mkdir(parents=True)
    release = {"version": version, "board": board, "epoch": 0}
    (tree / "release.json").write_text(json.dumps(release))
    (tree / "filling").write_bytes(random.Random(version).randbytes(600_000))
    bundle.mksquashfs(folder / "tree", folder / "tree.squashfs", 0)
    return (folder / "tree.squashfs").read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slots(RaucSlots):
    """The power may go while RAUC works."""

    budget: Path

    async def install(self, bundle: Bundle, progress: object) -> None:
        try:
            await RaucSlots.install(self, bundle, progress)  # type: ignore[arg-type]
        except InstallError:
            if self.budget.read_text() == "0":
                raise PowerCut from None
            raise


@dataclass
class ImageMachine:
    folder: Path
    board: str
    bench: Bench = field(init=False)
    trial: bool = False

    def __post_init__(self) -> None:
        self.bench = Bench(self.folder, bundle.mksquashfs)
        self.budget.write_text("-1")
        tree = self.folder / "image"
        slots.configure(tree, self.board, pair("ours").keyring)
        self.loader.write(boot.State())

    @property
    def budget(self) -> Path:
        return self.folder / "budget"

    @property
    def keyring(self) -> Path:
        return self.folder / "image" / slots.KEYRING

    @property
    def devices(self) -> Path:
        return self.folder / "devices"

    @property
    def loader(self) -> boot.Bootloader:
        config = self.folder / "config"
        config.joinpath("EFI/BOOT").mkdir(parents=True, exist_ok=True)
        if self.board == "rpi-arm64":
            return boot.TryBoot(config / "autoboot.txt", self._unlock)
        return boot.GrubEnv(config / "grubenv", self._unlock)

    @contextlib.contextmanager
    def _unlock(self) -> Iterator[None]:
        left = int(self.budget.read_text())
        if left == 0:
            raise PowerCut
        self.budget.write_text(str(max(left - 1, -1)))
        yield

    @contextlib.contextmanager
    def partitions(self) -> Iterator[None]:
        """Slots on loop devices, a with V1 in it."""
        self.devices.mkdir()
        attached = []
        try:
            for name in ("root-a", "root-b", "boot-a", "boot-b"):
                file = self.folder / f"{name}.img"
                with file.open("wb") as opened:
                    opened.truncate(4 * _MIB)
                if name == "root-a":
                    (self.folder / "first").mkdir()
                    content = squash_root(self.folder / "first", V1, self.board)
                    with file.open("r+b") as opened:
                        opened.write(content)
                device = _told("losetup", "--find", "--show", str(file))
                attached.append(device)
                (self.devices / name).symlink_to(device)
            yield
        finally:
            for place in mounts.mounted_below(self.folder):
                mounts.unmount(place)
            for device in attached:
                _told("losetup", "--detach", device)

    def bundle(self, version: str, *, board: str = "", key: str = "", damage: str = "") -> Path:
        place = self.folder / f"root-{self.bench.count}"
        root = squash_root(place, version, board or self.board)
        path = self.bench.make(version, board=board or self.board, by=key or "ours", root=root)
        content = bytearray(path.read_bytes())
        if damage == "tampered":
            content[5000] ^= 1
        elif damage == "truncated":
            content = content[:-3000]
        elif damage == "garbage":
            content = bytearray(b"\x7fELF" * 1000)
        path.write_bytes(content)
        return path

    async def start(self) -> Slots:
        """What the boot loader does; on a Raspberry Pi, the RAM disk of the slot that is tried."""
        state = self.loader.read()
        self.trial = bool(state.try_once)
        slot = state.try_once or state.primary
        if state.try_once:
            boot.change(self.loader, boot.unchosen)
        return self.attach(slot)

    def attach(self, slot: str) -> RaucSlots:
        places = Places(
            keyring=self.keyring,
            status=self.folder / "central.raucs",
            devices=self.devices,
            install=(
                *(sys.executable, str(Path(__file__).with_name("installer.py"))),
                *(str(self.folder), str(self.folder / "image" / slots.CONFIGURATION)),
                str(self.keyring),
            ),
            begin_service=("true",),
            end_service=("true",),
        )
        (self.folder / "target").write_text(boot.other(slot))
        version = places.version_in(self.devices / f"root-{slot}")
        return _Slots(
            board=self.board,
            version=version or parse(V1),
            slot=slot,
            trial=self.trial,
            loader=self.loader,
            places=places,
            budget=self.budget,
        )

    def cut_after(self, writes: int) -> None:
        self.budget.write_text(str(writes))


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
