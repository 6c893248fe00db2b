"""
The same inputs give the same bytes: an image and its bundle, built twice in different places.

The second build lies elsewhere, is made by another user's habits (mask, time zone, language, a
hash seed) and later; downloads and keys are the same, as they are locked and kept.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.releases import EPOCH, ROOT

CHUNK = 1 << 20  # bytes read at once
OTHER = {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"}


def checkout(folder: Path) -> Path:
    """What is checked out here, as it lies there, with the same downloads."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target, follow_symlinks=False)
    (ROOT / ".cache").mkdir(exist_ok=True)
    (folder / ".cache").symlink_to(ROOT / ".cache")
    return folder


def built(tree: Path, board: str, keys: Path, mask: int, **environment: str) -> dict[str, str]:
    """SHA-256 of what a build gives, by name."""
    command = [sys.executable, "-m", "appliance.run", board, "--level=1"]
    command += [f"--keys={keys}", f"--epoch={EPOCH}", "--version=v1.36.3+pinnace1"]
    subprocess.run(
        command,
        check=True,
        cwd=tree / "image-build",
        env={**os.environ, "PYTHONPATH": f"{tree}:{tree}/image-build", **environment},
        umask=mask,
    )
    made = sorted((tree / "build" / board).glob("pinnace-*"))
    return {path.name: digest(path) for path in made}


def digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            found.update(part)
    return found.hexdigest()


@pytest.mark.parametrize("board", ["x86-64", "rpi-arm64"])
def test_two_builds_give_the_same_bytes(tmp_path: Path, board: str) -> None:
    keys = tmp_path / "keys"
    first = built(checkout(tmp_path / "one"), board, keys, 0o022)
    other = tmp_path / "another" / "place"
    second = built(checkout(other), board, keys, 0o077, **OTHER)
    assert first == second
    assert {name.rpartition(".")[2] for name in first} == {"img", "xz", "raucb"}
