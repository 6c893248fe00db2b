"""
``make package``: Pinnace for a plain Debian 12 or 13, signed and laid out as a bundle.

One file for each architecture: the program and its dependencies as wheels for both Pythons,
what starts it, and the keyring that later packages are verified with. The same inputs give the same
bytes. Usage: ``python -m appliance.package ARCHITECTURE [--version=V] [--keys=FOLDER] [--epoch=S]``
in ``image-build``; it lies in ``build/package/`` then.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import charts
from appliance import bundle
from appliance.boards import is_version
from appliance.keys import Keys, KeysError, ensure
from appliance.wheels import PINS, ROOT
from controlplane.objects.version import VERSION
from node.update.bundle import COMPATIBLE, PACKAGE
from node.update.unpack import ABOUT, WHEELS

CACHE = ROOT / ".cache" / "packages-wheels"
FILES = ROOT / "image-build" / "files" / "package"
UNIT = ROOT / "image-build" / "pinnace.service"
PYTHONS = ("3.11", "3.13")  # of Debian 12 and 13
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
PROGRAMS = ("controlplane", "node", "operators")
_STAMP = Path("controlplane/objects/version.py")
_LEFT_OUT = re.compile(r"^controlplane/generate/|(^|/)__pycache__/|\.pyc$")
_OLDEST_GLIBC = 36  # 2.36, of Debian 12
_PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==[^\s;]+( ; (?P<marker>[^\\]+?))?( \\)?$")
_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip


class PackageError(Exception):
    """Something that the user can mend; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    architecture: str  # Debian's
    version: str
    epoch: int
    pythons: tuple[str, ...] = PYTHONS

    @property
    def board(self) -> str:
        return PACKAGE + self.architecture


def build(order: Order, keys: Keys, folder: Path, say: Callable[[str], None]) -> Path:
    """The package, in ``folder``. Raises :class:`PackageError` and OSError."""
    if not is_version(order.version):
        raise PackageError(f"{order.version!r} is not a version such as v1.36.3+pinnace1")
    if order.architecture not in MACHINES:
        raise PackageError(f"{order.architecture!r}: choose one of {', '.join(MACHINES)}")
    found: dict[str, Path] = {}
    for python in order.pythons:
        found |= {path.name: path for path in fetch(order.architecture, python, say)}
    say("package")
    target = folder / f"pinnace-{order.version}-{order.board}.raucb"
    wheels = [found[name] for name in sorted(found)]
    return write(order, keys, target, wheels, own=program(order))


