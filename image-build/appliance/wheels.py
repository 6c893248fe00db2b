"""
The Python packages of an image: wheels for its architecture and its Python, as they are locked.

``requirements/runtime.txt`` holds the versions and the hashes of all wheels; pip chooses the
one of each package that the board can run, fetches it and checks it.
"""

import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from appliance.boards import Board

ROOT = Path(__file__).parent.parent.parent
PINS = ROOT / "requirements" / "runtime.txt"
CACHE = ROOT / ".cache" / "wheels"
PYTHON = "3.13"  # of Debian 13


class WheelError(Exception):
    """A wheel cannot be had; the text is pip's last line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    path: Path
    name: str  # as its metadata say
    version: str
    license: str  # an SPDX expression where the metadata have one, else as it is written; "" none
    sha256: str


def fetch(board: Board, say: Callable[[str], None], cache: Path = CACHE) -> tuple[Wheel, ...]:
    """All of them, sorted by name. Raises :class:`WheelError`."""
    key = hashlib.sha256(PINS.read_bytes() + repr((board.wheels, PYTHON)).encode()).hexdigest()
    folder = cache / f"{board.architecture}-{key[:16]}"
    if not folder.exists():
        say("Python packages: fetching wheels")
        cache.mkdir(parents=True, exist_ok=True)
        # Another one may fetch them at the same time: whoever is first has done it.
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _download(board, Path(scratch, "wheels"))
            with contextlib.suppress(OSError):
                Path(scratch, "wheels").rename(folder)
    return tuple(sorted(map(read, folder.glob("*.whl")), key=lambda wheel: wheel.name.lower()))


def _download(board: Board, folder: Path) -> None:
    platforms = [f"--platform={tag}" for tag in board.wheels]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={folder}"),
            *("--implementation=cp", f"--python-version={PYTHON}", "--abi=cp313", "--abi=abi3"),
            *("--abi=none", *platforms, f"--requirement={PINS}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WheelError((done.stderr.strip().splitlines() or ["pip gave no reason"])[-1])


def read(path: Path) -> Wheel:
    """What a wheel says of itself."""
    with zipfile.ZipFile(path) as opened:
        name = next(n for n in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        about = HeaderParser().parsestr(opened.read(name).decode())
    return Wheel(
        path=path,
        name=about["Name"],
        version=about["Version"],
        license=about["License-Expression"] or (about["License"] or "").partition("\n")[0].strip(),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def files(wheel: Wheel) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """The members of a wheel by their place in site-packages; scripts and data are left out."""
    with zipfile.ZipFile(wheel.path) as opened:
        for info in sorted(opened.infolist(), key=lambda info: info.filename):
            place = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", info.filename)
            if not info.is_dir() and not re.match(r"[^/]+\.data/", place):
                yield place, info, opened
