"""
Debian packages: fetched as they were locked, and laid out without asking dpkg.

What comes over the network is checked against the lock before anybody reads it, and again
when it is taken from the cache. apt's own downloader fetches, so proxies, credentials and
certificates of this machine's configuration hold.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from appliance.lock import LockError, Package, mirrors

CACHE = Path(__file__).parent.parent.parent / ".cache" / "debs"
APT_HELPER = "/usr/lib/apt/apt-helper"
_AT_ONCE = 4
_CHUNK = 1 << 20  # bytes
# In Debian 13 these are links into /usr; a package of before may still have them as folders.
_MERGED = ("bin", "sbin", "lib", "lib64")

Keep = Callable[[str], bool]


class DebError(Exception):
    """A package is not what the lock says, or not a package; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What one package brought."""

    control: str  # its control file
    places: tuple[str, ...]  # what was kept, as paths without a slash in front


def fetch(
    packages: Iterable[Package], say: Callable[[str], None], folder: Path = CACHE
) -> dict[Package, Path]:
    """
    All of them, from the cache or the mirror; the largest first, some at once.

    Raises :class:`DebError` where bytes differ from the lock, :class:`LockError` where the
    mirror does not have what is locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {package: folder / f"{package.sha256[:16]}_{package.file_name}" for package in packages}
    missing = sorted((p for p in found if not found[p].exists()), key=lambda p: -p.size)
    total, done = sum(package.size for package in missing), 0
    addresses = {m.archive: m.address.rstrip("/") for m in mirrors()} if missing else {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = {pool.submit(_download, p, found[p], addresses): p for p in missing}
        try:
            for future in as_completed(waiting):
                future.result()
                before, done = done, done + waiting[future].size
                if 10 * done // total > 10 * before // total:
                    say(f"packages: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for package, path in found.items():
        verify(package, path)
    return found


def verify(package: Package, path: Path) -> None:
    """Raises :class:`DebError`, and removes the file, where it is not the locked one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        path.unlink()
        raise DebError(
            f"{package.file_name} is not the locked file (sha256 {digest}): it was removed; "
            "try again, and where that does not help renew the lock with `make image-lock`"
        )


def _download(package: Package, target: Path, addresses: dict[str, str]) -> None:
    address = addresses.get(package.archive)
    if address is None:
        raise LockError(f"this machine has no mirror of {package.archive}: {package.file_name}")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")  # two may be at it
    done = subprocess.run(
        [
            APT_HELPER,
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Retries=3",
            "download-file",
            f"{address}/{package.path}",
            str(partial),
            f"SHA256:{package.sha256}",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.startswith("E:")), "")
        raise LockError(
            f"{package.file_name} cannot be fetched ({said}): where the mirror has a newer one, "
            "renew the lock with `make image-lock`"
        )
    verify(package, partial)
    partial.rename(target)


# Unpacking


def unpack(deb: Path, target: Path, keep: Keep) -> Unpacked:
    """Lay out the files of a package for which ``keep`` (a path without slash) holds."""
    places = []
    with _archive(deb, "--fsys-tarfile") as archive:
        for member in archive:
            place = merged(member.name)
            if place and (member.isdir() or keep(place)):
                _lay_out(archive, member, target, place)
                if not member.isdir():
                    places.append(place)
    return Unpacked(control=control(deb), places=tuple(sorted(places)))


def control(deb: Path) -> str:
    """The control file: fields of the package."""
    done = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DebError(f"{deb.name} is not a Debian package: {done.stderr.strip()}")
    return done.stdout.strip() + "\n"


def merged(name: str) -> str:
    """``./lib/x`` → ``usr/lib/x``; "" for the root itself and the links into /usr."""
    place = PurePosixPath(name.lstrip("/")).as_posix().removeprefix("./")
    if place in {".", "", *_MERGED}:
        return ""
    if ".." in place.split("/"):
        raise DebError(f"a package has the path {name!r}")
    return f"usr/{place}" if place.partition("/")[0] in _MERGED else place


@contextmanager
def _archive(deb: Path, part: str) -> Iterator[tarfile.TarFile]:
    with subprocess.Popen(["dpkg-deb", part, deb], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as opened:
                yield opened
        except tarfile.ReadError as err:
            raise DebError(f"{deb.name} is not a Debian package: {err}") from err
        _drain(process.stdout)
    if process.returncode:
        raise DebError(f"{deb.name} cannot be unpacked")


def _drain(stream: IO[bytes]) -> None:
    """tar pads its end: who does not read that breaks the pipe."""
    while stream.read(_CHUNK):
        pass


def _lay_out(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, place: str) -> None:
    path = target / place
    if member.isdir():
        if not path.is_symlink():
            path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        path.hardlink_to(target / merged(member.linkname))
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        with source, path.open("wb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
        path.chmod(member.mode & 0o7777)
    else:
        raise DebError(f"{place}: a package has a device or a pipe")


def fields(text: str) -> dict[str, str]:
    """Of a control file: the first line of each field."""
    lines = (line for line in text.splitlines() if line[:1] not in {" ", "\t"} and ":" in line)
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def prune(folder: Path) -> Sequence[Path]:
    """Remove folders that are empty, from the leaves up; what was removed."""
    gone = []
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
            gone.append(path)
    return gone
