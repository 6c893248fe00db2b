"""
From a package to a slot: a folder that Python takes for a virtual environment.

The package of a plain Debian is a tar archive with the program and all that it needs as wheels, for
each Python that Debian has; a wheel is an archive of files that only want to be put in place. So
neither pip nor a network has a part in it, a slot also starts after Debian's next release
has brought another Python, and what is the same for both lies on the disk once.
The standard library only: the first installation runs this before there is anything else.
Source: the binary distribution format (wheels); PEP 405 (virtual environments).
"""

import io
import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

ABOUT = "pinnace-package.json"  # the first member
WHEELS = "wheels/"
PLAIN = ("install.py", "start", "pinnace.service", "keyring.pem")
_PYTHON = "/usr/bin/python3"
_COMMAND = """\
#!/bin/sh
# This version of Pinnace; which one is started is told by the link `current` beside it.
exec "$(dirname "$(readlink -f "$0")")/python3" -I -m node "$@"
"""
_WHEEL = re.compile(r"[A-Za-z0-9_.+!-]+\.whl")
# Of the wheels nobody imports these: other forms of the client, tests, what only compilers read.
_UNUSED = re.compile(
    r"kubernetes/(aio|e2e_test|test|docs)/|(^|/)tests?/|\.(pyi|pyx|pxd|pxi|c|h|hash)$"
)
_SELDOM = "/kubernetes/client/(models|api)/"  # read one by one, if at all: not compiled at once
_ABI = re.compile(r"-cp3(\d+)-cp3\d+-")  # compiled for this Python and no other


class PackageError(Exception):
    """The archive is not what a package is."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    version: str
    board: str  # package-amd64
    epoch: int
    pythons: tuple[str, ...]  # "3.11", "3.13"
    wheels: int  # how many there are


def read_about(text: bytes) -> About:
    """Raises :class:`PackageError`."""
    try:
        found = json.loads(text)
        return About(
            version=str(found["version"]),
            board=str(found["board"]),
            epoch=int(found["epoch"]),
            pythons=tuple(str(python) for python in found["pythons"]),
            wheels=int(found["wheels"]),
        )
    except (ValueError, KeyError, TypeError) as err:
        raise PackageError(f"{ABOUT} cannot be read: {err}") from err


def unpack(stream: Readable, target: Path, progress: Callable[[int], None]) -> About:
    """
    Fill the new folder ``target`` from an archive that is read once, from start to end.

    ``progress``: percents. Nothing is safe on the disk yet. Raises :class:`PackageError`, OSError.
    """
    target.mkdir(parents=True)
    about: About | None = None
    count = 0
    try:
        # mypy: any object with read() will do, and a stream needs no more.
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is None:
                    raise PackageError(f"{member.name} is no file")
                if about is None:
                    about = _first(member, content)
                    _prepare(target, about)
                elif member.name in PLAIN:
                    (target / member.name).write_bytes(content.read())
                else:
                    _put(target, about, member.name, content)
                    count += 1
                    progress(min(99, count * 100 // max(about.wheels, 1)))
    except tarfile.TarError as err:
        raise PackageError(f"the archive is damaged: {err}") from err
    if about is None or count != about.wheels:
        raise PackageError("the archive is not complete")
    (target / "start").chmod(0o755)
    return about


def compile_all(slot: Path, python: str = _PYTHON) -> None:
    """Bytecode for this machine's Python: made once instead of at the first start. Best effort."""
    code = "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    folder = packages_of(slot, told.stdout.strip())
    if folder.is_dir():
        command = [python, "-I", "-m", "compileall", "-qq", "-x", _SELDOM, str(folder)]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def packages_of(slot: Path, python: str) -> Path:
    return slot / "lib" / f"python{python}" / "site-packages"


def _first(member: tarfile.TarInfo, content: Readable) -> About:
    if member.name != ABOUT:
        raise PackageError(f"it begins with {member.name}, not with {ABOUT}")
    return read_about(content.read())


def _prepare(target: Path, about: About) -> None:
    binaries = target / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to(_PYTHON)
    (binaries / "pinnace").write_text(_COMMAND)
    (binaries / "pinnace").chmod(0o755)
    for python in about.pythons:
        packages_of(target, python).mkdir(parents=True)
    configuration = {"home": "/usr/bin", "include-system-site-packages": "false"}
    lines = "".join(f"{name} = {value}\n" for name, value in configuration.items())
    (target / "pyvenv.cfg").write_text(lines)
    release = {"version": about.version, "board": about.board, "epoch": about.epoch}
    (target / "release.json").write_text(json.dumps(release) + "\n")


def _put(target: Path, about: About, name: str, content: Readable) -> None:
    """One wheel, for each Python that can run it; what they share is one file."""
    file = name.removeprefix(WHEELS)
    if file == name or not _WHEEL.fullmatch(file):
        raise PackageError(f"{name} has no place in a package")
    compiled = _ABI.search(file)
    only = f"3.{compiled[1]}" if compiled and "-abi3-" not in file else ""
    pythons = [python for python in about.pythons if only in ("", python)]
    if not pythons:
        raise PackageError(f"{name} is for none of {', '.join(about.pythons)}")
    first, *others = (packages_of(target, python) for python in pythons)
    try:
        with zipfile.ZipFile(io.BytesIO(content.read())) as wheel:
            placed = [_place(wheel, info, first) for info in wheel.infolist()]
    except zipfile.BadZipFile as err:
        raise PackageError(f"{name} is damaged: {err}") from err
    for folder in others:
        for place in filter(None, placed):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).hardlink_to(first / place)


def _place(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> str:
    """Where a file of a wheel was put; "": nowhere, since it belongs to an installation by pip."""
    place = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", info.filename)
    if info.is_dir() or re.match(r"[^/]+\.data/", place) or _UNUSED.search(place):
        return ""
    path = PurePosixPath(place)
    if path.is_absolute() or ".." in path.parts:
        raise PackageError(f"{info.filename} leaves its folder")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with wheel.open(info) as source, target.open("xb") as file:
        shutil.copyfileobj(source, file)
    if info.external_attr >> 16 & 0o111:
        target.chmod(0o755)
    return place
