"""
The root of one slot, from locked packages: joins everything that goes into its squashfs.

No maintainer script runs, and nothing of the target's architecture: what those scripts would
have done is said here, in ``users.py``, ``units.py`` and as files in ``image-build/files``.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import images
import traefik

import charts
from appliance import (
    debs,
    elf,
    lock,
    modules,
    python_tree,
    sbom,
    slots,
    squashfs,
    toolbox,
    trim,
    units,
    users,
    wheels,
)
from appliance.boards import Board, is_version
from appliance.lock import Package
from appliance.squashfs import Owned
from appliance.toolbox import Toolbox

FILES = Path(__file__).parent.parent / "files"
LAYERS = (FILES / "root", FILES)  # what lies below etc, usr and var of these is copied as it is
SHARE = "usr/share/pinnace"
CHANNEL = f"{SHARE}/channel.pem"
AUTHORITIES = "etc/ssl/certs"
_IMAGE_LEVEL = 15  # of zstd; made once and kept
_LINKS = {name: f"usr/{name}" for name in ("bin", "sbin", "lib")}
# Where something is mounted, and what must be there for it.
_FOLDERS = tuple(
    """
    boot/pinnace data dev proc sys run tmp root mnt srv home opt etc/cni/net.d
    var/lib/pinnace var/log/pods var/tmp var/cache var/lib/systemd var/lib/dbus var/lib/private
    usr/lib/cni etc/systemd/system etc/systemd/network etc/sysctl.d etc/modprobe.d
    """.split()
)
_SYMLINKS: Mapping[str, str] = {
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "etc/mtab": "../proc/self/mounts",
    "etc/localtime": "/usr/share/zoneinfo/Etc/UTC",
    "etc/os-release": "../usr/lib/os-release",
    "var/run": "/run",
    "var/lock": "/run/lock",
    "usr/bin/awk": "mawk",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
    "var/lib/dbus/machine-id": "/etc/machine-id",
    # Debian's kernel trusts Debian's signature.
    "usr/lib/firmware/regulatory.db": "regulatory.db-debian",
    "usr/lib/firmware/regulatory.db.p7s": "regulatory.db.p7s-debian",
}
# As dpkg's own scripts set them; the groups are of users.py.
_OWNED: Sequence[tuple[str, int, str]] = (
    ("usr/lib/dbus-1.0/dbus-daemon-launch-helper", 0o4754, "messagebus"),
    ("etc/shadow", 0o640, "shadow"),
    ("etc/gshadow", 0o640, "shadow"),
    ("root", 0o700, "root"),
    ("tmp", 0o1777, "root"),
    ("var/tmp", 0o1777, "root"),
    ("etc/pinnace", 0o700, "root"),
)


class RootError(Exception):
    """The root cannot be made; one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """What one build made, in its work folder."""

    board: Board
    version: str  # v1.36.3+pinnace1
    epoch: int  # seconds since 1970: every time within
    tree: Path
    squashfs: Path
    kernel: Path
    modules: Path  # usr/lib/modules/<release> with modules.dep; files are not compressed
    busybox: Path  # static, of the board's architecture
    boot: Path  # what packages bring for a boot partition: firmware, device trees


def build(
    board: Board,
    version: str,
    *,
    epoch: int,
    work: Path,
    level: int,
    say: Callable[[str], None],
    keyring: bytes | None = None,
    channel: bytes | None = None,
) -> Rootfs:
    """
    Make the root of a version in ``work``, which is made anew.

    ``level``: of the compression, 1 to 22. ``keyring``: certificates that update bundles must
    be signed by, PEM; ``channel``: keys of the channels that plans may follow without naming
    one. Raises the errors of the parts and :class:`RootError`.
    """
    if not is_version(version):
        raise RootError(f"{version!r} is not a version such as v1.36.3+pinnace1")
    tools = toolbox.make(say)
    packages = lock.for_board(board.name)
    fetched = debs.fetch(packages, say)
    chosen = wheels.fetch(board, say)
    work.mkdir(parents=True, exist_ok=True)
    tree, boot = _empty(work / "root"), _empty(work / "boot")
    say(f"root: unpacking {len(packages)} packages")
    unpacked = {p: debs.unpack(fetched[p], tree, _keep(board)) for p in sorted(packages)}
    kernel = _boot_files(tree, boot, work)
    say("root: modules")
    kept = modules.select(tree, board, tools)
    say("root: program")
    charts.write_packaged()
    python_tree.build(tree, chosen, tools, version)
    python_tree.command(tree, say)
    elf.strip_all(tree / python_tree.HOME)
    _settle(tree, tools)
    _images(tree, board, tools, say)
    accounts = _accounts(tree)
    _identity(tree, board, version, epoch)
    _inventory(tree, board, version, epoch=epoch, unpacked=unpacked, chosen=chosen)
    if keyring is not None:
        (work / "keyring.pem").write_bytes(keyring)
        slots.configure(tree, board.name, work / "keyring.pem")
    if channel is not None:
        (tree / CHANNEL).write_bytes(channel)
    say(f"root: squashfs, zstd level {level}")
    made = squashfs.make(
        tree,
        work / "root.squashfs",
        tools,
        epoch=epoch,
        level=level,
        owned=list(_owned(tree, accounts)),
    )
    say(f"root: {made.stat().st_size / 1e6:.1f} MB")
    return Rootfs(
        board=board,
        version=version,
        epoch=epoch,
        tree=tree,
        squashfs=made,
        kernel=kernel,
        modules=kept,
        busybox=tree / "usr/bin/busybox",
        boot=boot,
    )


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def _keep(board: Board) -> Callable[[str], bool]:
    wanted = tuple(f"usr/lib/{place}" for place in board.firmware)

    def keep(place: str) -> bool:
        if place.startswith("usr/lib/firmware/"):
            return place.startswith(wanted)
        return trim.keep(place)

    return keep


