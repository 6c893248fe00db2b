"""
A machine with two slots in a folder, whose power can be cut at each write.

``boot.json`` is what the boot loader knows, ``running.json`` what a start found; a slot is a
folder with its version. A bundle is a line of JSON about it, and a payload. It passes
``tests/conformance/slots.py``, and stands in for RAUC and for packages in the tests of updates.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.update.base import Bundle, InstallError, RefusedError, Slot
from node.update.version import parse
from tests.conformance.slots import PowerCut

BOARD = "fake"
PIECES = 4
OTHER = {"a": "b", "b": "a"}


@dataclass
class Power:
    """How many writes are left until it goes; -1: any number."""

    left: int = -1
    written: int = 0

    def spend(self) -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= self.left > 0
        self.written += 1


class FolderSlots:
    """Implements :class:`node.update.base.Slots`."""

    board = BOARD

    def __init__(self, folder: Path, power: Power, restart: Callable[[], None]) -> None:
        self._folder = folder
        self._power = power
        self._restart = restart
        self.fail: dict[str, Exception] = {}  # by the name of a method

    def _read(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self._folder / name).read_text()))

    def _write(self, name: str, content: Any) -> None:
        """Whole or not at all, as a rename is."""
        self._power.spend()
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(path.name + ".new")
        staged.write_text(json.dumps(content))
        staged.replace(path)

    def _may(self, name: str) -> None:
        if name in self.fail:
            raise self.fail[name]

    def _slot(self, name: str) -> Slot:
        path = self._folder / name / "slot.json"
        if not path.exists():
            return Slot(name=name, version=None, bad=False)
        found = json.loads(path.read_text())
        version = parse(found["version"]) if found["version"] else None
        return Slot(name=name, version=version, bad=found["bad"])

    async def running(self) -> Slot:
        return self._slot(self._read("running.json")["slot"])

    async def other(self) -> Slot:
        return self._slot(OTHER[self._read("running.json")["slot"]])

    async def on_trial(self) -> bool:
        running = self._read("running.json")
        return bool(running["trial"]) and self._read("boot.json")["primary"] != running["slot"]

    async def check(self, bundle: Path) -> Bundle:
        self._may("check")
        return _checked(bundle)

    async def install(self, bundle: Bundle, progress: Callable[[int], None]) -> None:
        name = (await self.other()).name
        self._write(f"{name}/slot.json", {"version": "", "bad": True})
        self._may("install")
        try:
            content = bundle.path.read_bytes()
        except OSError as err:
            raise InstallError(f"cannot read {bundle.path}: {err}") from err
        for piece in range(PIECES):
            self._write(f"{name}/{piece}", content[piece::PIECES].decode())
            progress((piece + 1) * 100 // PIECES)
        self._write(f"{name}/slot.json", {"version": str(bundle.version), "bad": False})

    async def try_once(self) -> None:
        self._may("try_once")
        other = (await self.other()).name
        self._write("boot.json", self._read("boot.json") | {"try": other})

    async def cancel_try(self) -> None:
        boot = self._read("boot.json")
        if boot["try"]:
            self._write("boot.json", boot | {"try": ""})

    async def commit(self) -> None:
        self._may("commit")
        running = self._read("running.json")["slot"]
        self._write("boot.json", {"primary": running, "try": ""})

    async def mark_bad(self) -> None:
        slot = await self.other()
        version = str(slot.version) if slot.version else ""
        self._write(f"{slot.name}/slot.json", {"version": version, "bad": True})

    async def restart(self) -> None:
        self._may("restart")
        self._power.spend()
        self._restart()


def _checked(bundle: Path) -> Bundle:
    head, _, payload = bundle.read_bytes().partition(b"\n")
    try:
        said = json.loads(head)
    except ValueError as err:
        raise RefusedError("NotABundle", f"{bundle} is no bundle") from err
    if said["key"] != "good":
        raise RefusedError("BadSignature", f"{bundle} was signed by a stranger")
    if said["size"] != len(payload):
        raise RefusedError("Truncated", f"{bundle} is not whole")
    if said["sha256"] != hashlib.sha256(payload).hexdigest():
        raise RefusedError("Tampered", f"{bundle} was changed after it was signed")
    if said["board"] != BOARD:
        raise RefusedError("WrongBoard", f"{bundle} is for the board {said['board']}")
    size = bundle.stat().st_size
    version = parse(said["version"])
    return Bundle(version=version, board=said["board"], size=size, path=bundle)


class FakeMachine:
    """Implements ``Machine`` of ``tests/conformance/slots.py``."""

    board = BOARD

    def __init__(self, folder: Path, *, version: str = "v1.36.3+pinnace1") -> None:
        self.folder = folder
        self.power = Power()
        self.restarts = 0
        self._bundles = 0
        for name, content in (
            ("a/slot.json", {"version": version, "bad": False}),
            ("boot.json", {"primary": "a", "try": ""}),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))

    def bundle(self, version: str, *, board: str = "", key: str = "", damage: str = "") -> Path:
        self._bundles += 1
        path = self.folder / f"{self._bundles}.bundle"
        payload = f"payload of {version}\n".encode() * 20
        said = {
            "version": version,
            "board": board or BOARD,
            "key": key or "good",
            "size": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        if damage == "tampered":
            payload = payload.replace(b"payload", b"PAYLOAD", 1)
        content = json.dumps(said).encode() + b"\n" + payload
        if damage == "truncated":
            content = content[:-100]
        path.write_bytes(b"\x7fELF" * 100 if damage == "garbage" else content)
        return path

    async def start(self) -> FolderSlots:
        return self.power_on()

    def power_on(self) -> FolderSlots:
        """What the boot loader does: it takes the try back before it starts anything."""
        path = self.folder / "boot.json"
        boot = json.loads(path.read_text())
        tried = boot["try"]
        path.write_text(json.dumps(boot | {"try": ""}))
        running = {"slot": tried or boot["primary"], "trial": bool(tried), "boot": self.boot() + 1}
        (self.folder / "running.json").write_text(json.dumps(running))
        return self.attach()

    def boot(self) -> int:
        """How often it was powered on."""
        path = self.folder / "running.json"
        return int(json.loads(path.read_text())["boot"]) if path.exists() else 0

    def attach(self, restart: Callable[[], None] | None = None) -> FolderSlots:
        """Another process of the same start."""
        return FolderSlots(self.folder, self.power, restart or self._restarted)

    @classmethod
    def found(cls, folder: Path) -> "FakeMachine":
        """One that was made before."""
        machine = cls.__new__(cls)
        machine.folder, machine.power, machine.restarts, machine._bundles = folder, Power(), 0, 0
        return machine

    def version(self) -> str:
        """Of the slot that runs."""
        running = json.loads((self.folder / "running.json").read_text())["slot"]
        return str(json.loads((self.folder / running / "slot.json").read_text())["version"])

    def _restarted(self) -> None:
        self.restarts += 1

    def cut_after(self, writes: int) -> None:
        self.power.left = writes
