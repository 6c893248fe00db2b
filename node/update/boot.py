"""
Which slot the boot loader starts, and which it tries once: read and written on the disk.

Two boot loaders, one state. GRUB reads ``grubenv`` on the config partition; a Raspberry Pi's
firmware reads ``autoboot.txt`` there. Either is changed by writing one sector of 512 bytes
in place and forcing it to the disk, so that a power cut leaves the old state or the new one.

RAUC comes here too, by its custom backend: ``python3 -m node.update.boot get-primary`` and so on.

What GRUB's configuration (``image-build/files/grub.cfg``) does with its variables:

* ``try`` names a slot: it is taken back first, then started with ``pinnace.trial=1``.
* else ``primary``; ``tries`` counts the starts in a row that nobody called good. After three the
  other slot has its turn, where it is good: what was committed died later.

A slot is good (``good_b=1``) once it was committed, and bad (``bad_b=1``) while it is written and
after it was left; one that was installed and not tried yet is neither.

A Raspberry Pi has no such counter: a committed slot that dies later is not left by itself there.
Its firmware could be asked for one try (``tryboot``), but only by a kernel of its maker: Debian's
has no way to tell it. So ``autoboot.txt`` names the slot to try as the one to start, and the RAM
disk of that slot (``image-build/files/init``) takes it back before anything else: after a panic,
a hang or a power cut the old one starts. A kernel that does not come as far as its RAM disk is
tried again and again, until somebody writes the other number into the file on another computer.
Source: GRUB's manual, "Environment block"; the Raspberry Pi documentation, "autoboot.txt".
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from node.appliance import partition, release

SLOTS = ("a", "b")
SECTOR = 512
MOST_TRIES = 3
_GRUB_HEADER = b"# GRUB Environment Block\n"
_GRUB_SIZE = 1024
_PARTITIONS = {"a": 2, "b": 3}  # boot-a and boot-b in the MBR that the firmware reads
_NOTE = "# pinnace "  # our facts in autoboot.txt: the firmware reads over comments
_REBOOT = ("systemctl", "reboot")

Unlock = Callable[[], AbstractContextManager[None]]
"""Makes the partition writable for the block that it guards."""


class BootError(OSError):
    """The state of the boot loader cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    primary: str = "a"
    try_once: str = ""  # the slot to start the next time, and only then; "": none
    tries: int = 0  # starts of the primary slot since the node was last well
    good: frozenset[str] = frozenset("a")  # were committed once
    bad: frozenset[str] = frozenset()  # must not be started


class Bootloader(Protocol):
    def read(self) -> State:
        """What is on the disk; where that is damaged, what the boot loader makes of it."""
        ...

    def write(self, state: State) -> None:
        """On disk when this returns; nothing is written where nothing changes. OSError."""
        ...

    def reboot(self, state: State) -> tuple[State, Sequence[str]]:
        """How to start what was chosen: the state to write before, and the command then."""
        ...


def other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


def chosen(state: State, slot: str) -> State:
    """To be tried once. A slot that is bad must not be: ValueError."""
    if slot in state.bad:
        raise ValueError(f"slot {slot} is bad: it cannot be tried")
    return replace(state, try_once="" if slot == state.primary else slot)


def unchosen(state: State) -> State:
    return replace(state, try_once="")


def committed(state: State, slot: str) -> State:
    good, bad = state.good | {slot}, state.bad - {slot}
    return replace(state, primary=slot, try_once="", tries=0, good=good, bad=bad)


def usable(state: State, slot: str) -> State:
    """Something whole is in the slot: it may be tried."""
    return replace(state, bad=state.bad - {slot})


def condemned(state: State, slot: str) -> State:
    """Bad, and not tried either. The primary slot must not be: ValueError."""
    if slot == state.primary:
        raise ValueError(f"slot {slot} is what the machine starts from: it cannot be bad")
    tried = "" if state.try_once == slot else state.try_once
    return replace(state, try_once=tried, good=state.good - {slot}, bad=state.bad | {slot})


def well(state: State, running: str) -> State:
    """The system came up: starts are counted anew, or the primary slot is not asked again."""
    return replace(state, tries=0 if running == state.primary else MOST_TRIES)


def change(loader: Bootloader, how: Callable[[State], State]) -> State:
    """Read, change, write. Blocks; the state that is on the disk now."""
    state = how(loader.read())
    loader.write(state)
    return state


def leave(loader: Bootloader) -> Sequence[str]:
    """The command that starts what was chosen."""
    state, command = loader.reboot(loader.read())
    loader.write(state)
    return command


def loader_of(board: str, folder: Path = partition.FOLDER) -> Bootloader:
    def unlock() -> AbstractContextManager[None]:
        return partition.writable(folder)

    if board.startswith("rpi-"):
        return TryBoot(folder / "autoboot.txt", unlock)
    return GrubEnv(folder / "grubenv", unlock)