def _boot_files(tree: Path, boot: Path, work: Path) -> Path:
    """What belongs on a boot partition leaves the root; the kernel."""
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise RootError(f"the packages have {len(kernels)} kernels, not one")
    kernel = work / "vmlinuz"
    shutil.move(kernels[0], kernel)
    for pattern in ("boot", "usr/lib/linux-image-*", "usr/lib/raspi-firmware"):
        for path in sorted(tree.glob(pattern)):
            shutil.move(path, boot / path.name)
    return kernel


# What maintainer scripts would have done


def _settle(tree: Path, tools: Toolbox) -> None:
    for name, target in _LINKS.items():
        (tree / name).unlink(missing_ok=True)
        (tree / name).symlink_to(target)
    if (tree / "usr/lib64").is_dir():
        (tree / "lib64").symlink_to("usr/lib64")
    for place in _FOLDERS:
        (tree / place).mkdir(parents=True, exist_ok=True)
    for place, target in _SYMLINKS.items():
        _link(tree / place, target)
    own = frozenset(_copy_files(tree))
    (tree / "etc/machine-id").write_text("")  # written at the first start
    _certificates(tree, tools)
    _applets(tree, tools)
    units.enable(tree, trim.MASKED - own, own)
    for name in ("usr", "etc"):
        debs.prune(tree / name)
    for place in _FOLDERS:
        (tree / place).mkdir(parents=True, exist_ok=True)


def _copy_files(tree: Path) -> Iterator[str]:
    """Ours, over those of the packages; the names of units among them."""
    for layer in LAYERS:
        for name in ("etc", "usr", "var"):
            if (layer / name).is_dir():
                shutil.copytree(layer / name, tree / name, dirs_exist_ok=True, symlinks=True)
        if (layer / units.SYSTEM).is_dir():
            yield from (p.name for p in (layer / units.SYSTEM).iterdir() if p.is_file())


def _link(path: Path, target: str) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _certificates(tree: Path, tools: Toolbox) -> None:
    """One file with all authorities, and a link for each by its hash, as OpenSSL looks."""
    folder = tree / AUTHORITIES
    folder.mkdir(parents=True, exist_ok=True)
    source = tree / "usr/share/ca-certificates/mozilla"
    paths = sorted(source.glob("*.crt"))
    bundle = b"".join(path.read_bytes().rstrip() + b"\n" for path in paths)
    (folder / "ca-certificates.crt").write_bytes(bundle)
    script = 'for f in *.crt; do echo "$(openssl x509 -noout -subject_hash -in "$f") $f"; done'
    output = tools.run(["sh", "-ec", f"cd /mnt/in; {script}"], binds={"/mnt/in": source})
    seen: dict[str, int] = {}
    for line in output.decode().splitlines():
        key, _, name = line.partition(" ")
        index = seen[key] = seen.get(key, -1) + 1
        _link(folder / f"{key}.{index}", f"/usr/share/ca-certificates/mozilla/{name}")


def _applets(tree: Path, tools: Toolbox) -> None:
    """What no package brings, busybox does: ps, vi, less, ping, wget."""
    for applet in applets(tools):
        if not any((tree / place / applet).exists() for place in ("usr/bin", "usr/sbin")):
            _link(tree / "usr/bin" / applet, "busybox")


