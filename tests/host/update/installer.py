"""
Plays ``rauc install`` where the kernel has no dm-verity: what it writes, says and notes.

Usage: ``installer.py FOLDER CONFIGURATION KEYRING BUNDLE``, FOLDER being that of an
``ImageMachine``. The signature is verified by the real ``rauc info`` where there is one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_CHUNK = 256 << 10
_FILES = {"rootfs": ("root", "root.squashfs"), "boot": ("boot", "boot.img")}


class Power:
    def __init__(self, budget: Path) -> None:
        self.budget = budget

    def spend(self) -> None:
        left = int(self.budget.read_text())
        if left == 0:
            os._exit(99)
        self.budget.write_text(str(max(left - 1, -1)))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(folder: Path, number: int, image: str, status: str) -> None:
    path = folder / "central.raucs"
    lines = path.read_text().split("\n\n") if path.exists() else []
    head = f"[slot.{image}.{number}]\n"
    kept = [part for part in lines if part and not part.startswith(head)]
    path.write_text("\n\n".join([*kept, f"{head}status={status}"]))


def copy(source: Path, target: Path, power: Power) -> None:
    with source.open("rb") as read, target.open("r+b") as write:
        while chunk := read.read(_CHUNK):
            power.spend()
            write.write(chunk)
            write.flush()
            os.fsync(write.fileno())


def main(folder: Path, configuration: str, keyring: str, bundle: str) -> int:
    power = Power(folder / "budget")
    if rauc := shutil.which("rauc"):
        command = [rauc, "-c", configuration, "--keyring", keyring, "info", bundle]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"LastError: {done.stderr.strip().splitlines()[-1]}")
            return 1
    slot = (folder / "target").read_text()
    number = "ab".index(slot)
    # Below the machine's folder, so that a power cut leaves nothing that is not found there.
    with tempfile.TemporaryDirectory(dir=folder) as place:
        subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", bundle, place], check=True)
        try:
            for percent, (image, (part, file)) in zip((30, 80), _FILES.items(), strict=True):
                power.spend()
                note(folder, number, image, "pending")
                say(f" {percent}% Copying image to {image}.{number}")
                copy(Path(place, file), folder / "devices" / f"{part}-{slot}", power)
                power.spend()
                note(folder, number, image, "ok")
        finally:
            subprocess.run(["umount", place], check=True)
    say("100% Installing done.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
