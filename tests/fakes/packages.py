"""
A plain Debian with small packages: real archives, real signatures, the real starter.

The program within says only its version. Implements ``Machine`` of ``tests/conformance/slots.py``.
"""

import io
import subprocess
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from appliance import package
from appliance.package import FILES, Order
from appliance.wheels import ROOT

from node.update import packages, unpack
from node.update.base import Slots
from tests.conformance.slots import PowerCut
from tests.fakes.bundles import EPOCH, V1, pair

BOARD = "package-amd64"
_MAIN = "import sys\nprint(sys.argv[1:], {version!r})\n"


@dataclass
class Power:
    left: int = -1

    def spend(self, _: str = "") -> None:
        if self.left == 0:
            raise PowerCut
        self.left -= 1 if self.left > 0 else 0


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in files.items():
            archive.writestr(place, content)
    return path


def _program(version: str) -> bytes:
    """In place of the real one, which is large."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("node/__main__.py", _MAIN.format(version=version))
        for name in ("node/__init__.py", "node/update/__init__.py", "node/update/unpack.py"):
            archive.writestr(name, (ROOT / name).read_bytes())  # for the first installation
    return buffer.getvalue()


@dataclass
class PackageMachine:
    folder: Path
    power: Power = field(default_factory=Power)
    count: int = 0

    def __post_init__(self) -> None:
        self.home.mkdir()
        with self.bundle(V1).open("rb") as file:
            unpack.unpack(file, self.home / "a", lambda _: None)
        (self.home / "start").write_bytes((FILES / "start").read_bytes())
        (self.home / "start").chmod(0o755)
        (self.home / "current").symlink_to("a")

    @property
    def home(self) -> Path:
        return self.folder / "opt"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def bundle(self, version: str, *, board: str = "", key: str = "", damage: str = "") -> Path:
        self.count += 1
        place = self.folder / f"{self.count}"
        place.mkdir()
        order = Order(
            architecture=(board or BOARD).removeprefix("package-"),
            version=version,
            epoch=EPOCH,
            pythons=("3.11", "3.13"),
        )
        wheels = [
            wheel(place, "one-1-py3-none-any.whl", {"one.py": f"VERSION = {version!r}\n" * 9999}),
            wheel(place, "two-1-cp311-cp311-linux.whl", {"two.py": "PYTHON = '3.11'\n"}),
            wheel(place, "two-1-cp313-cp313-linux.whl", {"two.py": "PYTHON = '3.13'\n"}),
        ]
        path = package.write(
            order, pair(key or "ours"), place / "x.raucb", wheels, own=_program(version)
        )
        content = bytearray(path.read_bytes())
        if damage == "tampered":
            content[len(content) // 2] ^= 1
        elif damage == "truncated":
            content = content[:-3000]
        elif damage == "garbage":
            content = bytearray(b"\x7fELF" * 1000)
        path.write_bytes(content)
        return path

    def started(self) -> str:
        """What the starter starts says its version."""
        done = subprocess.run(
            [self.home / "start", "server"],
            env={"PATH": "/usr/bin:/bin", "RUNTIME_DIRECTORY": str(self.run)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    async def start(self) -> Slots:
        self.started()
        found = packages.of_machine(self.home, self.run, before=self.power.spend)
        assert found is not None
        return found

    def cut_after(self, writes: int) -> None:
        self.power.left = writes