def applets(tools: Toolbox) -> list[str]:
    """Of Debian's static busybox, but for those that would do something to packages or users."""
    listed = tools.run(["busybox", "--list"]).decode().split()
    unwanted = {"dpkg", "dpkg-deb", "rpm", "rpm2cpio", "busybox", "linuxrc", "init", "python"}
    return sorted(set(listed) - unwanted)


def _accounts(tree: Path) -> users.Accounts:
    made = users.of(tree)
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tree / "etc" / name).write_text(getattr(made, name))
    return made


def _owned(tree: Path, accounts: users.Accounts) -> Iterator[Owned]:
    for place, mode, group in _OWNED:
        if (tree / place).exists():
            yield Owned(place=place, mode=mode, group=accounts.group_number(group))


# What runs on it


def _images(tree: Path, board: Board, tools: Toolbox, say: Callable[[str], None]) -> None:
    """
    Archives that the node imports at its first start, where tmpfiles.d links them.

    They stay packed, so that a board writes 40 MB of Traefik to its card once and not 185.
    """
    folder = tree / SHARE / "images"
    images.write(
        folder,
        images.Programs(
            busybox=tree / "usr/bin/busybox",
            catatonit=tree / "usr/bin/catatonit",
            architecture=board.architecture,
            applets=tuple(applets(tools)),
        ),
    )
    say("root: image of Traefik")
    authorities = tree / AUTHORITIES / "ca-certificates.crt"
    try:
        traefik.write(folder, board.architecture, authorities, partial(_press, tools))
    except traefik.Unavailable as err:
        say(f"without Traefik: {err}")


def _press(tools: Toolbox, plain: Path, packed: Path) -> None:
    """Of several threads zstd makes the same bytes, however many there are."""
    tools.run(
        [
            "zstd",
            f"-{_IMAGE_LEVEL}",
            "-T2",
            "-q",
            f"/mnt/in/{plain.name}",
            "-o",
            f"/mnt/out/{packed.name}",
        ],
        binds={"/mnt/in": plain.parent, "/mnt/out": packed.parent},
    )


def _identity(tree: Path, board: Board, version: str, epoch: int) -> None:
    base = (tree / "usr/lib/os-release").read_text()
    debian = re.search(r'^VERSION_ID="?(\d+)', base, re.MULTILINE)
    lines = {
        "NAME": "Pinnace",
        "ID": "pinnace",
        "ID_LIKE": "debian",
        "PRETTY_NAME": f"Pinnace {version}",
        "VERSION": version,
        "VERSION_ID": version.removeprefix("v"),
        "VARIANT_ID": board.name,
        "DEBIAN_VERSION": debian[1] if debian else "13",
    }
    text = "".join(f'{name}="{value}"\n' for name, value in lines.items())
    (tree / "usr/lib/os-release").write_text(text)
    (tree / SHARE).mkdir(parents=True, exist_ok=True)
    release = {"version": version, "board": board.name, "epoch": epoch}
    (tree / SHARE / "release.json").write_text(json.dumps(release) + "\n")
    # systemd sets no clock before the time of this file, which the squashfs gives it.
    (tree / "usr/lib/clock-epoch").write_text("")


def _inventory(
    tree: Path,
    board: Board,
    version: str,
    *,
    epoch: int,
    unpacked: Mapping[Package, debs.Unpacked],
    chosen: Sequence[wheels.Wheel],
) -> None:
    """dpkg's list of what is installed, and the document for those who audit."""
    missing = sbom.missing_licenses(tree, unpacked)
    if missing:
        raise RootError(f"no copyright file of {', '.join(missing)}")
    status = io.StringIO()
    for package in sorted(unpacked):
        control = unpacked[package].control
        status.write(control.replace("\n", "\nStatus: install ok installed\n", 1) + "\n")
    folder = tree / "var/lib/dpkg"
    (folder / "info").mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text(status.getvalue())
    about = [(p, debs.fields(unpacked[p].control)) for p in sorted(unpacked)]
    text = sbom.document(board=board.name, version=version, epoch=epoch, debs=about, wheels=chosen)
    (tree / sbom.PLACE).write_text(text)


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sizes(tree: Path, depth: int = 3) -> list[tuple[int, str]]:
    """Bytes below each folder of a tree, the largest first; for whoever looks for what to drop."""
    found: dict[str, int] = {}
    for folder, _, names in os.walk(tree):
        place = "/".join(Path(folder).relative_to(tree).parts[:depth])
        size = sum(Path(folder, name).lstat().st_size for name in names)
        found[place] = found.get(place, 0) + size
    return sorted(((size, place) for place, size in found.items()), reverse=True)