@dataclass(frozen=True, slots=True)
class GrubEnv:
    """
    The environment block: a line for each variable, filled up to 1024 bytes.

    What is ours stands in the first sector, with whatever else is there; the second one
    is only filling, and is never written again once it is so.
    """

    path: Path
    unlock: Unlock

    def read(self) -> State:
        found = _variables(self.path)
        primary = "b" if found.get("primary") == "b" else "a"
        tried, tries = found.get("try", ""), found.get("tries", "")
        good, bad = (
            frozenset(slot for slot in SLOTS if found.get(f"{word}_{slot}") == "1")
            for word in ("good", "bad")
        )
        return State(
            primary=primary,
            try_once=tried if tried in SLOTS else "",
            tries=int(tries) if tries.isdecimal() else 0,
            good=good | {primary},
            bad=bad - {primary},
        )

    def write(self, state: State) -> None:
        found = _variables(self.path)
        wanted = found | {
            "primary": state.primary,
            "try": state.try_once,
            "tries": str(state.tries),
            **{f"good_{slot}": str(int(slot in state.good)) for slot in SLOTS},
            **{f"bad_{slot}": str(int(slot in state.bad)) for slot in SLOTS},
        }
        if wanted == found:
            return
        text = _GRUB_HEADER + "".join(f"{k}={v}\n" for k, v in wanted.items()).encode()
        if len(text) > SECTOR:
            raise BootError(f"{self.path}: {len(text)} bytes do not fit in one sector")
        _write_sector(self.path, text.ljust(_GRUB_SIZE, b"#"), self.unlock)

    def reboot(self, state: State) -> tuple[State, Sequence[str]]:
        return state, _REBOOT  # GRUB takes the try back itself


@dataclass(frozen=True, slots=True)
class TryBoot:
    """The firmware's file: at most 512 bytes, filled up with empty lines so that it stays so."""

    path: Path
    unlock: Unlock

    def read(self) -> State:
        try:
            lines = self.path.read_text("ascii", "replace").splitlines()
        except OSError:
            return State()
        noted: dict[str, str] = {}
        section = started = ""
        for line in lines:
            if line.startswith(_NOTE):
                noted |= dict(_pairs(line.removeprefix(_NOTE).split()))
            elif line.startswith("["):
                section = line.strip()
            elif section == "[all]" and line.startswith("boot_partition="):
                number = line.partition("=")[2].strip()
                started = next((s for s, n in _PARTITIONS.items() if str(n) == number), "")
        # A note that the number contradicts is old: somebody chose a slot by hand.
        is_tried = started in SLOTS and noted.get("try") == started
        primary = other(started) if is_tried else started or "a"
        return State(
            primary=primary,
            try_once=started if is_tried else "",
            good=frozenset(noted.get("good", "")) & set(SLOTS) | {primary},
            bad=frozenset(noted.get("bad", "")) & set(SLOTS) - {primary},
        )

    def write(self, state: State) -> None:
        good, bad = ("".join(sorted(slots)) for slots in (state.good, state.bad))
        started = state.try_once or state.primary
        text = (
            f"{_NOTE}good={good} bad={bad} try={state.try_once}\n"
            f"[all]\ntryboot_a_b=1\nboot_partition={_PARTITIONS[started]}\n"
            f"[tryboot]\nboot_partition={_PARTITIONS[other(started)]}\n"
        )
        content = text.encode().ljust(SECTOR, b"\n")
        try:
            if self.path.read_bytes() == content:
                return
        except OSError:
            pass
        _write_sector(self.path, content, self.unlock)

    def reboot(self, state: State) -> tuple[State, Sequence[str]]:
        return state, _REBOOT  # the RAM disk takes the try back


def _variables(path: Path) -> dict[str, str]:
    """Of an environment block; none where there is none that GRUB would read."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    if not content.startswith(_GRUB_HEADER) or len(content) != _GRUB_SIZE:
        return {}
    lines = content.decode("ascii", "replace").splitlines()
    return dict(_pairs(line for line in lines if not line.startswith("#")))


def _pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    split = (text.partition("=") for text in texts)
    return [(name, value) for name, equals, value in split if equals]


def _write_sector(path: Path, content: bytes, unlock: Unlock) -> None:
    """
    Write the first sector in place; the whole file only where what follows is not as it must be.

    The latter happens where there was none, or one that somebody else wrote.
    """
    with unlock():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _tail(path) != content[SECTOR:]:
                os.ftruncate(descriptor, len(content))
                os.pwrite(descriptor, content[SECTOR:], SECTOR)
            os.pwrite(descriptor, content[:SECTOR], 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(SECTOR)
        return file.read(_GRUB_SIZE)


def answer(arguments: Sequence[str], loader: Bootloader, running: str) -> str:
    """
    RAUC's questions and orders to a custom backend, and "well" of the system; what to print.

    Source: RAUC's reference, "Custom Bootloader Backend Interface". Raises ValueError.
    """
    match arguments:
        case ["get-current"] if running:
            return running
        case ["get-primary"]:
            state = loader.read()
            return state.try_once or state.primary
        case ["set-primary", slot] if slot in SLOTS:
            change(loader, lambda state: chosen(usable(state, slot), slot))
        case ["get-state", slot] if slot in SLOTS:
            return "bad" if slot in loader.read().bad else "good"
        case ["set-state", slot, "good"] if slot in SLOTS:
            change(loader, lambda state: usable(state, slot))
        case ["set-state", slot, "bad"] if slot in SLOTS:
            change(loader, lambda state: condemned(state, slot))
        case ["well"]:
            change(loader, lambda state: well(state, running))
        case _:
            raise ValueError(f"not understood: {' '.join(arguments)}")
    return ""


def main(arguments: Sequence[str]) -> int:
    try:
        found = release.read()
        if found is None:
            raise ValueError("this machine was not started from an image of Pinnace")
        said = answer(arguments, loader_of(found.board), release.slot())
    except (OSError, ValueError) as err:
        sys.stderr.write(f"boot loader: {err}\n")
        return 1
    if said:
        sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