def write(order: Order, keys: Keys, target: Path, wheels: Sequence[Path], *, own: bytes) -> Path:
    """Pack and sign; ``own``: the program's wheel. ``target`` appears when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.new")
    try:
        with staged.open("w+b") as file:
            _pack(order, file, list(_members(order, keys, wheels, own)), len(wheels) + 1)
            size = file.tell()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            update = {
                "compatible": COMPATIBLE + order.board,
                "version": order.version,
                "build": str(order.epoch),
            }
            payload = {"format": "tar", "size": str(size), "sha256": digest}
            manifest = "\n".join(
                [bundle.section("update", update), bundle.section("bundle", payload)]
            )
            bundle.seal(file, manifest, keys, order.epoch)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)
    return target


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    content: bytes | Path
    mode: int = 0o644

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def _members(order: Order, keys: Keys, wheels: Sequence[Path], own: bytes) -> Iterator[_Member]:
    unit = UNIT.read_text().replace("/usr/bin/pinnace", "/opt/pinnace/start")
    yield _Member("install.py", (FILES / "install.py").read_bytes())
    yield _Member("start", (FILES / "start").read_bytes(), 0o755)
    yield _Member("pinnace.service", unit.encode())
    yield _Member("keyring.pem", keys.keyring.read_bytes())
    plain = order.version.removeprefix("v")
    yield _Member(f"{WHEELS}pinnace-{plain}-py3-none-any.whl", own)
    for path in wheels:
        # The first platform is enough, and a name in an archive must not be long.
        yield _Member(f"{WHEELS}{path.stem.partition('.many')[0]}.whl", path)


def _pack(order: Order, file: io.BufferedRandom, members: Sequence[_Member], count: int) -> None:
    about = {
        "version": order.version,
        "board": order.board,
        "epoch": order.epoch,
        "pythons": order.pythons,
        "wheels": count,
    }

    def first(size: int) -> _Member:
        """Of the same length whatever the size is."""
        text = json.dumps(about | {"size": 0}).replace('"size": 0', f'"size": {size:>15}')
        return _Member(ABOUT, text.encode())

    blocks = sum(1 + -(-member.size // 512) for member in (first(0), *members))
    total = -(-(blocks + 2) * 512 // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member in (first(total), *members):
            info = tarfile.TarInfo(member.name)
            info.size, info.mode, info.mtime = member.size, member.mode, order.epoch
            if isinstance(member.content, bytes):
                archive.addfile(info, io.BytesIO(member.content))
            else:
                with member.content.open("rb") as content:
                    archive.addfile(info, content)
    if file.tell() != total:
        raise AssertionError(f"an archive of {file.tell()} bytes, {total} were expected")


def program(order: Order) -> bytes:
    """The program as a wheel; not compressed, since each zlib compresses in its own way."""
    charts.write_packaged()
    plain = order.version.removeprefix("v")
    about = f"pinnace-{plain}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: pinnace\nVersion: {plain}\nLicense: Apache-2.0\n"
    wheel = "Wheel-Version: 1.0\nGenerator: pinnace\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for place, content in _sources(order.version):
            archive.writestr(_entry(place), content)
        archive.writestr(_entry(f"{about}/METADATA"), metadata)
        archive.writestr(_entry(f"{about}/WHEEL"), wheel)
        archive.writestr(_entry(f"{about}/RECORD"), "")
    return buffer.getvalue()


def _sources(version: str) -> Iterator[tuple[str, bytes]]:
    for name in PROGRAMS:
        for path in sorted((ROOT / name).rglob("*")):
            place = path.relative_to(ROOT)
            if not path.is_file() or _LEFT_OUT.search(place.as_posix()):
                continue
            content = path.read_bytes()
            if place == _STAMP:
                content = content.replace(f'"{VERSION}"'.encode(), f'"{version}"'.encode())
            yield place.as_posix(), content


def _entry(place: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(place, _FIRST_DATE)
    info.external_attr = 0o644 << 16
    return info


def fetch(
    architecture: str, python: str, say: Callable[[str], None], cache: Path = CACHE
) -> list[Path]:
    """The wheels of all dependencies, by pip, against the hashes of the lock."""
    pins = "".join(pins_of(PINS.read_text(), MACHINES[architecture]))
    key = hashlib.sha256(f"{pins}{architecture}{python}".encode()).hexdigest()[:16]
    folder = cache / f"{architecture}-{python}-{key}"
    if not folder.exists():
        say(f"wheels for {architecture}, Python {python}")
        partial = folder.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        _download(pins, architecture, python, partial)
        partial.rename(folder)
    return sorted(folder.glob("*.whl"))


def pins_of(lock: str, machine: str) -> Iterator[str]:
    """
    The lines of a lock that count for Linux on ``machine``, without their conditions.

    pip would judge these by the machine that it runs on.
    """
    wanted = True
    for line in lock.splitlines(keepends=True):
        if found := _PIN.match(line.rstrip("\n")):
            marker = found["marker"] or ""
            wanted = "win32" not in marker
            if "platform_machine" in marker:
                wanted = f"'{machine}'" in marker
            if marker:
                line = line.replace(f" ; {marker}", "")
        if wanted:
            yield line


def _download(pins: str, architecture: str, python: str, folder: Path) -> None:
    machine, short = MACHINES[architecture], f"cp{python.replace('.', '')}"
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_OLDEST_GLIBC, 16, -1)]
    tags.append(f"manylinux2014_{machine}")
    requirements = folder / "requirements.txt"
    requirements.write_text(pins)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={folder}"),
            *("--implementation=cp", f"--python-version={python}", f"--abi={short}"),
            *("--abi=abi3", "--abi=none", *(f"--platform={tag}" for tag in tags)),
            f"--requirement={requirements}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    requirements.unlink()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise PackageError(f"{architecture}, Python {python}: {last}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="package", description="Pinnace for a plain Debian.")
    parser.add_argument("architecture", help=", ".join(MACHINES))
    parser.add_argument("--version", default=VERSION)
    parser.add_argument("--keys", type=Path, default=ROOT / "build" / "keys")
    parser.add_argument("--epoch", type=int, help="seconds since 1970; default: of the commit")
    told = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    try:
        epoch = _commit_time() if told.epoch is None else told.epoch
        order = Order(architecture=told.architecture, version=told.version, epoch=epoch)
        made = build(order, ensure(told.keys), ROOT / "build" / "package", say)
    except (PackageError, KeysError, OSError) as err:
        sys.stderr.write(f"package: {err}\n")
        return 1
    say(f"{made.relative_to(ROOT)}  {made.stat().st_size / 1e6:.1f} MB")
    return 0


def _commit_time() -> int:
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageError(f"this is no checkout: say --epoch ({done.stderr.strip()})")
    return int(done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
