"""
Releases to update to: the image of this checkout, a newer one, and newer ones that are broken.

The first is built as ``make image`` builds it (quickly compressed). The others are the same tree
with another name and, where one is broken, with what breaks it: an update is written and started
in the same way, and a test sees by the name which of them runs. Kept in ``build/vm``, and made
anew when the checkout's program or files change.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance import boards, bundle, image, python_tree, rootfs, run, squashfs, toolbox
from appliance.keys import Keys, ensure
from appliance.rootfs import Rootfs
from appliance.toolbox import Toolbox

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "vm"
FIRST, SECOND = "v1.36.3+pinnace1", "v1.36.3+pinnace2"
BROKEN, PANICS = "v1.36.3+pinnace3", "v1.36.3+pinnace4"
OLDER = "v1.36.2+pinnace9"
EPOCH = 1_790_000_000
_LEVEL = 3
_SOURCES = ("controlplane", "node", "operators", "image-build", "charts", "requirements")
_VERSION = "controlplane/objects/version.py"
_UNIT = "etc/systemd/system/pinnace.service.d/broken.conf"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    board: str
    disk: Path  # of FIRST, not compressed
    bundles: Mapping[str, Path]  # by version: SECOND, BROKEN, PANICS, OLDER
    keys: Path


def _starts_nothing(tree: Path) -> None:
    """The machine comes up, the node does not: the gate sees it."""
    path = tree / _UNIT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")


def _panics(tree: Path) -> None:
    """The kernel gives up before anything of ours runs: nobody is there who could go back."""
    (tree / "usr/sbin/init").unlink()
    for place in ("usr/lib/systemd/systemd",):
        (tree / place).unlink()
        (tree / place).write_text("#!/bin/sh\nexit 1\n")
        (tree / place).chmod(0o755)
    (tree / "usr/sbin/init").symlink_to("../lib/systemd/systemd")


def _as_it_is(tree: Path) -> None:
    del tree


_VARIANTS: Mapping[str, Callable[[Path], None]] = {
    SECOND: _as_it_is,
    BROKEN: _starts_nothing,
    PANICS: _panics,
    OLDER: _as_it_is,
}


def make(say: Say, board: str = "x86-64", folder: Path = FOLDER) -> Releases:
    """Made, or found as they were made before from the same sources."""
    folder = folder / board
    keys = folder / "keys"
    found = Releases(
        board=board,
        disk=folder / "disk.img",
        bundles={v: folder / f"pinnace-{v}-{board}.raucb" for v in _VARIANTS},
        keys=keys,
    )
    stamp, now = folder / "made-of", _fingerprint()
    if stamp.exists() and stamp.read_text() == now:
        return found
    stamp.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    tools, signing = toolbox.make(say), ensure(keys)
    first = rootfs.build(
        boards.board(board),
        FIRST,
        epoch=EPOCH,
        work=folder / "first",
        level=_LEVEL,
        say=say,
        keyring=signing.keyring.read_bytes(),
    )
    made = image.assemble(tools, run.parts_of(first), folder / "first", say)
    made.disk.replace(found.disk)
    maker = _Maker(first=first, boot=made.boot, tools=tools, keys=signing)
    for version, target in found.bundles.items():
        say(f"release {version}")
        maker.make(version, _VARIANTS[version], target)
    stamp.write_text(now)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    first: Rootfs
    boot: Path
    tools: Toolbox
    keys: Keys

    def make(self, version: str, alter: Callable[[Path], None], target: Path) -> None:
        work = target.parent / "variant"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        # Links, since nothing is written in place: what is altered is a new file.
        subprocess.run(["cp", "-al", self.first.tree, work / "root"], check=True)
        tree = work / "root"
        for place in ("usr/lib/os-release", "usr/share/pinnace/release.json"):
            _rewrite(tree / place, {FIRST: version, FIRST[1:]: version[1:]})
        self._stamp(tree, version)
        alter(tree)
        owned = list(rootfs._owned(tree, rootfs._accounts(self.first.tree)))
        root = work / "root.squashfs"
        squashfs.make(tree, root, self.tools, epoch=EPOCH, level=_LEVEL, owned=owned)
        content = bundle.Content(
            board=self.first.board.name, version=version, epoch=EPOCH, root=root, boot=self.boot
        )
        run.make_bundle(self.tools, content, self.keys, target)
        shutil.rmtree(work)

    def _stamp(self, tree: Path, version: str) -> None:
        """What the program itself says that it is."""
        source = ROOT / _VERSION
        compiled = (tree / python_tree.HOME / _VERSION).with_suffix(".pyc")
        compiled.unlink()
        shutil.copyfile(source, compiled.with_suffix(".py"))
        python_tree.stamp(compiled.with_suffix(".py"), version)
        folder = str(compiled.parent.relative_to(tree))
        python_tree.compile_all(tree, folder, self.tools)


def _rewrite(path: Path, words: Mapping[str, str]) -> None:
    text = path.read_text()
    for old, new in words.items():
        text = text.replace(old, new)
    path.unlink()
    path.write_text(text)


def _fingerprint() -> str:
    """Of what the image is made of, as it lies in the checkout."""
    found = hashlib.sha256(json.dumps([FIRST, *_VARIANTS, EPOCH, _LEVEL]).encode())
    found.update(Path(__file__).read_bytes())
    for name in _SOURCES:
        for path in sorted((ROOT / name).rglob("*")):
            made = "__pycache__" in path.parts or path.suffix == ".tgz"  # of other sources
            if path.is_file() and not made:
                found.update(f"{path.relative_to(ROOT)} {path.stat().st_mtime_ns}".encode())
    return found.hexdigest()
